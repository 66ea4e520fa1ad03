//! Transcripts: kinds of entries, the four levels, and the names of logs as portals know them.

use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

use super::site::SiteId;

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

/// Which transcripts a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogId {
    /// Sessions that send letters through this account.
    Send(i64),
    /// Checks of this account; 0 for accounts that are not saved.
    Check(i64),
}

impl LogId {
    /// The log of this id, `send-admin-2` or `check-admin-2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let account = |digits: &str| {
            let number = digits.parse::<i64>().ok().filter(|n| *n >= 0)?;
            (number.to_string() == digits).then_some(number)
        };
        match text.strip_prefix("send-admin-") {
            Some(digits) => account(digits).map(Self::Send),
            None => account(text.strip_prefix("check-admin-")?).map(Self::Check),
        }
    }

    /// The account; 0 for accounts that are not saved.
    #[must_use]
    pub const fn account(self) -> i64 {
        match self {
            Self::Send(account) | Self::Check(account) => account,
        }
    }

    /// The name by which portals know the log, such as `send_admin_smtp_2.log`.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::Send(account) => format!("send_admin_smtp_{account}.log"),
            Self::Check(account) => format!("check_admin_smtp_{account}.log"),
        }
    }

    /// The tag by which portals show it.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Send(_) => "[Sending]",
            Self::Check(_) => "[Check]",
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(account) => write!(f, "send-admin-{account}"),
            Self::Check(account) => write!(f, "check-admin-{account}"),
        }
    }
}

/// A stretch of one session's transcript: what is stored, and streamed, as one.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whose it is.
    pub site: SiteId,
    /// The log it belongs to.
    pub log: LogId,
    /// The SMTP session.
    pub session: Uuid,
    /// The letter and the attempt's number; none for a check.
    pub message: Option<(Uuid, i32)>,
    /// The entries, oldest first; never empty.
    pub entries: Vec<Entry>,
}

/// A log with what is known of it.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its id.
    pub id: LogId,
    /// Name and address of the account's sender, where there is one.
    pub sender: Option<(String, String)>,
    /// Bytes of its text.
    pub size_bytes: i64,
    /// Its last entry.
    pub update_time: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::{EntryKind, LogId, LogLevel};

    #[test]
    fn names_of_logs() {
        for (id, name, file) in [
            (LogId::Send(2), "send-admin-2", "send_admin_smtp_2.log"),
            (LogId::Check(0), "check-admin-0", "check_admin_smtp_0.log"),
        ] {
            assert_eq!(id.to_string(), name);
            assert_eq!(id.file_name(), file);
            assert_eq!(LogId::parse(name), Some(id));
        }
        for wrong in ["", "send-admin-", "send-admin--1", "send-admin-02", "send-users-2", "check-admin-x"] {
            assert_eq!(LogId::parse(wrong), None, "{wrong}");
        }
    }

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
