//! The queue: due letters are claimed under a lease, their outcomes recorded behind a fence.
//!
//! A lease is a replica's id; it counts as long as that replica's heartbeat is heard. The attempt's number is the
//! fence: an outcome counts unless a newer attempt was claimed.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::message::{Attempt, MessageState, Recipient};
use crate::domain::site::SiteId;

/// A replica that is silent for so long has lost its leases (DESIGN 6: 20 to 30 s).
pub const LEASE: Duration = Duration::from_secs(25);

/// An account for which letters are due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Whose it is.
    pub site: SiteId,
    /// Its id.
    pub account: i64,
}

/// A letter that was claimed, with all that sending it takes but its body.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of one another, as the table has them"
)]
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its id.
    pub message: Uuid,
    /// Number of this attempt.
    pub attempt: i32,
    /// Whether the attempt before was claimed by a process that ended without recording its outcome.
    pub after_interruption: bool,
    /// The envelope sender.
    pub envelope_sender: String,
    /// Recipients.
    pub recipients: Vec<Recipient>,
    /// Whether the content has bytes above 127.
    pub eight_bit: bool,
    /// Whether the header section has.
    pub utf8_headers: bool,
    /// Whether it is a letter of Postroom's own, whose content is never shown.
    pub is_own: bool,
}

/// What became of a claimed letter.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its id.
    pub message: Uuid,
    /// Number of the attempt: the fence.
    pub attempt: i32,
    /// Recipients as they are now.
    pub recipients: Vec<Recipient>,
    /// The attempts to add to its history.
    pub attempts: Vec<Attempt>,
    /// Final state, or the time until the next attempt.
    pub next: Result<MessageState, Duration>,
}

/// Says that a replica is alive, for the first time or again.
///
/// # Errors
/// When the database does not answer.
pub async fn heartbeat(store: &Store, replica: Uuid) -> Result<(), StoreError> {
    query!(
        "insert into replicas (replica_id) values ($1)
         on conflict (replica_id) do update set heartbeat_time = now()",
        replica,
    )
    .execute(&store.pulse)
    .await?;
    Ok(())
}

/// Signs a replica off, so that whatever it still leased is free at once; forgets replicas silent for a day.
///
/// # Errors
/// When the database does not answer.
pub async fn sign_off(store: &Store, replica: Uuid) -> Result<(), StoreError> {
    query!(
        "delete from replicas where replica_id = $1 or heartbeat_time < now() - interval '1 day'",
        replica
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// The accounts for which a letter is due, by a loose index scan: one probe an account, however many letters wait.
///
/// # Errors
/// When the database does not answer.
pub async fn due_lanes(store: &Store) -> Result<Vec<Lane>, StoreError> {
    let rows = query!(
        r#"with recursive lanes as (
               (select site_id, account_id, due from queue order by site_id, account_id, due limit 1)
               union all
               select next.site_id, next.account_id, next.due
               from lanes
               cross join lateral (
                   select q.site_id, q.account_id, q.due
                   from queue q
                   where (q.site_id, q.account_id) > (lanes.site_id, lanes.account_id)
                   order by q.site_id, q.account_id, q.due
                   limit 1
               ) as next
           )
           select lanes.site_id as "site_id!", lanes.account_id as "account_id!"
           from lanes
           join accounts a on a.site_id = lanes.site_id and a.account_id = lanes.account_id and a.active
           join settings s on s.site_id = lanes.site_id and s.enabled is distinct from false
           where lanes.due <= now()"#
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let site = SiteId::parse(&row.site_id).ok_or(StoreError::Corrupt("site id"))?;
            Ok(Lane { site, account: row.account_id })
        })
        .collect()
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of one another, as the table has them"
)]
struct ClaimRow {
    message_id: Uuid,
    attempt: i32,
    after_interruption: bool,
    envelope_sender: String,
    recipients: Json<Vec<Recipient>>,
    eight_bit: bool,
    utf8_headers: bool,
    is_own: bool,
}

/// Claims up to `limit` due letters of an account that may send: counts their attempts and leases them. Nothing is
/// claimed for a replica whose heartbeat was not heard within half a lease.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(store: &Store, lane: &Lane, replica: Uuid, limit: i64) -> Result<Vec<Claim>, StoreError> {
    let rows = query_as!(
        ClaimRow,
        r#"with due as (
               select q.message_id, q.leased_by is not null as after_interruption
               from queue q
               where q.site_id = $1
                 and q.account_id = $2
                 and q.due <= now()
                 and (q.leased_by is null
                      or not exists (
                          select from replicas r
                          where r.replica_id = q.leased_by
                            and r.heartbeat_time > now() - $5::interval
                      ))
                 -- Our own lease must count, and for a while yet: a replica that is not heard of (not yet, or no more)
                 -- would have its letters claimed, and sent, by everybody else as well.
                 and exists (
                     select from replicas r
                     where r.replica_id = $3
                       and r.heartbeat_time > now() - $5::interval / 2
                 )
                 -- An account or a site that was switched off keeps its mail waiting.
                 and exists (select from accounts a where a.site_id = $1 and a.account_id = $2 and a.active)
                 and exists (select from settings s where s.site_id = $1 and s.enabled is distinct from false)
               order by q.due
               limit $4
               for update of q skip locked
           ), claimed as (
               update queue q
               set leased_by = $3,
                   attempt = q.attempt + 1
               from due
               where q.site_id = $1
                 and q.message_id = due.message_id
               returning q.message_id, q.attempt, q.due, due.after_interruption
           )
           select c.message_id, c.attempt, c.after_interruption as "after_interruption!", m.envelope_sender,
                  m.recipients as "recipients: Json<Vec<Recipient>>", m.eight_bit, m.utf8_headers, m.is_own
           from claimed c
           join messages m on m.site_id = $1 and m.message_id = c.message_id
           order by c.due, c.message_id"#,
        lane.site.as_str(),
        lane.account,
        replica,
        limit,
        interval(LEASE),
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claim {
            message: row.message_id,
            attempt: row.attempt,
            after_interruption: row.after_interruption,
            envelope_sender: row.envelope_sender,
            recipients: row.recipients.0,
            eight_bit: row.eight_bit,
            utf8_headers: row.utf8_headers,
            is_own: row.is_own,
        })
        .collect())
}

