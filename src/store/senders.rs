//! Senders: From addresses that somebody may use, beside those of accounts.

use sqlx::query_scalar;

use super::{Store, StoreError};
use crate::domain::site::SiteId;

/// Whether this user may use the address of this key: he, or everybody, has a confirmed sender for it.
///
/// # Errors
/// When the database does not answer.
pub async fn is_confirmed(
    store: &Store,
    site: &SiteId,
    user: &str,
    sender_key: &str,
) -> Result<bool, StoreError> {
    let found = query_scalar!(
        r#"select exists (
               select from senders
               where site_id = $1
                 and sender_key = $2
                 and confirmed
                 and (user_id = $3 or shared)
           ) as "exists!""#,
        site.as_str(),
        sender_key,
        user,
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(found)
}
