//! Logs: kinds of entries, the four levels, names, the text that is downloaded, and when a log begins afresh.

mod id;
pub mod rotation;
mod text;

use time::OffsetDateTime;
use uuid::Uuid;

use super::account::Origin;
use super::site::SiteId;
pub use id::{AccountClass, LogId, LogKind};
pub use text::{size, write};

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
    /// Who did what; in the log `audit`, whatever the level.
    Audit,
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
            EntryKind::Error | EntryKind::Client | EntryKind::Audit => true,
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

/// A stretch of a log: what is stored, and streamed, as one.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whose it is.
    pub site: SiteId,
    /// The log it belongs to.
    pub log: LogId,
    /// The SMTP session; none in the log `audit`.
    pub session: Option<Uuid>,
    /// The letter and the attempt's number; none for a check. In the log `audit` the number is 0.
    pub message: Option<(Uuid, i32)>,
    /// The entries, oldest first; never empty.
    pub entries: Vec<Entry>,
}

impl Chunk {
    /// About what it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entry = |entry: &Entry| size_of::<Entry>() + entry.text.len();
        size_of::<Self>() + self.entries.iter().map(entry).sum::<usize>()
    }
}

/// A log with what is known of it.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its id.
    pub id: LogId,
    /// The account it belongs to, where there is one.
    pub owner: Option<LogOwner>,
    /// Bytes of its text as it is downloaded.
    pub size_bytes: i64,
    /// Its last entry.
    pub update_time: OffsetDateTime,
}

/// What a log tells of its account.
#[derive(Clone, Debug)]
pub struct LogOwner {
    /// Name of the account's sender.
    pub sender_name: String,
    /// Address of the account's sender.
    pub sender_email: String,
    /// Where the account comes from.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::{EntryKind, LogLevel};

    #[test]
    fn each_level_adds_to_the_one_before() {
        let levels = [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel];
        let kinds = [EntryKind::Client, EntryKind::Server, EntryKind::Connection, EntryKind::Data];
        for (reach, level) in levels.into_iter().enumerate() {
            assert!(level.keeps(EntryKind::Error));
            for (place, kind) in kinds.into_iter().enumerate() {
                assert_eq!(level.keeps(kind), place <= reach, "{level:?} {kind:?}");
            }
        }
    }
}
