//! Letters: taken, tried, ended; and what is recorded of them.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Labels, counter, counters, seconds};
use crate::domain::log::Chunk;
use crate::domain::message::{AttemptOutcome, MessageState};
use crate::domain::outcome::{Class, Scope};

/// From a letter that goes straight through to one that was retried for days.
const BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0,
    86_400.0,
];
const CLASSES: [&str; 4] = ["sent", "retry", "refused", "uncertain"];
const SCOPES: [&str; 3] = ["recipient", "message", "account"];

/// How a letter came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `SendMessage`.
    Unary,
    /// `SendMessages`.
    Stream,
    /// Postroom itself writes it, with a code.
    Own,
}

/// Letters.
#[derive(Debug)]
pub struct Delivery {
    accepted: [Counter; 3],
    attempts: [Counter; 6],
    results: [[Counter; SCOPES.len()]; CLASSES.len()],
    ended: [Counter; MessageState::ALL.len()],
    late: Counter,
    /// Tries to record outcomes at which the database did not answer.
    pub record_retries: Counter,
    chunks: Counter,
    chunk_bytes: Counter,
    sent_after: Histogram,
    overdue: Histogram,
}

impl Delivery {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let accepted = [
            "postroom_letters_accepted",
            "Letters that were stored: by SendMessage, by SendMessages, and those of Postroom's own; repeated requests are none",
        ];
        let attempts =
            ["postroom_attempts", "Attempts that ended, each for one letter, by what they came to"];
        let outcomes = ["sent", "partially_sent", "retry", "refused", "uncertain", "interrupted"];
        let ended = ["postroom_letters_ended", "Letters whose delivery ended, as it was recorded, by state"];
        let results = Family::<Labels<2>, Counter>::default();
        registry.register(
            "postroom_attempt_results",
            "Results of attempts, one for each recipient, by class and by how far they reach",
            results.clone(),
        );
        let result =
            |class| SCOPES.map(|scope| results.get_or_create_owned(&[("class", class), ("scope", scope)]));
        Self {
            accepted: counters(registry, accepted, "via", ["unary", "stream", "own"]),
            attempts: counters(registry, attempts, "outcome", outcomes),
            results: CLASSES.map(result),
            ended: counters(registry, ended, "state", MessageState::ALL.map(MessageState::name)),
            late: counter(
                registry,
                "postroom_outcomes_late",
                "Outcomes that came after a newer attempt was claimed, and do not count: their letters may be sent twice",
            ),
            record_retries: counter(
                registry,
                "postroom_record_retries",
                "Tries to record outcomes at which the database did not answer",
            ),
            chunks: counter(
                registry,
                "postroom_transcript_chunks",
                "Parts of transcripts that were recorded",
            ),
            chunk_bytes: counter(registry, "postroom_transcript_bytes", "Bytes of text in them"),
            sent_after: seconds(
                registry,
                "postroom_letter_sent",
                "From a letter's acceptance to the record that it was sent, to all or to some; waits that were asked for are in it",
                &BUCKETS,
            ),
            overdue: seconds(
                registry,
                "postroom_attempt_overdue",
                "From the time at which an attempt was due to its begin",
                &BUCKETS,
            ),
        }
    }

    /// A letter was stored.
    pub fn accepted(&self, via: Via) {
        self.accepted[via as usize].inc();
    }

    /// An attempt begins that was due so long ago.
    pub fn attempt_begins(&self, overdue: time::Duration) {
        self.overdue.observe(overdue.as_seconds_f64().max(0.0));
    }

    /// A recipient's result; where his turn did not come there is none.
    pub fn result(&self, class: Class, scope: Scope) {
        let class = match class {
            Class::Sent => 0,
            Class::Retry => 1,
            Class::Refused => 2,
            Class::Uncertain => 3,
            Class::Untried => return,
        };
        self.results[class][scope as usize].inc();
    }

    /// An attempt was recorded.
    pub fn attempted(&self, outcome: AttemptOutcome) {
        self.attempts[outcome as usize].inc();
    }

    /// The delivery of a letter ended, which is recorded.
    pub fn ended(&self, letter: Uuid, state: MessageState, now: OffsetDateTime) {
        self.ended[state as usize].inc();
        if matches!(state, MessageState::Sent | MessageState::PartiallySent)
            && let Some(accepted) = letter.get_timestamp()
        {
            // The id of a letter carries the time at which it came (RFC 9562 5.7).
            let (seconds, nanos) = accepted.to_unix();
            let accepted = Duration::new(seconds, nanos);
            let now = now - OffsetDateTime::UNIX_EPOCH;
            self.sent_after.observe((now.as_seconds_f64() - accepted.as_secs_f64()).max(0.0));
        }
    }

    /// So many outcomes did not count.
    pub fn late(&self, outcomes: usize) {
        self.late.inc_by(u64::try_from(outcomes).unwrap_or(u64::MAX));
    }

    /// A part of a transcript was recorded.
    pub fn recorded(&self, chunk: &Chunk) {
        self.chunks.inc();
        let bytes: usize = chunk.entries.iter().map(|entry| entry.text.len()).sum();
        self.chunk_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
