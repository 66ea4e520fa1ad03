//! Letters that end otherwise than by an attempt: locked, closed with all that belongs to it; and the sweep that closes
//! those whose time is over.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::types::Json;
use sqlx::{PgConnection, query, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::queue::interval;
use super::replicas::LEASE;
use super::{Store, StoreError, events};
use crate::domain::event::{Event, EventRecipient};
use crate::domain::message::{Attempt, Ending, MessageState, Recipient, end};
use crate::domain::site::SiteId;

/// Work on several letters that meets that of others in another order, and loses, is begun anew so often in all.
const TRIES: usize = 5;

/// Begins work anew that was broken off because it and somebody else's stood in each other's way (a deadlock).
pub(super) async fn persistently<T, Work: Future<Output = Result<T, StoreError>>>(
    mut work: impl FnMut() -> Work,
) -> Result<T, StoreError> {
    for _ in 1..TRIES {
        match work().await {
            Err(error) if error.is_deadlock() => {}
            answer => return answer,
        }
    }
    work().await
}

/// A letter that is locked until the transaction ends.
#[derive(Debug)]
pub(super) struct Letter {
    /// Its id.
    pub(super) message: Uuid,
    /// Its account, which may be gone.
    pub(super) account: i64,
    /// Its state: open, which is told as queued, or a final one.
    pub(super) state: MessageState,
    /// When it became final.
    pub(super) final_time: Option<OffsetDateTime>,
    /// It is not sent after this time.
    pub(super) expire_time: Option<OffsetDateTime>,
    /// Its tags.
    pub(super) tags: Vec<String>,
    /// Its recipients.
    pub(super) recipients: Vec<Recipient>,
    /// Whether it is a letter of Postroom's own.
    pub(super) is_own: bool,
    /// Its place in the queue, while it is open.
    pub(super) place: Option<Place>,
    /// The time of the transaction.
    pub(super) now: OffsetDateTime,
}

/// A letter's place in the queue.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The last attempt that was claimed.
    attempt: i32,
    /// Whether that attempt was not recorded.
    leased: bool,
    /// Whether the lease counts: an attempt is under way.
    pub(super) under_way: bool,
    /// For whom the attempt has written the dot; told only with HOLD.
    at_dot: Vec<i32>,
    /// Whether it was cancelled while it was under way.
    pub(super) cancelled: bool,
    /// Since when it may be sent.
    first_due: OffsetDateTime,
}

