//! What is counted of what was recorded.

use uuid::Uuid;

use crate::domain::log::Chunk;
use crate::domain::message::{MessageState, Next};
use crate::store::Store;
use crate::store::queue::Outcome;

/// Counts what was recorded; `letters` are those whose outcomes counted. After a commit whose answer was lost, what it
/// recorded is found there already, and counts as late.
pub(super) fn recorded(store: &Store, outcomes: &[Outcome], chunks: &[Chunk], letters: &[Uuid]) {
    let counted = &store.metrics().delivery;
    let now = store.clock().now();
    for outcome in outcomes.iter().filter(|outcome| letters.contains(&outcome.message)) {
        outcome.attempts.iter().for_each(|attempt| counted.attempted(attempt.outcome));
        match outcome.next {
            Next::Final(state) => counted.ended(outcome.message, state, now),
            Next::Held => counted.ended(outcome.message, MessageState::Uncertain, now),
            Next::Due(_) => {}
        }
    }
    counted.late(outcomes.len().saturating_sub(letters.len()));
    for chunk in chunks {
        counted.recorded(chunk);
    }
}
