//! The sink of one attempt's transcript: filtered by level, printable, emptied by whoever flushes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::printable;
use crate::domain::clock::Clock;
use crate::domain::log::{Entry, EntryKind, LogLevel};

/// Longest text of an entry in bytes, somewhat more than the longest line kept of a reply once it is escaped.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// A transcript in the making. Clones share it, so that one task writes while another one flushes.
#[derive(Clone, Debug)]
pub struct Transcript {
    level: LogLevel,
    clock: Clock,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Transcript {
    /// An empty transcript that keeps what `level` keeps.
    #[must_use]
    pub fn new(level: LogLevel, clock: Clock) -> Self {
        Self { level, clock, entries: Arc::default() }
    }

    /// Whether entries of this kind are kept; asked before a text is made that nobody would read.
    #[must_use]
    pub fn keeps(&self, kind: EntryKind) -> bool {
        self.level.keeps(kind)
    }

    /// Adds an entry, if the level keeps its kind. Control characters and the like are escaped.
    pub fn record(&self, kind: EntryKind, text: impl Into<String>) {
        if !self.keeps(kind) {
            return;
        }
        let mut text = printable::escape(text.into());
        if text.len() > MAX_TEXT_BYTES {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            text.push('…');
        }
        let entry = Entry { time: self.clock.now(), kind, text };
        self.lock().push(entry);
    }

    /// Takes out what was recorded since the last call, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.lock())
    }

    /// A panic elsewhere leaves whole entries behind: the list stays usable.
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn texts_are_printable_and_bounded() {
        let transcript = Transcript::new(LogLevel::ClientServer, Clock::default());
        transcript.clone().record(EntryKind::Server, "250 \x1b[2J\u{202e}\0\r\n");
        transcript.record(EntryKind::Server, "ü".repeat(100_000));
        let entries = transcript.take();
        assert_eq!(entries[0].text, "250 \\x1b[2J\\u{202e}\\x00\\r\\n");
        assert!(entries[1].text.len() < 17 * 1024);
    }
}