/// Locks those of these letters that exist, in the order of their ids; places in the queue first, as those who record
/// outcomes do.
pub(super) async fn lock(
    connection: &mut PgConnection,
    site: &SiteId,
    ids: &[Uuid],
) -> Result<Vec<Letter>, StoreError> {
    let mut places = places(&mut *connection, site, ids).await?;
    let rows = query!(
        r#"select message_id, account_id, state, final_time, expire_time, tags, is_own, now() as "now!",
                  recipients as "recipients: Json<Vec<Recipient>>"
           from messages
           where site_id = $1
             and message_id = any($2)
           order by message_id
           for update"#,
        site.as_str(),
        ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut letters = Vec::with_capacity(rows.len());
    for row in rows {
        let state = match row.state.as_str() {
            "open" => MessageState::Queued,
            state => MessageState::from_name(state).ok_or(StoreError::Corrupt("message state"))?,
        };
        letters.push(Letter {
            message: row.message_id,
            account: row.account_id,
            state,
            final_time: row.final_time,
            expire_time: row.expire_time,
            tags: row.tags,
            recipients: row.recipients.0,
            is_own: row.is_own,
            place: places.remove(&row.message_id),
            now: row.now,
        });
    }
    // Those that somebody put back into the queue between the two statements.
    let late: Vec<Uuid> = letters
        .iter()
        .filter(|letter| letter.state == MessageState::Queued && letter.place.is_none())
        .map(|letter| letter.message)
        .collect();
    if !late.is_empty() {
        let mut places = self::places(connection, site, &late).await?;
        for letter in &mut letters {
            letter.place = letter.place.take().or_else(|| places.remove(&letter.message));
        }
    }
    Ok(letters)
}

async fn places(
    connection: &mut PgConnection,
    site: &SiteId,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Place>, StoreError> {
    let rows = query!(
        "select message_id, attempt, leased_by, at_dot, cancelled, first_due
         from queue
         where site_id = $1
           and message_id = any($2)
         order by message_id
         for update",
        site.as_str(),
        ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    // A statement of its own, behind the locks: it sees whoever claimed one of them while this waited.
    let alive = query_scalar!(
        "select replica_id from replicas where heartbeat_time > now() - $1::interval",
        interval(LEASE),
    )
    .fetch_all(connection)
    .await?;
    let places = rows.into_iter().map(|row| {
        let place = Place {
            attempt: row.attempt,
            leased: row.leased_by.is_some(),
            under_way: row.leased_by.is_some_and(|replica| alive.contains(&replica)),
            at_dot: row.at_dot.unwrap_or_default(),
            cancelled: row.cancelled,
            first_due: row.first_due,
        };
        (row.message_id, place)
    });
    Ok(places.collect())
}

/// Rows of what closing writes, by columns.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    states: Vec<String>,
    recipients: Vec<Json<Vec<Recipient>>>,
    attempts: Vec<Json<Vec<Attempt>>>,
    held_attempts: Vec<Option<i32>>,
    are_held: Vec<bool>,
    events: Vec<Event>,
}

impl Rows {
    fn push(&mut self, letter: Letter, ending: Ending) {
        let Letter { message, account, tags, mut recipients, place, now, .. } = letter;
        let Some(Place { attempt, leased, under_way, at_dot, .. }) = place else { return };
        let state = end(&mut recipients, &at_dot, ending);
        self.events.push(event(message, account, tags, state.name(), &recipients));
        self.ids.push(message);
        self.states.push(state.name().to_owned());
        self.recipients.push(Json(recipients));
        // The number is used up, and its place in the history filled, so that a retry goes on behind it.
        let interrupted = leased && !under_way;
        self.attempts
            .push(Json(interrupted.then(|| Attempt::interrupted(attempt, now)).into_iter().collect()));
        let held = state == MessageState::Uncertain && !at_dot.is_empty();
        self.held_attempts.push(held.then_some(attempt));
        // Who cancels has decided; else what is not known stays unfinished until a person does.
        self.are_held.push(held && ending != Ending::Cancelled);
    }
}

/// Ends the waiting of locked letters, inside their transaction: takes them out of the queue, with all that belongs to
/// it. Letters that are final already stay as they are. Answers those that were closed.
pub(super) async fn close(
    connection: &mut PgConnection,
    site: &SiteId,
    letters: Vec<(Letter, Ending)>,
) -> Result<Vec<Uuid>, StoreError> {
    let mut rows = Rows::default();
    for (letter, ending) in letters {
        rows.push(letter, ending);
    }
    if rows.ids.is_empty() {
        return Ok(Vec::new());
    }
    query!(
        "with finished as (
             delete from queue where site_id = $1 and message_id = any($2)
         ), forgotten as (
             -- A letter of our own holds a code: its content goes with its last attempt.
             delete from message_bodies b
             using messages own
             where b.site_id = $1
               and b.message_id = any($2)
               and own.site_id = $1
               and own.message_id = b.message_id
               and own.is_own
         )
         update messages m
         set state = c.state,
             final_time = case when not c.is_held then now() end,
             held_attempt = coalesce(c.held_attempt, m.held_attempt),
             recipients = c.recipients,
             attempts = m.attempts || c.attempts
         from unnest($2::uuid[], $3::text[], $4::jsonb[], $5::jsonb[], $6::integer[], $7::boolean[])
              as c (message_id, state, recipients, attempts, held_attempt, is_held)
         where m.site_id = $1
           and m.message_id = c.message_id",
        site.as_str(),
        &rows.ids,
        &rows.states,
        rows.recipients as _,
        rows.attempts as _,
        rows.held_attempts as _,
        &rows.are_held,
    )
    .execute(&mut *connection)
    .await?;
    // Last, since it takes the lock of the site.
    events::append(connection, site, &rows.events).await?;
    Ok(rows.ids)
}

/// What is told of a letter that changed.
pub(super) fn event(
    message: Uuid,
    account: i64,
    tags: Vec<String>,
    state: &str,
    recipients: &[Recipient],
) -> Event {
    let recipients = recipients.iter().map(EventRecipient::from).collect();
    Event::Message { message, account, tags, state: state.to_owned(), recipients }
}

/// Ends up to `limit` letters of a site that wait although their time is over, and answers how many: those that have
/// expired; those that were cancelled under way, and whose attempt nobody carries on; and those that have been due for
/// longer than `patience`, while their account is parked, switched off or gone.
///
/// Reads the places of all letters of the site that wait: for a sweep, now and then.
///
/// # Errors
/// When the database does not answer.
pub async fn expire(store: &Store, site: &SiteId, patience: Duration, limit: i64) -> Result<u64, StoreError> {
    persistently(|| expire_once(store, site, patience, limit)).await
}

async fn expire_once(
    store: &Store,
    site: &SiteId,
    patience: Duration,
    limit: i64,
) -> Result<u64, StoreError> {
    let overdue = overdue(store, site, patience, limit).await?;
    if overdue.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = overdue.keys().copied().collect();
    let mut transaction = store.begin().await?;
    let letters = lock(&mut transaction, site, &ids).await?;
    // Looked at again now that nobody else can change them.
    let over = letters.into_iter().filter_map(|letter| {
        let is_homeless = overdue.get(&letter.message).copied().unwrap_or(false);
        let ending = letter.ending(patience, is_homeless)?;
        Some((letter, ending))
    });
    let closed = close(&mut transaction, site, over.collect()).await?;
    transaction.commit().await?;
    store.changes.recorded(site, &closed);
    Ok(u64::try_from(closed.len()).unwrap_or(u64::MAX))
}

impl Letter {
    /// Why its waiting is over, if it is; that its account cannot send, or `is_homeless` that it is gone, is known to the
    /// caller.
    fn ending(&self, patience: Duration, is_homeless: bool) -> Option<Ending> {
        let place = self.place.as_ref().filter(|place| !place.under_way)?;
        if place.cancelled {
            Some(Ending::Cancelled)
        } else if self.has_expired() {
            Some(Ending::Expired)
        } else if is_homeless {
            Some(Ending::NoMatchingAccount)
        } else if place.first_due < self.now - patience {
            Some(Ending::GivenUp)
        } else {
            None
        }
    }

    /// Whether it is not to be sent any more.
    pub(super) fn has_expired(&self) -> bool {
        self.expire_time.is_some_and(|end| end <= self.now)
    }
}

/// Letters whose waiting is over, and whether their account is gone.
async fn overdue(
    store: &Store,
    site: &SiteId,
    patience: Duration,
    limit: i64,
) -> Result<HashMap<Uuid, bool>, StoreError> {
    let rows = query!(
        r#"select q.message_id, a.account_id is null as "is_homeless!"
           from queue q
           left join accounts a on a.site_id = q.site_id and a.account_id = q.account_id
           left join lanes l on l.site_id = q.site_id and l.account_id = q.account_id
           where q.site_id = $1
             and (q.expire_time <= now()
                  or q.cancelled
                  or a.account_id is null
                  or q.first_due < now() - $2::interval
                     and q.due <= now()
                     and (not a.active or l.parking_reason is not null))
             and not exists (
                 select from replicas r
                 where r.replica_id = q.leased_by
                   and r.heartbeat_time > now() - $3::interval
             )
           order by q.message_id
           limit $4"#,
        site.as_str(),
        interval(patience),
        interval(LEASE),
        limit,
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.is_homeless)).collect())
}
