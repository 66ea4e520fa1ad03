//! Retrying: letters go back into the queue for everybody who has not got them.

use std::collections::{HashMap, HashSet};

use sqlx::types::Json;
use sqlx::{PgConnection, query, query_scalar};
use uuid::Uuid;

use super::closing::{self, Letter, persistently};
use super::queue::Lane;
use super::selection::{self, Selection};
use super::{Store, StoreError, events, rerouting};
use crate::domain::event::Event;
use crate::domain::message::{MessageState, Recipient, reopen};
use crate::domain::settings::AccountPriority;
use crate::domain::site::SiteId;

/// What became of an attempt to retry a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is due.
    Done,
    /// There is none.
    NotFound,
    /// An attempt is under way.
    UnderWay,
    /// Its `expire_time` has passed.
    Expired,
    /// Nobody is left to send to; it is final in this state.
    NothingLeft(MessageState),
    /// A letter of Postroom's own, whose content is gone, or soon will be.
    Own,
    /// Its account was deleted, and no other may carry it.
    NoMatchingAccount,
}

/// Retries one letter; `priority` is the site's, should it need another account.
///
/// # Errors
/// When the database does not answer.
pub async fn retry(
    store: &Store,
    site: &SiteId,
    message: Uuid,
    priority: AccountPriority,
) -> Result<Retried, StoreError> {
    let answers = retry_group(store, site, &[message], &MessageState::ALL, priority).await?;
    Ok(answers.first().copied().unwrap_or(Retried::NotFound))
}

/// Retries the letters of a selection, whose states are among queued, failed, partially sent and uncertain; how many.
/// Those that cannot be retried stay as they are.
///
/// # Errors
/// When the database does not answer; those retried until then stay so.
pub async fn retry_all(
    store: &Store,
    site: &SiteId,
    selection: &Selection,
    priority: AccountPriority,
) -> Result<u64, StoreError> {
    let start = query_scalar!(r#"select now() as "now!""#).fetch_one(&store.pool).await?;
    let mut count = 0;
    if selection.wants(MessageState::Queued) {
        let mut after = Uuid::nil();
        loop {
            let ids = selection::open(store, site, selection, after).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            count += done(&retry_group(store, site, &ids, &[MessageState::Queued], priority).await?);
        }
    }
    let states: Vec<MessageState> =
        selection.states.iter().copied().filter(|state| *state != MessageState::Queued).collect();
    let closed = Selection { states, ..selection.clone() };
    if !closed.states.is_empty() {
        let mut after = Uuid::nil();
        loop {
            // What became final since the call began may have been retried by it, and is not retried twice.
            let ids = selection::closed(store, site, &closed, Some(start), after).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            count += done(&retry_group(store, site, &ids, &closed.states, priority).await?);
        }
    }
    Ok(count)
}

/// How many letters were retried.
fn done(answers: &[Retried]) -> u64 {
    let done = answers.iter().filter(|answer| **answer == Retried::Done).count();
    u64::try_from(done).unwrap_or(u64::MAX)
}

/// Retries those of these letters that are there and in one of these states; what became of each.
async fn retry_group(
    store: &Store,
    site: &SiteId,
    ids: &[Uuid],
    states: &[MessageState],
    priority: AccountPriority,
) -> Result<Vec<Retried>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    persistently(|| retry_group_once(store, site, ids, states, priority)).await
}

async fn retry_group_once(
    store: &Store,
    site: &SiteId,
    ids: &[Uuid],
    states: &[MessageState],
    priority: AccountPriority,
) -> Result<Vec<Retried>, StoreError> {
    let mut transaction = store.begin().await?;
    // Holds off who deletes the site, and has counted what waits; there is nothing to retry where somebody has.
    let site_stays = query_scalar!(
        "select site_id from sites where site_id = $1 and delete_time is null for key share",
        site.as_str(),
    )
    .fetch_optional(&mut *transaction)
    .await?;
    if site_stays.is_none() {
        return Ok(Vec::new());
    }
    let letters = closing::lock(&mut transaction, site, ids).await?;
    let (mut answers, mut fit) = (Vec::with_capacity(letters.len()), Vec::new());
    for mut letter in letters.into_iter().filter(|letter| states.contains(&letter.state)) {
        match refusal(&mut letter) {
            Some(refused) => answers.push(refused),
            None => fit.push(letter),
        }
    }
    let accounts = accounts(&mut transaction, site, &fit, priority).await?;
    let mut opened = Vec::with_capacity(fit.len());
    for letter in fit {
        match accounts.get(&letter.message) {
            Some(account) => opened.push(Letter { account: *account, ..letter }),
            None => answers.push(Retried::NoMatchingAccount),
        }
    }
    answers.resize(answers.len() + opened.len(), Retried::Done);
    let changed: Vec<Uuid> = opened.iter().map(|letter| letter.message).collect();
    let lanes: HashSet<i64> = opened.iter().map(|letter| letter.account).collect();
    open(&mut transaction, site, opened).await?;
    transaction.commit().await?;
    store.changes.recorded(site, &changed);
    for account in lanes {
        store.changes.due(Lane { site: site.clone(), account });
    }
    Ok(answers)
}

