//! What came of a letter that met a misbehaving server, held against what CASES says.

use std::time::Duration;

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{Attempt, LogEntry, Message, Parking, Recipient, Reply, Step, recipient};

use super::rig::{FLOOR, Hostile, Patience, Rig};
use crate::eventually::eventually;
use crate::scripted::Journal;

/// A letter, its transcript and its server's journal after the first attempt.
pub(super) struct Story {
    pub(super) name: String,
    /// Name of the account.
    pub(super) account: String,
    pub(super) message: Message,
    /// The letter's entries in the account's log.
    pub(super) entries: Vec<LogEntry>,
    pub(super) journal: Journal,
    pub(super) hostile: Hostile,
    pub(super) patience: Patience,
}

/// Where and in which words a letter is told to have failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) step: Step,
    /// The reply code; 0 for silence and nonsense.
    pub(super) code: i32,
    /// Part of the reply's text.
    pub(super) words: &'static str,
}

/// See [`Told`].
pub(super) const fn told(step: Step, code: i32, words: &'static str) -> Told {
    Told { step, code, words }
}

/// In microseconds, as times are stored.
fn micros(time: Option<prost_types::Timestamp>) -> i64 {
    let time = time.expect("a time");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// From one time to a later one.
pub(super) fn between(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> Duration {
    let micros = micros(to) - micros(from);
    Duration::from_micros(u64::try_from(micros).unwrap_or_else(|_| panic!("{micros} µs backwards")))
}

impl Story {
    /// The only attempt; it was over in time, and the fault was played.
    pub(super) fn attempt(&self) -> &Attempt {
        let Self { name, message, journal, .. } = self;
        let [attempt] = &message.attempts[..] else { panic!("{name}: {message:?}") };
        assert_eq!(attempt.number, 1, "{name}");
        let took = between(attempt.start_time, attempt.end_time);
        assert!(took <= self.patience.bound(), "{name}: {took:?}");
        assert!(!journal.faults.is_empty(), "{name}: the fault was not played: {journal:?}");
        attempt
    }

    /// States and replies of the recipients.
    pub(super) fn recipients(&self) -> Vec<(recipient::State, i32)> {
        let code = |one: &Recipient| one.reply.as_ref().map_or(0, |reply| reply.code);
        self.message.recipients.iter().map(|one| (one.state(), code(one))).collect()
    }

    /// Texts of one kind of the transcript.
    pub(super) fn texts(&self, kind: Kind) -> Vec<&str> {
        self.entries.iter().filter(|entry| entry.kind() == kind).map(|entry| entry.text.as_str()).collect()
    }

    /// Commands that the server heard since it misbehaves.
    pub(super) fn heard(&self, command: &str) -> bool {
        // What the check said before ends with QUIT.
        let last = self.journal.commands.iter().rposition(|heard| heard == "QUIT").expect("a check");
        self.journal.commands[last..].iter().any(|heard| heard.starts_with(command))
    }

    fn is_told(&self, reply: Option<&Reply>, told: Told) {
        let reply = reply.unwrap_or_else(|| panic!("{}: no reply", self.name));
        assert_eq!(reply.code, told.code, "{}: {reply:?}", self.name);
        assert!(reply.text.contains(told.words), "{}: {:?} in {reply:?}", self.name, told.words);
    }

    /// The attempt came to this, for every recipient alike, and is told alike everywhere.
    fn came_to(&self, outcome: Outcome, state: recipient::State, told: Told) {
        let (name, attempt) = (&self.name, self.attempt());
        assert_eq!((attempt.outcome(), attempt.step()), (outcome, told.step), "{name}: {attempt:?}");
        self.is_told(attempt.reply.as_ref(), told);
        for recipient in &self.message.recipients {
            assert_eq!(recipient.state(), state, "{name}: {recipient:?}");
            self.is_told(recipient.reply.as_ref(), told);
        }
        let errors = self.texts(Kind::Error);
        assert!(errors.iter().any(|text| text.contains(told.words)), "{name}: {errors:?}");
        for entry in &self.entries {
            assert_eq!((&entry.message, entry.attempt), (&self.message.name, 1), "{name}");
        }
    }

    /// It waits for its next interval, which it has begun to use up, and the account is not to blame.
    async fn waits(&self, rig: &Rig) {
        let (name, message) = (&self.name, &self.message);
        assert_eq!(message.state(), State::Queued, "{name}: {message:?}");
        assert!(message.final_time.is_none(), "{name}");
        let wait = between(message.attempts[0].end_time, message.next_attempt_time);
        assert!(wait >= FLOOR && wait <= FLOOR.mul_f64(1.11), "{name}: {wait:?}");
        let parking = rig.account(&self.account).await.parking;
        assert_eq!(parking, None, "{name}");
    }

    /// T: it is tried again.
    pub(super) async fn is_retried(&self, rig: &Rig, told: Told) {
        self.came_to(Outcome::Retry, recipient::State::Pending, told);
        self.waits(rig).await;
    }

    /// U: nobody knows whether it was taken; it is sent again.
    pub(super) async fn is_uncertain(&self, rig: &Rig, told: Told) {
        assert_eq!(told.step, Step::Acceptance);
        self.came_to(Outcome::Uncertain, recipient::State::Pending, told);
        self.waits(rig).await;
    }

    /// P: it is refused for good.
    pub(super) async fn is_refused(&self, rig: &Rig, told: Told) {
        let (name, message) = (&self.name, &self.message);
        self.came_to(Outcome::Refused, recipient::State::Refused, told);
        assert_eq!(message.state(), State::Failed, "{name}: {message:?}");
        assert!(message.final_time.is_some() && message.next_attempt_time.is_none(), "{name}");
        assert_eq!(rig.account(&self.account).await.parking, None, "{name}");
    }

    /// It arrived at the first attempt.
    pub(super) fn is_sent(&self) {
        let (name, message, attempt) = (&self.name, &self.message, self.attempt());
        assert_eq!(message.state(), State::Sent, "{name}: {message:?}");
        assert_eq!(attempt.outcome(), Outcome::Sent, "{name}: {attempt:?}");
        assert!(
            message.recipients.iter().all(|one| one.state() == recipient::State::Sent),
            "{name}: {message:?}"
        );
        assert!(message.final_time.is_some() && message.next_attempt_time.is_none(), "{name}");
        assert_eq!(self.texts(Kind::Error), [""; 0], "{name}");
    }

    /// A: the account is parked with the server's words and the advice, the letter waits and no try is used up: when the
    /// server behaves again and a check tells so, it goes out at once.
    pub(super) async fn is_parked(&self, rig: &Rig, reason: Reason, told: Told, advice: &str) -> Parking {
        let (name, message) = (&self.name, &self.message);
        self.came_to(Outcome::Retry, recipient::State::Pending, told);
        assert_eq!(message.state(), State::Queued, "{name}: {message:?}");
        let end = message.attempts[0].end_time;
        let wait = between(end, message.next_attempt_time);
        assert!(wait < FLOOR / 2, "{name}: a try was used up: {wait:?}");
        let parking = eventually(name, async || rig.account(&self.account).await.parking).await;
        assert_eq!(parking.reason(), reason, "{name}: {parking:?}");
        for part in [told.words, advice] {
            assert!(parking.error.contains(part), "{name}: {part:?} in {parking:?}");
        }
        if told.code != 0 {
            assert!(parking.error.contains(&told.code.to_string()), "{name}: {parking:?}");
        }
        let until = between(end, parking.until);
        assert!(until > Duration::from_secs(55) && until < Duration::from_secs(90), "{name}: {until:?}");
        assert_eq!(self.hostile.server.journal().letters.len(), 0, "{name}");

        rig.heal(self).await;
        assert_eq!(rig.account(&self.account).await.parking, None, "{name}");
        let sent = eventually(name, async || {
            let message = rig.postroom.message(&self.message.name).await;
            (message.state() == State::Sent).then_some(message)
        })
        .await;
        let outcomes: Vec<_> = sent.attempts.iter().map(Attempt::outcome).collect();
        assert_eq!(outcomes, [Outcome::Retry, Outcome::Sent], "{name}: {sent:?}");
        assert_eq!(self.hostile.server.journal().letters.len(), 1, "{name}");
        parking
    }
}
