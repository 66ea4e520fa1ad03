//! Deleting an account, and what becomes of the mail that waits for it.

use sqlx::{PgConnection, query, query_as, query_scalar};
use uuid::Uuid;

use super::candidates::{self, Owners};
use super::{Store, StoreError, audit, closing, logs};
use crate::domain::address::Mailbox;
use crate::domain::audit::Note;
use crate::domain::message::Ending;
use crate::domain::routing::{self, Letter};
use crate::domain::settings::AccountPriority;
use crate::domain::site::SiteId;

/// What became of an attempt to delete an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, its logs, too.
    Deleted,
    /// There is none, or none of that version.
    NotFound,
    /// So many letters wait for it.
    MailWaits(i64),
}

/// Deletes an account, if it has this version where one is named. Letters that wait for it are a reason not to, or
/// with `force` are chosen a new account each; those that find none fail. The deletion is noted.
///
/// # Errors
/// When the database does not answer.
pub async fn delete_account(
    store: &Store,
    site: &SiteId,
    account: i64,
    version: Option<i64>,
    force: bool,
    priority: AccountPriority,
    note: &Note,
) -> Result<Deleted, StoreError> {
    closing::persistently(|| delete_once(store, site, account, version, force, priority, note)).await
}

async fn delete_once(
    store: &Store,
    site: &SiteId,
    account: i64,
    version: Option<i64>,
    force: bool,
    priority: AccountPriority,
    note: &Note,
) -> Result<Deleted, StoreError> {
    let mut transaction = store.begin().await?;
    // Locks out letters that are just being accepted for it (`for key share` in taking).
    let locked = query_scalar!(
        "select account_id
         from accounts
         where site_id = $1
           and account_id = $2
           and ($3::bigint is null or version = $3)
         for update",
        site.as_str(),
        account,
        version,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    if locked.is_none() {
        return Ok(Deleted::NotFound);
    }
    let waiting = waiting_letters(&mut transaction, site, account).await?;
    if !waiting.is_empty() && !force {
        return Ok(Deleted::MailWaits(i64::try_from(waiting.len()).unwrap_or(i64::MAX)));
    }
    query!("delete from accounts where site_id = $1 and account_id = $2", site.as_str(), account)
        .execute(&mut *transaction)
        .await?;
    let failed = reroute(&mut transaction, site, priority, waiting).await?;
    logs::restart_deleted(&mut transaction, site, account, store.clock().now()).await?;
    audit::append(&mut transaction, &store.clock, site, note).await?;
    transaction.commit().await?;
    store.changes.configured();
    store.changes.recorded(site, &failed);
    Ok(Deleted::Deleted)
}

struct WaitingRow {
    message_id: Uuid,
    from_address: String,
    user_id: String,
    mailing: bool,
}

impl WaitingRow {
    fn routes_like(&self, other: &Self) -> bool {
        (&self.from_address, &self.user_id, self.mailing)
            == (&other.from_address, &other.user_id, other.mailing)
    }
}

async fn waiting_letters(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
) -> Result<Vec<WaitingRow>, StoreError> {
    let rows = query_as!(
        WaitingRow,
        "select m.message_id, m.from_address, m.user_id, m.mailing
         from queue q
         join messages m on m.site_id = q.site_id and m.message_id = q.message_id
         where q.site_id = $1
           and q.account_id = $2
         order by m.from_address, m.user_id, m.mailing, m.message_id
         for update of q",
        site.as_str(),
        account,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Chooses a new account for each letter; those that find none fail. Answers these.
async fn reroute(
    connection: &mut PgConnection,
    site: &SiteId,
    priority: AccountPriority,
    waiting: Vec<WaitingRow>,
) -> Result<Vec<Uuid>, StoreError> {
    let mut homeless = Vec::new();
    for (letters, account) in choose(&mut *connection, site, priority, &waiting).await? {
        match account {
            Some(account) => move_to(&mut *connection, site, &letters, account).await?,
            None => homeless.extend(letters),
        }
    }
    let letters = closing::lock(&mut *connection, site, &homeless).await?;
    // An attempt that is under way has its outcome; what it leaves open the sweep ends.
    let waiting =
        letters.into_iter().filter(|letter| letter.place.as_ref().is_none_or(|place| !place.under_way));
    let failing = waiting.map(|letter| (letter, Ending::NoMatchingAccount)).collect();
    closing::close(connection, site, failing).await
}

/// Letters that share a choice, and the account that was chosen for them if there is one.
type Choice = (Vec<Uuid>, Option<i64>);

/// Chooses a new account for each of these letters.
pub(super) async fn choose_anew(
    connection: &mut PgConnection,
    site: &SiteId,
    priority: AccountPriority,
    letters: &[Uuid],
) -> Result<Vec<Choice>, StoreError> {
    let rows = query_as!(
        WaitingRow,
        "select message_id, from_address, user_id, mailing
         from messages
         where site_id = $1
           and message_id = any($2)
         order by from_address, user_id, mailing, message_id",
        site.as_str(),
        letters,
    )
    .fetch_all(&mut *connection)
    .await?;
    choose(connection, site, priority, &rows).await
}

/// Chooses an account for each letter; letters of one From, user and kind, which stand together, share the choice.
async fn choose(
    connection: &mut PgConnection,
    site: &SiteId,
    priority: AccountPriority,
    waiting: &[WaitingRow],
) -> Result<Vec<Choice>, StoreError> {
    let mut choices = Vec::new();
    for letters in waiting.chunk_by(WaitingRow::routes_like) {
        let Some(first) = letters.first() else { continue };
        let from = Mailbox::parse(&first.from_address).map_err(|_| StoreError::Corrupt("from_address"))?;
        let owners = Owners::UsableBy(&first.user_id);
        let candidates = candidates::within(&mut *connection, site, &from.address.key(), owners).await?;
        let letter = Letter {
            from_name: from.name.as_deref(),
            user: &first.user_id,
            mailing: first.mailing,
            requested: None,
        };
        let account = routing::choose(&letter, priority, &candidates).map(|(account, _)| account);
        choices.push((letters.iter().map(|letter| letter.message_id).collect(), account));
    }
    Ok(choices)
}

async fn move_to(
    connection: &mut PgConnection,
    site: &SiteId,
    ids: &[Uuid],
    account: i64,
) -> Result<(), StoreError> {
    query!(
        "with moved as (
             update queue set account_id = $3 where site_id = $1 and message_id = any($2) returning message_id
         )
         update messages m
         set account_id = $3
         from moved
         where m.site_id = $1
           and m.message_id = moved.message_id",
        site.as_str(),
        ids,
        account,
    )
    .execute(connection)
    .await?;
    Ok(())
}
