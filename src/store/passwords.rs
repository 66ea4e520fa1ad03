//! Passwords of accounts: sealed on their way in, opened only for a session.

use sqlx::query;

use super::{Store, StoreError};
use crate::domain::account::Auth;
use crate::domain::secret::Secret;
use crate::domain::site::SiteId;
use crate::vault::Place;

/// Seals the password of an account for the place where it will stand.
pub(super) fn seal(
    store: &Store,
    site: &SiteId,
    account: i64,
    password: &Secret,
) -> Result<Vec<u8>, StoreError> {
    Ok(store.vault.seal(&place(site, account), password)?)
}

/// How an account logs in, its password opened; `None` where there is no such account.
///
/// # Errors
/// When the database does not answer, or the password cannot be opened.
pub async fn open(store: &Store, site: &SiteId, account: i64) -> Result<Option<Auth>, StoreError> {
    let row = query!(
        "select username, sealed_password from accounts where site_id = $1 and account_id = $2",
        site.as_str(),
        account,
    )
    .fetch_optional(&store.pool)
    .await?;
    row.map(|row| match (row.username, row.sealed_password) {
        (Some(username), Some(sealed)) => {
            let opened = store.vault.open(&place(site, account), &sealed);
            let password = opened.inspect_err(|_| store.metrics.database.password_unopened())?;
            Ok(Auth::Password { username, password })
        }
        _ => Ok(Auth::None),
    })
    .transpose()
}

pub(super) fn place(site: &SiteId, account: i64) -> Place<'_> {
    Place { table: "accounts", column: "sealed_password", site: site.as_str(), row: account.to_string() }
}
