//! What the choice of account chooses from: one indexed query, however many accounts a site has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::{PgConnection, PgExecutor, query, query_as};

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

/// Whose accounts with which address are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked<'a> {
    /// The site.
    pub(super) site: &'a SiteId,
    /// The key of the address.
    pub(super) sender_key: &'a str,
    /// Who may use them; empty for the site itself.
    pub(super) user: &'a str,
}

/// The accounts for each of these, by id, as of [`Owners::UsableBy`]; nothing for those that have none.
pub(super) async fn of_all<'a>(
    connection: &mut PgConnection,
    asked: BTreeSet<Asked<'a>>,
) -> Result<BTreeMap<Asked<'a>, Arc<[Candidate]>>, StoreError> {
    let asked: Vec<Asked<'a>> = asked.into_iter().collect();
    let sites: Vec<&str> = asked.iter().map(|asked| asked.site.as_str()).collect();
    let keys: Vec<&str> = asked.iter().map(|asked| asked.sender_key).collect();
    let users: Vec<&str> = asked.iter().map(|asked| asked.user).collect();
    let rows = query!(
        r#"select n.place as "place!", a.account_id, a.sender_name, a.active, a.origin, a.user_id, a.shared, a.mailings_first
           from unnest($1::text[], $2::text[], $3::text[]) with ordinality as n (site_id, sender_key, user_id, place)
           join accounts a on a.site_id = n.site_id
                          and a.sender_key = n.sender_key
                          and (a.origin = 'admin' or a.shared or a.user_id = n.user_id)
           order by n.place, a.account_id"#,
        &sites as &[&str],
        &keys as &[&str],
        &users as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let mut found: BTreeMap<Asked<'a>, Vec<Candidate>> = BTreeMap::new();
    for row in rows {
        let number = usize::try_from(row.place).ok().and_then(|place| place.checked_sub(1));
        let of = number.and_then(|number| asked.get(number)).ok_or(StoreError::Corrupt("place"))?;
        let candidate = CandidateRow {
            account_id: row.account_id,
            sender_name: row.sender_name,
            active: row.active,
            origin: row.origin,
            user_id: row.user_id,
            shared: row.shared,
            mailings_first: row.mailings_first,
        };
        found.entry(*of).or_default().push(candidate.try_into()?);
    }
    Ok(found.into_iter().map(|(asked, candidates)| (asked, candidates.into())).collect())
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
