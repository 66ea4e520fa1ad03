//! Recording: what became of claimed letters, behind the fence.

use std::collections::HashMap;

use sqlx::query_as;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Outcome, held};
use crate::domain::event::{Event, EventRecipient};
use crate::domain::message::{Attempt, MessageState, Next, Recipient};
use crate::domain::site::SiteId;
use crate::store::StoreError;

/// A letter whose outcome counted.
struct Counted {
    /// Its id.
    message: Uuid,
    /// The attempt whose outcome it was.
    attempt: i32,
    account: i64,
    tags: Vec<String>,
}

/// What recording changed.
#[derive(Debug, Default)]
pub(in crate::store) struct Recorded {
    /// The letters whose outcome counted.
    pub(in crate::store) letters: Vec<Uuid>,
    /// What is told of them.
    pub(in crate::store) events: Vec<Event>,
}

/// Outcomes, column by column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    fences: Vec<i32>,
    recipients: Vec<Json<&'a [Recipient]>>,
    attempts: Vec<Json<&'a [Attempt]>>,
    states: Vec<Option<String>>,
    dues: Vec<Option<OffsetDateTime>>,
    held: Vec<Option<i32>>,
    are_held: Vec<bool>,
    panicked: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(outcomes: &'a [Outcome]) -> Self {
        let mut columns = Self::default();
        for Outcome { message, attempt, recipients, attempts, panicked, next, held } in outcomes {
            let (state, due) = match next {
                Next::Final(state) => (Some(*state), None),
                Next::Held => (Some(MessageState::Uncertain), None),
                Next::Due(due) => (None, Some(*due)),
            };
            columns.ids.push(*message);
            columns.fences.push(*attempt);
            columns.recipients.push(Json(recipients));
            columns.attempts.push(Json(attempts));
            columns.states.push(state.map(|state| state.name().to_owned()));
            columns.dues.push(due);
            columns.held.push(*held);
            columns.are_held.push(*next == Next::Held);
            columns.panicked.push(*panicked);
        }
        columns
    }
}

/// Records outcomes of one site inside a transaction.
pub(in crate::store) async fn record(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    outcomes: &[Outcome],
) -> Result<Recorded, StoreError> {
    if outcomes.is_empty() {
        return Ok(Recorded::default());
    }
    let columns = Columns::of(outcomes);
    let counted = query_as!(
        Counted,
        r#"with outcomes as (
               select *
               from unnest($2::uuid[], $3::integer[], $4::jsonb[], $5::jsonb[], $6::text[], $7::timestamptz[],
                           $8::integer[], $9::boolean[], $10::boolean[])
                    as o (message_id, attempt, recipients, attempts, state, due, held, is_held, panicked)
               -- Not twice, should the answer to a commit have been lost.
               where not exists (
                   select from messages m
                   where m.site_id = $1
                     and m.message_id = o.message_id
                     and m.attempts @> jsonb_build_array(jsonb_build_object('number', o.attempt))
               )
           ), finished as (
               delete from queue q
               using outcomes o
               where q.site_id = $1
                 and q.message_id = o.message_id
                 and q.attempt = o.attempt
                 and o.state is not null
               returning q.message_id, q.attempt
           ), waiting as (
               update queue q
               set leased_by = null,
                   at_dot = case when o.panicked then q.at_dot end,
                   panics = q.panics + o.panicked::integer,
                   -- Cancelled while the attempt was under way: whoever claims it next ends it.
                   due = case when q.cancelled then now() else o.due end
               from outcomes o
               where q.site_id = $1
                 and q.message_id = o.message_id
                 and q.attempt = o.attempt
                 and o.state is null
               returning q.message_id, q.attempt
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
               -- What is held stays unfinished until a person decides.
               final_time = case when o.state is not null and not o.is_held then now() end,
               held_attempt = coalesce(o.held, m.held_attempt),
               recipients = o.recipients,
               attempts = m.attempts || o.attempts
           from outcomes o
           where m.site_id = $1
             and m.message_id = o.message_id
             -- Of two outcomes of one letter the one that counted.
             and (o.message_id, o.attempt) in (
                 select message_id, attempt from finished union all select message_id, attempt from waiting
             )
           returning m.message_id as message, o.attempt as "attempt!", m.account_id as account, m.tags"#,
        site.as_str(),
        &columns.ids,
        &columns.fences,
        columns.recipients as _,
        columns.attempts as _,
        columns.states as _,
        columns.dues as _,
        columns.held as _,
        &columns.are_held,
        &columns.panicked,
    )
    .fetch_all(&mut *connection)
    .await?;
    told(connection, site, outcomes, counted).await
}

/// What is told of outcomes: of those that counted, and of those that came late and correct what is held.
async fn told(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    outcomes: &[Outcome],
    counted: Vec<Counted>,
) -> Result<Recorded, StoreError> {
    let counted: HashMap<(Uuid, i32), Counted> =
        counted.into_iter().map(|letter| ((letter.message, letter.attempt), letter)).collect();
    let mut recorded = Recorded::default();
    for outcome in outcomes {
        let event = match counted.get(&(outcome.message, outcome.attempt)) {
            Some(letter) => Some(event(outcome, letter)),
            None => held::correct(&mut *connection, site, outcome).await?,
        };
        if let Some(event) = event {
            recorded.letters.push(outcome.message);
            recorded.events.push(event);
        }
    }
    Ok(recorded)
}

/// What is told of an outcome that counted.
fn event(outcome: &Outcome, letter: &Counted) -> Event {
    let Outcome { message, attempt: _, recipients, attempts: _, panicked: _, next, held: _ } = outcome;
    let state = match next {
        Next::Final(state) => *state,
        Next::Held => MessageState::Uncertain,
        Next::Due(_) => MessageState::Queued,
    };
    Event::Message {
        message: *message,
        account: letter.account,
        tags: letter.tags.clone(),
        state: state.name().to_owned(),
        recipients: recipients.iter().map(EventRecipient::from).collect(),
    }
}
