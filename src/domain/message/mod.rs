//! A letter: its recipients, its attempts, and the state that follows from them.

mod ending;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::ending::{Ending, end, hold, reopen};
use super::outcome::{Again, Class, RecipientResult, Step, Verdict};
use super::reply::Reply;
use super::settings::OnUncertain;
use super::site::SiteId;

/// Most recipients of one letter, To, Cc and Bcc together.
pub const MAX_RECIPIENTS: usize = 1_000;
/// Largest part of an interval that is added to it at random, so that retries do not all fall on one moment.
const JITTER: f64 = 0.1;

/// Where a recipient comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientKind {
    /// To.
    To,
    /// Cc.
    Cc,
    /// Bcc: known to nobody else.
    Bcc,
    /// The sender, who wanted a copy.
    Copy,
}

/// State of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// An attempt is due or under way.
    Pending,
    /// The server took the letter.
    Sent,
    /// The server refused for good.
    Refused,
    /// The attempts are used up.
    Failed,
    /// Not known whether the server took the letter, and not tried again.
    Uncertain,
    /// Cancelled before any server took it.
    Cancelled,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// As the caller gave it, `Name <address>` or `address`.
    pub mailbox: String,
    /// The address, domain in A-label form.
    pub address: String,
    /// Where it comes from.
    pub kind: RecipientKind,
    /// What became of it.
    pub state: RecipientState,
    /// The server's last words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// Tries that count against the site's retry intervals.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// While pending: when the next try is due; none for at once.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub due: Option<OffsetDateTime>,
}

impl Recipient {
    /// A recipient who is due at once.
    #[must_use]
    pub fn new(mailbox: String, address: String, kind: RecipientKind) -> Self {
        Self { mailbox, address, kind, state: RecipientState::Pending, reply: None, tries: 0, due: None }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Taken for every recipient that was tried.
    Sent,
    /// Taken for some.
    PartiallySent,
    /// Not now.
    Retry,
    /// Refused for good.
    Refused,
    /// Not known.
    Uncertain,
    /// Its process ended before it could record the outcome.
    Interrupted,
}

/// One try for one letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: i32,
    /// Begin; none for an interrupted one.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<OffsetDateTime>,
    /// End.
    #[serde(with = "time::serde::rfc3339")]
    pub end_time: OffsetDateTime,
    /// The step that decided it; none for an interrupted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// The words that decided it.
    pub reply: Reply,
}

/// State of a letter as it is stored: open until every recipient's state is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Waits for its next attempt.
    Queued,
    /// An attempt is under way.
    Sending,
    /// Final: not known whether some recipient's server took it.
    Uncertain,
    /// Final: taken for everyone.
    Sent,
    /// Final: taken for some.
    PartiallySent,
    /// Final: taken for nobody.
    Failed,
    /// Final: cancelled for everybody.
    Cancelled,
}

impl MessageState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Sending,
        Self::Uncertain,
        Self::Sent,
        Self::PartiallySent,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Uncertain => "uncertain",
            Self::Sent => "sent",
            Self::PartiallySent => "partially_sent",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One letter, without its content.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whose it is.
    pub site: SiteId,
    /// Its id, a `UUIDv7`.
    pub id: Uuid,
    /// The account that was chosen for it.
    pub account: i64,
    /// Whether it is part of a mailing.
    pub mailing: bool,
    /// On whose behalf; empty for the site itself.
    pub user: String,
    /// Whether the sender gets a copy.
    pub copy_to_sender: bool,
    /// Not sent before.
    pub send_time: Option<OffsetDateTime>,
    /// Not sent after.
    pub expire_time: Option<OffsetDateTime>,
    /// The caller's tags.
    pub tags: Vec<String>,
    /// From, as the caller gave it.
    pub from_address: String,
    /// The Message-ID header.
    pub message_id: String,
    /// Recipients.
    pub recipients: Vec<Recipient>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// State.
    pub state: MessageState,
    /// When the next attempt is due, while it is queued.
    pub next_attempt_time: Option<OffsetDateTime>,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When it became final.
    pub final_time: Option<OffsetDateTime>,
    /// Bytes after MIME encoding.
    pub size_bytes: i64,
}

/// What a site wants to be done with what an attempt left open.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Waits between the tries for a recipient; after the last one he has failed.
    pub retry_intervals: &'a [Duration],
    /// What happens to a recipient of whom it is not known whether he has the letter.
    pub on_uncertain: OnUncertain,
    /// The letter is not sent after this time.
    pub expire_time: Option<OffsetDateTime>,
    /// A random number from 0 to 1, which spreads the retries.
    pub jitter: f64,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Another attempt at this time.
    Due(OffsetDateTime),
    /// Nothing: the letter has this final state.
    Final(MessageState),
    /// Nothing until a person decides: it is not known whether some recipient has it.
    Held,
}

