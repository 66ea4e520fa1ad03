//! From what an attempt brought to what is recorded of it: pure.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::message::{
    Attempt, AttemptOutcome, MessageState, Next, RecipientState, conclude, final_state, summarise,
};
use crate::domain::outcome::RecipientResult;
use crate::domain::reply::Reply;
use crate::store::queue::{Claim, Outcome};

/// A letter on which a worker failed is tried again so much later.
const AFTER_PANIC: Duration = Duration::from_mins(1);
/// A letter on which workers failed so often is set aside (CASES 57).
const MAX_PANICS: i32 = 3;

/// When an attempt ran.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: OffsetDateTime,
    pub(super) end: OffsetDateTime,
}

/// What is recorded of an attempt with these results, one for each recipient that was pending.
pub(super) fn of_attempt(
    claim: Claim,
    results: Vec<RecipientResult>,
    span: Span,
    retry_intervals: &[Duration],
    jitter: f64,
) -> Outcome {
    let mut attempts = interruption(&claim, span.start);
    let Claim { message, attempt, mut recipients, .. } = claim;
    let (outcome, step, reply) = summarise(&results);
    let (start_time, end_time) = (Some(span.start), span.end);
    attempts.push(Attempt { number: attempt, start_time, end_time, step, outcome, reply });
    let next = match conclude(&mut recipients, results, attempt, retry_intervals, jitter) {
        Next::Final(state) => Ok(state),
        Next::Retry(wait) => Err(wait),
    };
    Outcome { message, attempt, recipients, attempts, next }
}

/// What is recorded of an attempt in which our own code failed: the letter is tried again, three times in all.
pub(super) fn after_panic(claim: Claim, now: OffsetDateTime) -> Outcome {
    let mut attempts = interruption(&claim, now);
    let Claim { message, attempt, mut recipients, .. } = claim;
    let reply = Reply::absent("the server failed while it worked on this letter; its log tells more");
    let outcome = AttemptOutcome::Interrupted;
    attempts.push(Attempt {
        number: attempt,
        start_time: None,
        end_time: now,
        step: None,
        outcome,
        reply: reply.clone(),
    });
    if attempt < MAX_PANICS {
        return Outcome { message, attempt, recipients, attempts, next: Err(AFTER_PANIC) };
    }
    for recipient in recipients.iter_mut().filter(|r| r.state == RecipientState::Pending) {
        recipient.state = RecipientState::Failed;
        recipient.reply = Some(reply.clone());
    }
    let state = final_state(&recipients).unwrap_or(MessageState::Failed);
    Outcome { message, attempt, recipients, attempts, next: Ok(state) }
}

/// The same outcome without what servers said, for a database that refuses to store it.
pub(super) fn without_words(mut outcome: Outcome) -> Outcome {
    let unstorable = || Reply::absent("the server's words could not be stored");
    for recipient in &mut outcome.recipients {
        recipient.reply = recipient.reply.is_some().then(unstorable);
    }
    for attempt in &mut outcome.attempts {
        attempt.reply = unstorable();
    }
    outcome
}

/// The attempt before, if its process ended without recording it.
fn interruption(claim: &Claim, noticed: OffsetDateTime) -> Vec<Attempt> {
    if !claim.after_interruption {
        return Vec::new();
    }
    vec![Attempt {
        number: claim.attempt - 1,
        start_time: None,
        end_time: noticed,
        step: None,
        outcome: AttemptOutcome::Interrupted,
        reply: Reply::absent("the server that made this attempt ended before it could record the outcome"),
    }]
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::{AttemptOutcome, MessageState, after_panic};
    use crate::domain::message::{Recipient, RecipientKind, RecipientState};
    use crate::store::queue::Claim;

    fn claim(attempt: i32) -> Claim {
        Claim {
            message: Uuid::nil(),
            attempt,
            after_interruption: attempt > 1,
            envelope_sender: "shop@example.com".to_owned(),
            recipients: vec![Recipient {
                mailbox: "ann@example.com".to_owned(),
                address: "ann@example.com".to_owned(),
                kind: RecipientKind::To,
                state: RecipientState::Pending,
                reply: None,
            }],
            eight_bit: false,
            utf8_headers: false,
            is_own: false,
        }
    }

    #[test]
    fn a_letter_that_breaks_workers_is_set_aside_after_three() {
        let first = after_panic(claim(1), OffsetDateTime::UNIX_EPOCH);
        assert!(first.next.is_err());
        assert_eq!(first.recipients[0].state, RecipientState::Pending);
        let third = after_panic(claim(3), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(third.next, Ok(MessageState::Failed));
        assert_eq!(third.recipients[0].state, RecipientState::Failed);
        let told: Vec<_> = third.attempts.iter().map(|a| (a.number, a.outcome)).collect();
        assert_eq!(told, [(2, AttemptOutcome::Interrupted), (3, AttemptOutcome::Interrupted)]);
    }
}
