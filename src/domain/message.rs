//! A letter: its recipients, its attempts, and the state that follows from them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::outcome::{Class, RecipientResult, Step};
use super::reply::Reply;
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
    /// The attempts are used up and the last one's outcome is not known.
    Uncertain,
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
}

impl MessageState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Sending, Self::Uncertain, Self::Sent, Self::PartiallySent, Self::Failed];

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

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Another attempt, so much later.
    Retry(Duration),
    /// Nothing: the letter has this final state.
    Final(MessageState),
}

/// Enters the results of an attempt into the recipients that were pending (one result each, in their order) and tells
/// what follows. `jitter` is a random number from 0 to 1.
pub fn conclude(
    recipients: &mut [Recipient],
    results: Vec<RecipientResult>,
    attempt: i32,
    retry_intervals: &[Duration],
    jitter: f64,
) -> Next {
    let interval = usize::try_from(attempt - 1).ok().and_then(|index| retry_intervals.get(index));
    let pending = recipients.iter_mut().filter(|r| r.state == RecipientState::Pending);
    for (recipient, result) in pending.zip(results) {
        recipient.state = match (result.class, interval) {
            (Class::Sent, _) => RecipientState::Sent,
            (Class::Refused, _) => RecipientState::Refused,
            (Class::Retry | Class::Uncertain, Some(_)) => RecipientState::Pending,
            (Class::Retry, None) => RecipientState::Failed,
            (Class::Uncertain, None) => RecipientState::Uncertain,
        };
        recipient.reply = Some(result.reply);
    }
    match (final_state(recipients), interval) {
        (Some(state), _) => Next::Final(state),
        (None, Some(interval)) => Next::Retry(interval.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0))),
        // Fewer results than pending recipients on the last attempt; they stay due rather than get lost.
        (None, None) => Next::Retry(retry_intervals.last().copied().unwrap_or_default()),
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
        0 => MessageState::Failed,
        sent if sent == recipients.len() => MessageState::Sent,
        _ => MessageState::PartiallySent,
    })
}

/// One outcome, step and reply for an attempt, out of what its recipients got: the worst news decides the words.
#[must_use]
pub fn summarise(results: &[RecipientResult]) -> (AttemptOutcome, Option<Step>, Reply) {
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
        Class::Retry => AttemptOutcome::Retry,
        Class::Refused => AttemptOutcome::Refused,
    };
    (outcome, Some(worst.step), worst.reply.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        AttemptOutcome, MessageState, Next, Recipient, RecipientKind, RecipientState, conclude, summarise,
    };
    use crate::domain::outcome::{Class, RecipientResult, Step};
    use crate::domain::reply::Reply;

    const HOUR: Duration = Duration::from_hours(1);

    fn recipients(states: &[RecipientState]) -> Vec<Recipient> {
        let recipient = |state: &RecipientState| Recipient {
            mailbox: "ann@example.com".to_owned(),
            address: "ann@example.com".to_owned(),
            kind: RecipientKind::To,
            state: *state,
            reply: None,
        };
        states.iter().map(recipient).collect()
    }

    fn results(classes: &[Class]) -> Vec<RecipientResult> {
        let result = |class: &Class| RecipientResult {
            class: *class,
            step: Step::Envelope,
            reply: Reply::absent(format!("{class:?}")),
        };
        classes.iter().map(result).collect()
    }

    #[test]
    fn recipients_get_their_results_and_the_letter_its_state() {
        use Class::{Refused, Retry, Sent, Uncertain};
        use RecipientState as R;
        type Row<'a> = (&'a [R], &'a [Class], i32, &'a [R], Next);
        let table: [Row<'_>; 8] = [
            (&[R::Pending], &[Sent], 1, &[R::Sent], Next::Final(MessageState::Sent)),
            (&[R::Pending], &[Refused], 1, &[R::Refused], Next::Final(MessageState::Failed)),
            (&[R::Pending], &[Retry], 1, &[R::Pending], Next::Retry(HOUR)),
            (&[R::Pending], &[Uncertain], 2, &[R::Pending], Next::Retry(2 * HOUR)),
            (&[R::Pending], &[Retry], 3, &[R::Failed], Next::Final(MessageState::Failed)),
            (&[R::Pending], &[Uncertain], 3, &[R::Uncertain], Next::Final(MessageState::Uncertain)),
            (&[R::Sent, R::Pending], &[Retry], 1, &[R::Sent, R::Pending], Next::Retry(HOUR)),
            (
                &[R::Sent, R::Pending],
                &[Refused],
                2,
                &[R::Sent, R::Refused],
                Next::Final(MessageState::PartiallySent),
            ),
        ];
        for (before, classes, attempt, after, next) in table {
            let mut letter = recipients(before);
            let got = conclude(&mut letter, results(classes), attempt, &[HOUR, 2 * HOUR], 0.0);
            assert_eq!(got, next, "{before:?} {classes:?}");
            assert_eq!(letter.iter().map(|r| r.state).collect::<Vec<_>>(), after, "{before:?} {classes:?}");
        }
    }

    #[test]
    fn jitter_adds_at_most_a_tenth() {
        let mut letter = recipients(&[RecipientState::Pending]);
        let next = conclude(&mut letter, results(&[Class::Retry]), 1, &[HOUR], 1.0);
        assert_eq!(next, Next::Retry(HOUR.mul_f64(1.1)));
    }

    #[test]
    fn the_worst_news_speaks_for_an_attempt() {
        use Class::{Refused, Retry, Sent, Uncertain};
        for (classes, outcome) in [
            (&[Sent, Sent][..], AttemptOutcome::Sent),
            (&[Sent, Refused], AttemptOutcome::PartiallySent),
            (&[Sent, Retry, Refused], AttemptOutcome::PartiallySent),
            (&[Retry, Refused], AttemptOutcome::Retry),
            (&[Refused], AttemptOutcome::Refused),
            (&[Sent, Uncertain], AttemptOutcome::Uncertain),
        ] {
            assert_eq!(summarise(&results(classes)).0, outcome, "{classes:?}");
        }
    }
}
