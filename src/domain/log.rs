//! Transcripts: kinds of entries, the four levels, and the names of logs as portals know them.

use time::OffsetDateTime;

/// What an entry of a transcript tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Why an attempt or a check failed; kept at every level.
    Error,
    /// What we said.
    Client,
    /// What the server said.
    Server,
    /// What happened to the connection.
    Connection,
    /// Bytes of a read or a write.
    Data,
}

/// How much of a dialogue is kept; each level adds to the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors and what we said.
    Client,
    /// Also what the server said.
    #[default]
    ClientServer,
    /// Also what happened to the connection.
    Connection,
    /// Also the bytes of each read and write, with the letter's lines.
    LowLevel,
}

impl LogLevel {
    /// Whether an entry of this kind is kept at this level.
    #[must_use]
    pub fn keeps(self, kind: EntryKind) -> bool {
        match kind {
            EntryKind::Error | EntryKind::Client => true,
            EntryKind::Server => self >= Self::ClientServer,
            EntryKind::Connection => self >= Self::Connection,
            EntryKind::Data => self >= Self::LowLevel,
        }
    }
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened.
    pub time: OffsetDateTime,
    /// What it tells.
    pub kind: EntryKind,
    /// Printable text on one line: control characters escaped, credentials hidden.
    pub text: String,
}
