//! The sink of one attempt's transcript: filtered by level, printable, emptied by whoever flushes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::printable;
use crate::domain::clock::Clock;
use crate::domain::log::{Entry, EntryKind, LogLevel};

/// Longest text of an entry in bytes, somewhat more than the longest line kept of a reply once it is escaped.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// What waits to be taken, in bytes: enough for a letter to 1,000 recipients. A server that talks faster than anybody
/// flushes fills no more memory than this.
const MAX_WAITING_BYTES: usize = 512 * 1024;
/// What an entry counts beside its text.
const ENTRY_COST_BYTES: usize = 64;

/// A transcript in the making. Clones share it, so that one task writes while another one flushes.
#[derive(Clone, Debug)]
pub struct Transcript {
    level: LogLevel,
    clock: Clock,
    waiting: Arc<Mutex<Waiting>>,
    /// Told when something waits where nothing did.
    arrived: Arc<Notify>,
}

/// What was recorded and not taken yet.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
    /// Entries left out for want of room.
    left_out: usize,
}

impl Transcript {
    /// An empty transcript that keeps what `level` keeps.
    #[must_use]
    pub fn new(level: LogLevel, clock: Clock) -> Self {
        Self { level, clock, waiting: Arc::default(), arrived: Arc::default() }
    }

    /// The same transcript for a while in which no sizes of reads and writes may be told.
    #[must_use]
    pub fn without_data(&self) -> Self {
        Self { level: self.level.min(LogLevel::Connection), ..self.clone() }
    }

    /// Whether entries of this kind are kept; asked before a text is made that nobody would read.
    #[must_use]
    pub fn keeps(&self, kind: EntryKind) -> bool {
        self.level.keeps(kind)
    }

    /// Adds an entry, if the level keeps its kind. Control characters and the like are escaped. Beyond half a MiB that
    /// nobody takes, only errors are added; how many entries were left out is told by an entry of its own.
    pub fn record(&self, kind: EntryKind, text: impl Into<String>) {
        if !self.keeps(kind) {
            return;
        }
        let mut text = printable::escape(text.into());
        if text.len() > MAX_TEXT_BYTES {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            text.push('…');
        }
        let mut waiting = self.lock();
        let cost = text.len() + ENTRY_COST_BYTES;
        if kind != EntryKind::Error && waiting.bytes + cost > MAX_WAITING_BYTES {
            waiting.left_out += 1;
            return;
        }
        waiting.bytes += cost;
        waiting.entries.push(Entry { time: self.clock.now(), kind, text });
        if waiting.entries.len() == 1 {
            self.arrived.notify_one();
        }
    }

    /// Returns as soon as there is something to take; for one who waits at a time.
    pub async fn waits(&self) {
        while self.lock().entries.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Takes out what was recorded since the last call, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Entry> {
        let Waiting { mut entries, bytes: _, left_out } = std::mem::take(&mut *self.lock());
        if left_out > 0 {
            let text = format!("{left_out} entries left out: they came faster than they could be stored");
            entries.push(Entry { time: self.clock.now(), kind: EntryKind::Error, text });
        }
        entries
    }

    /// A panic elsewhere leaves whole entries behind: the list stays usable.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Transcript;
    use crate::domain::clock::Clock;
    use crate::domain::log::{EntryKind, LogLevel};

    const KINDS: [EntryKind; 5] =
        [EntryKind::Error, EntryKind::Client, EntryKind::Server, EntryKind::Connection, EntryKind::Data];

    #[test]
    fn each_level_adds_a_kind() {
        for (level, kept) in [
            (LogLevel::Client, 2),
            (LogLevel::ClientServer, 3),
            (LogLevel::Connection, 4),
            (LogLevel::LowLevel, 5),
        ] {
            let transcript = Transcript::new(level, Clock::default());
            for kind in KINDS {
                transcript.record(kind, "text");
            }
            let kinds: Vec<EntryKind> = transcript.take().into_iter().map(|entry| entry.kind).collect();
            assert_eq!(kinds, KINDS[..kept], "{level:?}");
            assert!(transcript.take().is_empty());
        }
    }

    #[test]
    fn every_kind_is_printable() {
        let transcript = Transcript::new(LogLevel::LowLevel, Clock::default());
        for kind in KINDS {
            transcript.record(kind, "\x1b[2J \0 \u{202e}txt\u{2066} \r\u{9b}\u{feff}");
        }
        for (kind, entry) in KINDS.into_iter().zip(transcript.take()) {
            assert_eq!(
                (entry.kind, entry.text.as_str()),
                (kind, "\\x1b[2J \\x00 \\u{202e}txt\\u{2066} \\r\\u{9b}\\u{feff}")
            );
        }
    }

    #[test]
    fn texts_are_printable_and_bounded() {
        let transcript = Transcript::new(LogLevel::ClientServer, Clock::default());
        transcript.clone().record(EntryKind::Server, "250 \x1b[2J\u{202e}\0\r\n");
        transcript.record(EntryKind::Server, "ü".repeat(100_000));
        let entries = transcript.take();
        assert_eq!(entries[0].text, "250 \\x1b[2J\\u{202e}\\x00\\r\\n");
        assert!(entries[1].text.len() < 17 * 1024);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let transcript = Transcript::new(LogLevel::ClientServer, Clock::default());
        for _ in 0..100_000 {
            transcript
                .record(EntryKind::Server, "250-a line of sixty bytes or so, again and again and again");
        }
        transcript.record(EntryKind::Error, "why");
        let entries = transcript.take();
        assert!(entries.len() < 10_000, "{}", entries.len());
        let [.., why, left_out] = entries.as_slice() else { panic!("no entries") };
        assert_eq!(why.text, "why");
        assert_eq!(
            left_out.text,
            format!(
                "{} entries left out: they came faster than they could be stored",
                100_002 - entries.len()
            )
        );
        assert!(transcript.take().is_empty());
    }
}
