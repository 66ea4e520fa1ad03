//! Transcripts: kinds of entries, the four levels, and the names of logs as portals know them.

use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

use super::account::Origin;
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

/// What a log tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogKind {
    /// Sessions that send letters.
    Send,
    /// Checks.
    Check,
}

impl LogKind {
    const ALL: [Self; 2] = [Self::Send, Self::Check];

    const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Check => "check",
        }
    }

    /// The tag by which portals show it.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Send => "[Sending]",
            Self::Check => "[Check]",
        }
    }
}

/// The class of an account, as logs are named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccountClass {
    /// Accounts of the administrator.
    Admin,
    /// Accounts of users.
    Users,
}

impl AccountClass {
    const ALL: [Self; 2] = [Self::Admin, Self::Users];

    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Users => "users",
        }
    }
}

impl From<Origin> for AccountClass {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Admin => Self::Admin,
            Origin::Mailbox | Origin::Crm => Self::Users,
        }
    }
}

/// Which transcripts a log holds: those of one account and one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// What it tells of.
    pub kind: LogKind,
    /// The class of the account.
    pub class: AccountClass,
    /// The account; 0 for accounts that are not saved.
    pub account: i64,
}

impl LogId {
    /// The log of the sessions that send through an account.
    #[must_use]
    pub fn send(origin: Origin, account: i64) -> Self {
        Self { kind: LogKind::Send, class: origin.into(), account }
    }

    /// The log of the checks of an account; 0 for one that is not saved.
    #[must_use]
    pub fn check(origin: Origin, account: i64) -> Self {
        Self { kind: LogKind::Check, class: origin.into(), account }
    }

    /// All logs that an account can have.
    #[must_use]
    pub fn of_account(account: i64) -> [Self; 4] {
        let [send, check] = LogKind::ALL;
        let [admin, users] = AccountClass::ALL;
        [(send, admin), (check, admin), (send, users), (check, users)].map(|(kind, class)| Self {
            kind,
            class,
            account,
        })
    }

    /// The log of this id, `send-admin-2` or `check-users-140`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (kind, class, digits) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = LogKind::ALL.into_iter().find(|k| k.name() == kind)?;
        let class = AccountClass::ALL.into_iter().find(|c| c.name() == class)?;
        let account = digits.parse::<i64>().ok().filter(|n| *n >= 0 && n.to_string() == digits)?;
        Some(Self { kind, class, account })
    }

    /// The name by which portals know the log, such as `send_admin_smtp_2.log`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}_{}_smtp_{}.log", self.kind.name(), self.class.name(), self.account)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.kind.name(), self.class.name(), self.account)
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
    /// The account it belongs to, where there is one.
    pub owner: Option<LogOwner>,
    /// Bytes of its text.
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
    use super::{EntryKind, LogId, LogLevel};
    use crate::domain::account::Origin;

    #[test]
    fn names_of_logs() {
        for (id, name, file) in [
            (LogId::send(Origin::Admin, 2), "send-admin-2", "send_admin_smtp_2.log"),
            (LogId::check(Origin::Admin, 0), "check-admin-0", "check_admin_smtp_0.log"),
            (LogId::send(Origin::Crm, 140), "send-users-140", "send_users_smtp_140.log"),
            (LogId::check(Origin::Mailbox, 7), "check-users-7", "check_users_smtp_7.log"),
        ] {
            assert_eq!(id.to_string(), name);
            assert_eq!(id.file_name(), file);
            assert_eq!(LogId::parse(name), Some(id));
        }
        for wrong in ["", "send-admin-", "send-admin--1", "send-admin-02", "send-user-2", "check-admin-x"] {
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
