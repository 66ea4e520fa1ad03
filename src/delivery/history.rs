//! From what an attempt brought to what is recorded of it: pure.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::message::{
    Attempt, AttemptOutcome, Ending, MessageState, Next, Policy, RecipientState, conclude, end, end_pending,
    final_state, hold, summarise,
};
use crate::domain::outcome::Verdict;
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

/// What is recorded of an attempt with these verdicts, by the numbers of the recipients it was for.
pub(super) fn of_attempt(
    claim: Claim,
    verdicts: Vec<(usize, Verdict)>,
    span: Span,
    policy: &Policy<'_>,
) -> Outcome {
    let mut attempts = interruption(&claim, span.start);
    let held = held_attempt(&claim);
    let Claim { message, attempt, mut recipients, .. } = claim;
    let results: Vec<_> = verdicts.iter().map(|(_, verdict)| &verdict.result).collect();
    let (outcome, step, reply) = summarise(&results);
    let (start_time, end_time) = (Some(span.start), span.end);
    attempts.push(Attempt { number: attempt, start_time, end_time, step, outcome, reply });
    let next = conclude(&mut recipients, verdicts, policy, span.end);
    Outcome { message, attempt, recipients, attempts, panicked: false, next, held }
}

/// What is recorded of an attempt in which our own code failed: the letter is tried again, three times in all.
pub(super) fn after_panic(claim: Claim, now: OffsetDateTime) -> Outcome {
    let mut attempts = interruption(&claim, now);
    let held = held_attempt(&claim);
    let Claim { message, attempt, mut recipients, panics, .. } = claim;
    let reply = Reply::absent("the server failed while it worked on this letter; its log tells more");
    let outcome = AttemptOutcome::Interrupted;
    let words = reply.clone();
    attempts.push(Attempt {
        number: attempt,
        start_time: None,
        end_time: now,
        step: None,
        outcome,
        reply: words,
    });
    let next = if panics + 1 < MAX_PANICS {
        Next::Due(now + AFTER_PANIC)
    } else {
        end_pending(&mut recipients, RecipientState::Failed, &reply);
        Next::Final(final_state(&recipients).unwrap_or(MessageState::Failed))
    };
    Outcome { message, attempt, recipients, attempts, panicked: true, next, held }
}

/// The claim if there is something to send; else what is recorded instead: the letter was cancelled, it expired, or all
/// that is left of it was at the dot when the attempt before ended, and is held.
pub(super) fn settled(mut claim: Claim, now: OffsetDateTime) -> Result<Claim, Outcome> {
    let at_dot = claim.at_dot.clone().unwrap_or_default();
    let ending = if claim.cancelled {
        Some(Ending::Cancelled)
    } else {
        claim.expire_time.filter(|end| *end <= now).map(|_| Ending::Expired)
    };
    match ending {
        Some(ending) => {
            end(&mut claim.recipients, &at_dot, ending);
        }
        None => hold(&mut claim.recipients, &at_dot),
    }
    let Some(state) = final_state(&claim.recipients) else { return Ok(claim) };
    let attempts = interruption(&claim, now);
    let held = held_attempt(&claim);
    let next = match state {
        // Who cancels has decided.
        MessageState::Uncertain if held.is_some() && !claim.cancelled => Next::Held,
        state => Next::Final(state),
    };
    let Claim { message, attempt, recipients, .. } = claim;
    Err(Outcome { message, attempt, recipients, attempts, panicked: false, next, held })
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

/// The attempt whose own late result may still correct what is held.
fn held_attempt(claim: &Claim) -> Option<i32> {
    claim.at_dot.is_some().then_some(claim.attempt - 1)
}

/// The attempt before, if its process ended without recording it.
fn interruption(claim: &Claim, noticed: OffsetDateTime) -> Vec<Attempt> {
    if !claim.after_interruption && claim.at_dot.is_none() {
        return Vec::new();
    }
    vec![Attempt::interrupted(claim.attempt - 1, noticed)]
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{AttemptOutcome, MessageState, Next, after_panic, settled};
    use crate::domain::message::{Recipient, RecipientKind, RecipientState};
    use crate::store::queue::Claim;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn claim(attempt: i32) -> Claim {
        let ann = "ann@example.com".to_owned();
        Claim {
            attempt,
            after_interruption: attempt > 1,
            panics: attempt - 1,
            envelope_sender: "shop@example.com".to_owned(),
            recipients: vec![Recipient::new(ann.clone(), ann, RecipientKind::To); 2],
            ..Claim::example()
        }
    }

    #[test]
    fn a_letter_that_breaks_workers_is_set_aside_after_three() {
        let first = after_panic(claim(1), NOW);
        assert!(matches!(first.next, Next::Due(_)));
        assert_eq!(first.recipients[0].state, RecipientState::Pending);
        let third = after_panic(claim(3), NOW);
        assert_eq!(third.next, Next::Final(MessageState::Failed));
        assert_eq!(third.recipients[0].state, RecipientState::Failed);
        let told: Vec<_> = third.attempts.iter().map(|a| (a.number, a.outcome)).collect();
        assert_eq!(told, [(2, AttemptOutcome::Interrupted), (3, AttemptOutcome::Interrupted)]);
    }

    #[test]
    fn what_is_not_sent_any_more() {
        use RecipientState::{Cancelled, Failed, Pending, Uncertain};
        let (late, held) = (Some(NOW), |numbers: &[i32]| Some(numbers.to_vec()));
        let table = [
            (claim(1), [Pending; 2], None),
            (Claim { cancelled: true, ..claim(1) }, [Cancelled; 2], Some(MessageState::Cancelled)),
            (Claim { expire_time: late, ..claim(1) }, [Failed; 2], Some(MessageState::Failed)),
            (Claim { at_dot: held(&[0]), ..claim(2) }, [Uncertain, Pending], None),
            (Claim { at_dot: held(&[1, 0]), ..claim(2) }, [Uncertain; 2], Some(MessageState::Uncertain)),
            (
                Claim { at_dot: held(&[0]), cancelled: true, ..claim(2) },
                [Uncertain, Cancelled],
                Some(MessageState::Uncertain),
            ),
        ];
        for (claim, states, state) in table {
            let shown = format!("{claim:?}");
            let (held, decided) = (claim.at_dot.is_some(), claim.cancelled);
            let (recipients, next) = match settled(claim, NOW) {
                Ok(claim) => (claim.recipients, None),
                Err(outcome) => {
                    assert_eq!(outcome.held, held.then_some(1), "{shown}");
                    assert_eq!(outcome.attempts.len(), usize::from(held), "{shown}");
                    (outcome.recipients, Some(outcome.next))
                }
            };
            assert_eq!(recipients.iter().map(|r| r.state).collect::<Vec<_>>(), states, "{shown}");
            let final_or_held = |state| if held && !decided { Next::Held } else { Next::Final(state) };
            assert_eq!(next, state.map(final_or_held), "{shown}");
        }
    }
}
