//! What the choice of account chooses from: one indexed query, however many accounts a site has.

use sqlx::{PgExecutor, query_as};

use super::{Store, StoreError};
use crate::domain::account::Origin;
use crate::domain::routing::Candidate;
use crate::domain::site::SiteId;

/// Whose accounts to look at.
#[derive(Clone, Copy, Debug)]
pub enum Owners<'a> {
    /// Those that may be used on behalf of this user; empty for the site itself.
    UsableBy(&'a str),
    /// Everybody's.
    All,
}

struct CandidateRow {
    account_id: i64,
    sender_name: String,
    active: bool,
    origin: String,
    user_id: String,
    shared: bool,
    mailings_first: bool,
}

impl TryFrom<CandidateRow> for Candidate {
    type Error = StoreError;

    fn try_from(row: CandidateRow) -> Result<Self, StoreError> {
        let CandidateRow { account_id, sender_name, active, origin, user_id, shared, mailings_first } = row;
        let origin = Origin::from_name(&origin).ok_or(StoreError::Corrupt("origin"))?;
        Ok(Self { account: account_id, sender_name, active, origin, user: user_id, shared, mailings_first })
    }
}

/// The accounts of a site whose address has this key, by id. Those of other people are not even read, so that nothing
/// tells of them, not the time it takes either.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    sender_key: &str,
    owners: Owners<'_>,
) -> Result<Vec<Candidate>, StoreError> {
    within(&store.pool, site, sender_key, owners).await
}

/// The same inside a transaction.
pub(super) async fn within(
    executor: impl PgExecutor<'_>,
    site: &SiteId,
    sender_key: &str,
    owners: Owners<'_>,
) -> Result<Vec<Candidate>, StoreError> {
    let (all, user) = match owners {
        Owners::UsableBy(user) => (false, user),
        Owners::All => (true, ""),
    };
    query_as!(
        CandidateRow,
        "select account_id, sender_name, active, origin, user_id, shared, mailings_first
         from accounts
         where site_id = $1
           and sender_key = $2
           and ($3 or origin = 'admin' or shared or user_id = $4)
         order by account_id",
        site.as_str(),
        sender_key,
        all,
        user,
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(Candidate::try_from)
    .collect()
}