/// The exact bytes of a letter; `None` where there is no such letter.
///
/// # Errors
/// When the database does not answer.
pub async fn body(store: &Store, site: &SiteId, message: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
    let content = query_scalar!(
        "select content from message_bodies where site_id = $1 and message_id = $2",
        site.as_str(),
        message,
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(content)
}

/// Gives claimed letters back untried, their attempts uncounted; those claimed anew meanwhile stay as they are.
///
/// # Errors
/// When the database does not answer.
pub async fn hand_back(
    store: &Store,
    site: &SiteId,
    replica: Uuid,
    letters: &[(Uuid, i32)],
    wait: Duration,
) -> Result<(), StoreError> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = letters.iter().copied().unzip();
    query!(
        "update queue q
         set leased_by = null,
             attempt = q.attempt - 1,
             due = greatest(q.due, now() + $5::interval)
         from unnest($3::uuid[], $4::integer[]) as back (message_id, attempt)
         where q.site_id = $1
           and q.message_id = back.message_id
           and q.attempt = back.attempt
           and q.leased_by = $2",
        site.as_str(),
        replica,
        &ids,
        &attempts,
        interval(wait),
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// A lease, as it stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leased {
    /// Whose letter it is.
    pub site: SiteId,
    /// The letter.
    pub message: Uuid,
    /// Number of the attempt that was claimed.
    pub attempt: i32,
}

/// Everything that a replica has leased. Reads the whole queue: for the rare case that there is doubt.
///
/// # Errors
/// When the database does not answer.
pub async fn leased_by(store: &Store, replica: Uuid) -> Result<Vec<Leased>, StoreError> {
    let rows = query!("select site_id, message_id, attempt from queue where leased_by = $1", replica)
        .fetch_all(&store.pool)
        .await?;
    rows.into_iter()
        .map(|row| {
            let site = SiteId::parse(&row.site_id).ok_or(StoreError::Corrupt("site id"))?;
            Ok(Leased { site, message: row.message_id, attempt: row.attempt })
        })
        .collect()
}

/// Records outcomes of one site inside a transaction; answers the letters whose outcome counted.
pub(super) async fn record(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    outcomes: &[Outcome],
) -> Result<Vec<Uuid>, StoreError> {
    let mut ids = Vec::with_capacity(outcomes.len());
    let mut fences = Vec::with_capacity(outcomes.len());
    let mut recipients = Vec::with_capacity(outcomes.len());
    let mut attempts = Vec::with_capacity(outcomes.len());
    let mut states = Vec::with_capacity(outcomes.len());
    let mut waits = Vec::with_capacity(outcomes.len());
    for Outcome { message, attempt, recipients: of_message, attempts: history, next } in outcomes {
        ids.push(*message);
        fences.push(*attempt);
        recipients.push(Json(of_message));
        attempts.push(Json(history));
        states.push(next.as_ref().ok().map(|state| state.name().to_owned()));
        waits.push(next.as_ref().err().map(|wait| interval(*wait)));
    }
    let counted = query_scalar!(
        r#"with outcomes as (
               select *
               from unnest($2::uuid[], $3::integer[], $4::jsonb[], $5::jsonb[], $6::text[], $7::interval[])
                    as o (message_id, attempt, recipients, attempts, state, wait)
           ), finished as (
               delete from queue q
               using outcomes o
               where q.site_id = $1
                 and q.message_id = o.message_id
                 and q.attempt = o.attempt
                 and o.state is not null
               returning q.message_id
           ), waiting as (
               update queue q
               set leased_by = null,
                   due = now() + o.wait
               from outcomes o
               where q.site_id = $1
                 and q.message_id = o.message_id
                 and q.attempt = o.attempt
                 and o.state is null
               returning q.message_id
           ), forgotten as (
               -- A letter of our own holds a code: its content goes with its last attempt.
               delete from message_bodies b
               using finished f
               join messages own on own.site_id = $1 and own.message_id = f.message_id and own.is_own
               where b.site_id = $1
                 and b.message_id = f.message_id
           )
           update messages m
           set state = coalesce(o.state, 'open'),
               final_time = case when o.state is not null then now() end,
               recipients = o.recipients,
               attempts = m.attempts || o.attempts
           from outcomes o
           where m.site_id = $1
             and m.message_id = o.message_id
             and m.message_id in (select message_id from finished union all select message_id from waiting)
           returning m.message_id"#,
        site.as_str(),
        &ids,
        &fences,
        recipients as _,
        attempts as _,
        states as _,
        waits as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(counted)
}

pub(super) fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
