//! Lanes: how the mail of each account flows, and whether it is parked.

use sqlx::{PgConnection, query_scalar};

use super::queue::Lane;
use super::{Store, StoreError, events};
use crate::domain::event::Event;
use crate::domain::site::SiteId;

/// Lets the mail of an account flow again, inside the transaction that is the reason; whether it had been parked.
pub(super) async fn resume(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
) -> Result<bool, StoreError> {
    let was_parked = query_scalar!(
        r#"with before as (
               select parking_reason is not null as parked
               from lanes
               where site_id = $1
                 and account_id = $2
               for update
           )
           update lanes
           set failures = 0,
               parking_reason = null,
               parking_error = null,
               parked_until = null,
               probes = 0,
               pause_until = null,
               mailing_pause_until = null
           from before
           where site_id = $1
             and account_id = $2
           returning before.parked as "parked!""#,
        site.as_str(),
        account,
    )
    .fetch_optional(&mut *connection)
    .await?
    .unwrap_or(false);
    if was_parked {
        events::append(connection, site, &[Event::Account { account, parking: None }]).await?;
    }
    Ok(was_parked)
}

/// Lets the mail of an account flow again, since it works: a check passed, or a letter went through.
///
/// # Errors
/// When the database does not answer.
pub async fn resume_now(store: &Store, site: &SiteId, account: i64) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    resume(&mut transaction, site, account).await?;
    transaction.commit().await?;
    tell_resumed(store, site, account);
    Ok(())
}

/// Tells this process that the mail of an account may flow; call it when that is committed.
pub(super) fn tell_resumed(store: &Store, site: &SiteId, account: i64) {
    store.changes.recorded(site, &[]);
    store.changes.due(Lane { site: site.clone(), account });
}
