//! The requests that created accounts: each counts once.

use sqlx::{PgConnection, query};

use super::Created;
use crate::domain::site::SiteId;
use crate::store::{Store, StoreError};

/// Notes the request that creates this account, inside its transaction; what came before it, where it is not the first.
pub(super) async fn claim(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    request: Option<(&str, &[u8])>,
) -> Result<Option<Created>, StoreError> {
    let Some((request_id, mac)) = request else { return Ok(None) };
    // Waits for a transaction that notes the same id, and sees what it did.
    let noted = query!(
        "insert into account_requests (site_id, request_id, request_mac, account_id) values ($1, $2, $3, $4)
         on conflict do nothing",
        site.as_str(),
        request_id,
        mac,
        account,
    )
    .execute(&mut *connection)
    .await?;
    if noted.rows_affected() > 0 {
        return Ok(None);
    }
    let found = known(connection, site, request_id).await?;
    let (account, mac) = found.ok_or(StoreError::Corrupt("request id"))?;
    Ok(Some(Created::RequestKnown { account, mac }))
}

/// The account that was created by this request, and the MAC of the request's content.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_request(
    store: &Store,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let mut connection = store.pool.acquire().await?;
    known(&mut connection, site, request_id).await
}

async fn known(
    connection: &mut PgConnection,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = query!(
        "select account_id, request_mac from account_requests where site_id = $1 and request_id = $2",
        site.as_str(),
        request_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.account_id, row.request_mac)))
}
