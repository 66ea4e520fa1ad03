//! Recording: what became of claimed letters, behind the fence.

use std::collections::{HashMap, HashSet};

use sqlx::types::Json;
use sqlx::{PgConnection, query, query_as};
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
    account: i64,
    tags: Vec<String>,
    is_own: bool,
}

/// Whether outcomes may be recorded already, the answer to a commit having been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Try {
    /// They are not.
    First,
    /// They may be.
    Again,
}

/// What recording changed.
#[derive(Debug, Default)]
pub(in crate::store) struct Recorded {
    /// The letters whose outcome counted.
    pub(in crate::store) letters: Vec<Uuid>,
    /// What is told of them.
    pub(in crate::store) events: Vec<Event>,
}

/// Records outcomes of one site inside a transaction.
///
/// A statement each for what the queue loses, what stays there, and what the letters tell. None of them joins: rows are found by
/// an array of ids, their values by the place there. For a join PostgreSQL may read all of a site instead, which it takes for
/// cheap as long as it knows of few rows; statements keep to the plan of then.
pub(in crate::store) async fn record(
    connection: &mut PgConnection,
    site: &SiteId,
    outcomes: &[Outcome],
    which: Try,
) -> Result<Recorded, StoreError> {
    let known =
        if which == Try::Again { recorded(connection, site, outcomes).await? } else { HashSet::new() };
    let newest = newest(outcomes);
    let may_count = |outcome: &&Outcome| {
        newest.get(&outcome.message) == Some(&outcome.attempt) && !known.contains(&fence(outcome))
    };
    let (mut finished, mut waiting) = (Vec::new(), Vec::new());
    for outcome in outcomes.iter().filter(may_count) {
        match outcome.next {
            Next::Final(_) | Next::Held => finished.push(outcome),
            Next::Due(due) => waiting.push((outcome, due)),
        }
    }
    // Places before letters, as everybody locks them.
    let mut counted = finish(connection, site, &finished).await?;
    counted.extend(wait(connection, site, &waiting).await?);
    let now: Vec<&Outcome> = outcomes.iter().filter(|outcome| counted.contains(&fence(outcome))).collect();
    let letters = tell(connection, site, &now).await?;
    let own: Vec<Uuid> = finished
        .iter()
        .map(|outcome| outcome.message)
        .filter(|message| letters.get(message).is_some_and(|letter| letter.is_own))
        .collect();
    forget_content(connection, site, &own).await?;
    let mut recorded = Recorded::default();
    for outcome in outcomes {
        let letter = letters.get(&outcome.message).filter(|_| counted.contains(&fence(outcome)));
        let event = match letter {
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

/// What tells one outcome of a letter from another.
const fn fence(outcome: &Outcome) -> (Uuid, i32) {
    (outcome.message, outcome.attempt)
}

/// The newest attempt of each letter: of several outcomes of one only that can count, and the statements take one each.
fn newest(outcomes: &[Outcome]) -> HashMap<Uuid, i32> {
    let mut newest = HashMap::with_capacity(outcomes.len());
    for outcome in outcomes {
        let attempt: &mut i32 = newest.entry(outcome.message).or_default();
        *attempt = outcome.attempt.max(*attempt);
    }
    newest
}

/// Those of the outcomes that are recorded.
async fn recorded(
    connection: &mut PgConnection,
    site: &SiteId,
    outcomes: &[Outcome],
) -> Result<HashSet<(Uuid, i32)>, StoreError> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = outcomes.iter().map(fence).unzip();
    let known = query!(
        r#"select o.message_id as "message_id!", o.attempt as "attempt!"
           from unnest($2::uuid[], $3::integer[]) as o (message_id, attempt)
           join messages m on m.site_id = $1
                          and m.message_id = o.message_id
                          and m.attempts @> jsonb_build_array(jsonb_build_object('number', o.attempt))"#,
        site.as_str(),
        &ids,
        &attempts,
    )
    .fetch_all(connection)
    .await?;
    Ok(known.into_iter().map(|row| (row.message_id, row.attempt)).collect())
}

/// Takes letters that are over from the queue, where no newer attempt was claimed: those it took.
async fn finish(
    connection: &mut PgConnection,
    site: &SiteId,
    outcomes: &[&Outcome],
) -> Result<HashSet<(Uuid, i32)>, StoreError> {
    if outcomes.is_empty() {
        return Ok(HashSet::new());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = outcomes.iter().copied().map(fence).unzip();
    let gone = query!(
        "delete from queue
         where site_id = $1
           and message_id = any($2)
           and attempt = ($3::integer[])[array_position($2, message_id)]
         returning message_id, attempt",
        site.as_str(),
        &ids,
        &attempts,
    )
    .fetch_all(connection)
    .await?;
    Ok(gone.into_iter().map(|row| (row.message_id, row.attempt)).collect())
}

/// Lets letters wait for their next attempt, where no newer one was claimed: those it let.
async fn wait(
    connection: &mut PgConnection,
    site: &SiteId,
    outcomes: &[(&Outcome, OffsetDateTime)],
) -> Result<HashSet<(Uuid, i32)>, StoreError> {
    if outcomes.is_empty() {
        return Ok(HashSet::new());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = outcomes.iter().map(|(outcome, _)| fence(outcome)).unzip();
    let dues: Vec<OffsetDateTime> = outcomes.iter().map(|(_, due)| *due).collect();
    let panicked: Vec<bool> = outcomes.iter().map(|(outcome, _)| outcome.panicked).collect();
    let waiting = query!(
        "update queue
         set leased_by = null,
             at_dot = case when ($5::boolean[])[array_position($2, message_id)] then at_dot end,
             panics = panics + ($5::boolean[])[array_position($2, message_id)]::integer,
             -- Cancelled while the attempt was under way: whoever claims it next ends it.
             due = case when cancelled then now() else ($4::timestamptz[])[array_position($2, message_id)] end
         where site_id = $1
           and message_id = any($2)
           and attempt = ($3::integer[])[array_position($2, message_id)]
         returning message_id, attempt",
        site.as_str(),
        &ids,
        &attempts,
        &dues,
        &panicked,
    )
    .fetch_all(connection)
    .await?;
    Ok(waiting.into_iter().map(|row| (row.message_id, row.attempt)).collect())
}

/// Letters tell what became of them, by these outcomes, one each.
async fn tell(
    connection: &mut PgConnection,
    site: &SiteId,
    outcomes: &[&Outcome],
) -> Result<HashMap<Uuid, Counted>, StoreError> {
    if outcomes.is_empty() {
        return Ok(HashMap::new());
    }
    let columns = Columns::of(outcomes);
    let letters = query_as!(
        Counted,
        "update messages
         set state = ($5::text[])[array_position($2, message_id)],
             final_time = case when ($7::boolean[])[array_position($2, message_id)] then now() end,
             held_attempt = coalesce(($6::integer[])[array_position($2, message_id)], held_attempt),
             recipients = ($3::jsonb[])[array_position($2, message_id)],
             attempts = attempts || ($4::jsonb[])[array_position($2, message_id)]
         where site_id = $1
           and message_id = any($2)
         returning message_id as message, account_id as account, tags, is_own",
        site.as_str(),
        &columns.ids,
        columns.recipients as _,
        columns.attempts as _,
        &columns.states as &[&str],
        columns.held as _,
        &columns.are_final,
    )
    .fetch_all(connection)
    .await?;
    Ok(letters.into_iter().map(|letter| (letter.message, letter)).collect())
}

/// Outcomes, column by column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    recipients: Vec<Json<&'a [Recipient]>>,
    attempts: Vec<Json<&'a [Attempt]>>,
    states: Vec<&'static str>,
    held: Vec<Option<i32>>,
    are_final: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(outcomes: &[&'a Outcome]) -> Self {
        let mut columns = Self::default();
        for Outcome { message, attempt: _, recipients, attempts, panicked: _, next, held } in outcomes {
            columns.ids.push(*message);
            columns.recipients.push(Json(recipients));
            columns.attempts.push(Json(attempts));
            columns.states.push(match next {
                Next::Final(state) => state.name(),
                Next::Held => MessageState::Uncertain.name(),
                Next::Due(_) => OPEN,
            });
            columns.held.push(*held);
            // What is held stays unfinished until a person decides.
            columns.are_final.push(matches!(next, Next::Final(_)));
        }
        columns
    }
}

/// The state of a letter that waits for an attempt.
const OPEN: &str = "open";

/// A letter of our own holds a code: its content goes with its last attempt.
async fn forget_content(
    connection: &mut PgConnection,
    site: &SiteId,
    letters: &[Uuid],
) -> Result<(), StoreError> {
    if letters.is_empty() {
        return Ok(());
    }
    query!("delete from message_bodies where site_id = $1 and message_id = any($2)", site.as_str(), letters,)
        .execute(connection)
        .await?;
    Ok(())
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
