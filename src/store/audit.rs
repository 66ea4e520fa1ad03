//! The log `audit`: every change is noted in its own transaction, every read before it is shown.

use sqlx::{PgConnection, query_scalar};

use super::{Store, StoreError, logs, positions};
use crate::domain::audit::Note;
use crate::domain::clock::Clock;
use crate::domain::site::SiteId;

/// Adds a note inside the transaction that does what it tells. Comes last in it, since it takes the lock of the site:
/// rows of letters, accounts, lanes, settings and keys are locked before it, by everybody. Nothing is noted of a site
/// that does not exist.
pub(super) async fn append(
    connection: &mut PgConnection,
    clock: &Clock,
    site: &SiteId,
    note: &Note,
) -> Result<(), StoreError> {
    positions::lock(&mut *connection, site).await?;
    // The time behind the lock: times grow as positions do.
    logs::append_audit(connection, site, &note.chunk(site, clock.now()), clock.now()).await
}

/// Notes what is about to be shown; whether there is such a site.
///
/// # Errors
/// When the database does not answer.
pub async fn note(store: &Store, site: &SiteId, note: &Note) -> Result<bool, StoreError> {
    let mut transaction = store.begin().await?;
    let exists = query_scalar!(
        r#"select exists (
               select from sites where site_id = $1 and delete_time is null
           ) as "exists!""#,
        site.as_str(),
    )
    .fetch_one(&mut *transaction)
    .await?;
    if exists {
        append(&mut transaction, &store.clock, site, note).await?;
        transaction.commit().await?;
        store.changes.recorded(site, &[]);
    }
    Ok(exists)
}
