//! Positions of transcripts and events of a site: drawn under a lock of that site that is held until the commit, so that
//! the order of positions is the order of commits, and a reader that has seen position N misses nothing at or below N.

use sqlx::query;

use super::StoreError;
use crate::domain::site::SiteId;

/// First key of the advisory locks by which writers of one site queue up.
const LOCK_CLASS: i32 = 0x706f_7374;

/// Takes the lock of a site, until the transaction ends. It may be taken again within it.
pub(super) async fn lock(connection: &mut sqlx::PgConnection, site: &SiteId) -> Result<(), StoreError> {
    query!("select pg_advisory_xact_lock($1, hashtext($2)) is null as locked", LOCK_CLASS, site.as_str())
        .fetch_one(connection)
        .await?;
    Ok(())
}