/// Makes the recipients of a letter pending again, or tells why it cannot be retried.
fn refusal(letter: &mut Letter) -> Option<Retried> {
    if letter.is_own {
        Some(Retried::Own)
    } else if letter.place.as_ref().is_some_and(|place| place.under_way) {
        Some(Retried::UnderWay)
    } else if letter.place.as_ref().is_some_and(|place| place.cancelled) {
        // Cancelled while an attempt was under way; what is left of it ends at the next claim.
        Some(Retried::NothingLeft(MessageState::Cancelled))
    } else if letter.has_expired() {
        Some(Retried::Expired)
    } else if !reopen(&mut letter.recipients) {
        Some(Retried::NothingLeft(letter.state))
    } else {
        None
    }
}

/// The account of each letter that has one: its own, or another where that was deleted. They stay until the
/// transaction ends.
async fn accounts(
    connection: &mut PgConnection,
    site: &SiteId,
    letters: &[Letter],
    priority: AccountPriority,
) -> Result<HashMap<Uuid, i64>, StoreError> {
    let mut wanted: HashMap<Uuid, i64> =
        letters.iter().map(|letter| (letter.message, letter.account)).collect();
    let mut there = keep(&mut *connection, site, wanted.values().copied().collect()).await?;
    let gone = |account: &i64| !there.contains(account);
    let homeless: Vec<Uuid> =
        wanted.iter().filter(|(_, account)| gone(account)).map(|(message, _)| *message).collect();
    if !homeless.is_empty() {
        let mut chosen = HashSet::new();
        for (letters, account) in rerouting::choose_anew(&mut *connection, site, priority, &homeless).await? {
            let Some(account) = account else { continue };
            chosen.insert(account);
            wanted.extend(letters.into_iter().map(|letter| (letter, account)));
        }
        there.extend(keep(connection, site, chosen).await?);
    }
    wanted.retain(|_, account| there.contains(account));
    Ok(wanted)
}

/// Those of these accounts that exist; nobody deletes them until the transaction ends.
async fn keep(
    connection: &mut PgConnection,
    site: &SiteId,
    accounts: HashSet<i64>,
) -> Result<HashSet<i64>, StoreError> {
    let accounts: Vec<i64> = accounts.into_iter().collect();
    let there = query_scalar!(
        "select account_id
         from accounts
         where site_id = $1
           and account_id = any($2)
         order by account_id
         for key share",
        site.as_str(),
        &accounts,
    )
    .fetch_all(connection)
    .await?;
    Ok(there.into_iter().collect())
}

/// Puts letters, whose recipients are pending again, back into the queue, or forward in it.
async fn open(connection: &mut PgConnection, site: &SiteId, letters: Vec<Letter>) -> Result<(), StoreError> {
    let (mut ids, mut accounts, mut recipients) =
        (Vec::new(), Vec::new(), Vec::<Json<Vec<Recipient>>>::new());
    let mut told: Vec<Event> = Vec::new();
    for letter in letters {
        let Letter { message, account, tags, recipients: of_letter, .. } = letter;
        told.push(closing::event(message, account, tags, MessageState::Queued.name(), &of_letter));
        ids.push(message);
        accounts.push(account);
        recipients.push(Json(of_letter));
    }
    query!(
        "with opened as (
             select *
             from unnest($2::uuid[], $3::bigint[], $4::jsonb[]) as o (message_id, account_id, recipients)
         ), queued as (
             insert into queue (site_id, message_id, account_id, mailing, due, first_due, expire_time, attempt)
             select $1, m.message_id, o.account_id, m.mailing, greatest(now(), m.send_time),
                    greatest(now(), m.send_time), m.expire_time,
                    -- Numbers go on, so that no late result of an attempt of then counts as one of a new attempt.
                    coalesce((m.attempts -> -1 ->> 'number')::integer, 0)
             from opened o
             join messages m on m.site_id = $1 and m.message_id = o.message_id
             on conflict (site_id, message_id) do update
             set account_id = excluded.account_id,
                 due = excluded.due,
                 first_due = excluded.first_due,
                 cancelled = false
         )
         update messages m
         set state = 'open',
             final_time = null,
             held_attempt = null,
             recipients = o.recipients,
             account_id = o.account_id
         from opened o
         where m.site_id = $1
           and m.message_id = o.message_id",
        site.as_str(),
        &ids,
        &accounts,
        recipients as _,
    )
    .execute(&mut *connection)
    .await?;
    // Last, since it takes the lock of the site.
    events::append(connection, site, &told).await
}