/// Enters what an attempt brought at `now` into the recipients it was for, by their numbers, and tells what follows.
pub fn conclude(
    recipients: &mut [Recipient],
    verdicts: Vec<(usize, Verdict)>,
    policy: &Policy<'_>,
    now: OffsetDateTime,
) -> Next {
    for (number, verdict) in verdicts {
        let Some(recipient) = recipients.get_mut(number).filter(|r| r.state == RecipientState::Pending)
        else {
            continue;
        };
        let Verdict { result, again, .. } = verdict;
        let again = match (result.class, again) {
            (Class::Sent, _) => Err(RecipientState::Sent),
            (Class::Refused, _) => Err(RecipientState::Refused),
            (Class::Uncertain, _) if policy.on_uncertain == OnUncertain::Hold => {
                Err(RecipientState::Uncertain)
            }
            (Class::Untried, again) => Ok(uncounted(again)),
            (Class::Retry | Class::Uncertain, Again::Uncounted(wait)) => Ok(wait),
            (class @ (Class::Retry | Class::Uncertain), again) => {
                recipient.tries += 1;
                let index = usize::try_from(recipient.tries - 1).unwrap_or(usize::MAX);
                match (policy.retry_intervals.get(index), again) {
                    (Some(_), Again::In(wait)) => Ok(wait),
                    (Some(interval), _) => Ok(interval.mul_f64(1.0 + JITTER * policy.jitter.clamp(0.0, 1.0))),
                    (None, _) => Err(given_up(class)),
                }
            }
        };
        let due = again.map(|wait| now + wait);
        let due = match due {
            Ok(due) if policy.expire_time.is_some_and(|end| due >= end) => Err(given_up(result.class)),
            due => due,
        };
        match due {
            Ok(due) => recipient.due = Some(due),
            Err(state) => {
                recipient.state = state;
                recipient.due = None;
            }
        }
        if result.class != Class::Untried {
            recipient.reply = Some(result.reply);
        }
    }
    match final_state(recipients) {
        Some(MessageState::Uncertain) if policy.on_uncertain == OnUncertain::Hold => Next::Held,
        Some(state) => Next::Final(state),
        None => Next::Due(next_due(recipients).unwrap_or(now)),
    }
}

const fn uncounted(again: Again) -> Duration {
    match again {
        Again::Uncounted(wait) | Again::In(wait) => wait,
        Again::ByInterval => Duration::ZERO,
    }
}

/// The state of a recipient who is not tried again.
const fn given_up(class: Class) -> RecipientState {
    match class {
        Class::Uncertain => RecipientState::Uncertain,
        Class::Sent | Class::Retry | Class::Refused | Class::Untried => RecipientState::Failed,
    }
}

/// When the first of those who are pending is due; `None` where one is due at once, or nobody pends.
fn next_due(recipients: &[Recipient]) -> Option<OffsetDateTime> {
    let pending = recipients.iter().filter(|r| r.state == RecipientState::Pending);
    pending.map(|r| r.due).min().flatten()
}

/// Ends the waiting of all who are pending: they get this state, and these words about it.
pub fn end_pending(recipients: &mut [Recipient], state: RecipientState, reply: &Reply) {
    for recipient in recipients.iter_mut().filter(|r| r.state == RecipientState::Pending) {
        recipient.state = state;
        recipient.due = None;
        recipient.reply = Some(reply.clone());
    }
}

/// The state of a letter all of whose recipients are final; `None` while any is pending.
#[must_use]
pub fn final_state(recipients: &[Recipient]) -> Option<MessageState> {
    let count = |state| recipients.iter().filter(|r| r.state == state).count();
    if count(RecipientState::Pending) > 0 {
        return None;
    }
    Some(match count(RecipientState::Sent) {
        _ if count(RecipientState::Uncertain) > 0 => MessageState::Uncertain,
        0 if count(RecipientState::Cancelled) == recipients.len() => MessageState::Cancelled,
        0 => MessageState::Failed,
        sent if sent == recipients.len() => MessageState::Sent,
        _ => MessageState::PartiallySent,
    })
}

/// One outcome, step and reply for an attempt, out of what its recipients got: the worst news decides the words.
#[must_use]
pub fn summarise(results: &[&RecipientResult]) -> (AttemptOutcome, Option<Step>, Reply) {
    let worst = [Class::Uncertain, Class::Retry, Class::Refused, Class::Sent]
        .into_iter()
        .find_map(|class| results.iter().find(|r| r.class == class));
    let Some(worst) = worst else {
        return (AttemptOutcome::Retry, None, Reply::absent("nothing was tried"));
    };
    let some_sent = results.iter().any(|r| r.class == Class::Sent);
    let outcome = match worst.class {
        Class::Uncertain => AttemptOutcome::Uncertain,
        Class::Sent => AttemptOutcome::Sent,
        Class::Retry | Class::Refused if some_sent => AttemptOutcome::PartiallySent,
        Class::Retry | Class::Untried => AttemptOutcome::Retry,
        Class::Refused => AttemptOutcome::Refused,
    };
    (outcome, Some(worst.step), worst.reply.clone())
}

#[cfg(test)]
mod tests;
