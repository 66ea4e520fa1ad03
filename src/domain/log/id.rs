//! The names of logs: by kind, class and account, as portals know them; and the log `audit`.

use std::fmt;

use crate::domain::account::Origin;

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

    const fn tag(self) -> &'static str {
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

/// Which log: the transcripts of one account and one kind, or who did what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogId {
    /// Transcripts of one account and one kind.
    Transcripts {
        /// What it tells of.
        kind: LogKind,
        /// The class of the account.
        class: AccountClass,
        /// The account; 0 for accounts that are not saved.
        account: i64,
    },
    /// Who read logs and content, and changed accounts, settings and keys.
    Audit,
}

/// The id of the log [`LogId::Audit`].
const AUDIT: &str = "audit";

impl LogId {
    /// The log of the sessions that send through an account.
    #[must_use]
    pub fn send(origin: Origin, account: i64) -> Self {
        Self::Transcripts { kind: LogKind::Send, class: origin.into(), account }
    }

    /// The log of the checks of an account; 0 for one that is not saved.
    #[must_use]
    pub fn check(origin: Origin, account: i64) -> Self {
        Self::Transcripts { kind: LogKind::Check, class: origin.into(), account }
    }

    /// All logs that an account can have.
    #[must_use]
    pub fn of_account(account: i64) -> [Self; 4] {
        let [send, check] = LogKind::ALL;
        let [admin, users] = AccountClass::ALL;
        [(send, admin), (check, admin), (send, users), (check, users)]
            .map(|(kind, class)| Self::Transcripts { kind, class, account })
    }

    /// The saved account it belongs to, if it belongs to one.
    #[must_use]
    pub fn account(self) -> Option<i64> {
        match self {
            Self::Transcripts { account: 0, .. } | Self::Audit => None,
            Self::Transcripts { account, .. } => Some(account),
        }
    }

    /// The tag by which portals show what it tells of.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Transcripts { kind, .. } => kind.tag(),
            Self::Audit => "[Audit]",
        }
    }

    /// The log of this id, `send-admin-2`, `check-users-140` or `audit`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == AUDIT {
            return Some(Self::Audit);
        }
        let mut parts = text.splitn(3, '-');
        let (kind, class, digits) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = LogKind::ALL.into_iter().find(|k| k.name() == kind)?;
        let class = AccountClass::ALL.into_iter().find(|c| c.name() == class)?;
        let account = digits.parse::<i64>().ok().filter(|n| *n >= 0 && n.to_string() == digits)?;
        Some(Self::Transcripts { kind, class, account })
    }

    /// The name by which portals know the log, such as `send_admin_smtp_2.log`.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::Transcripts { kind, class, account } => {
                format!("{}_{}_smtp_{account}.log", kind.name(), class.name())
            }
            Self::Audit => format!("{AUDIT}.log"),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transcripts { kind, class, account } => {
                write!(f, "{}-{}-{account}", kind.name(), class.name())
            }
            Self::Audit => f.write_str(AUDIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LogId;
    use crate::domain::account::Origin;

    #[test]
    fn names_of_logs() {
        for (id, name, file) in [
            (LogId::send(Origin::Admin, 2), "send-admin-2", "send_admin_smtp_2.log"),
            (LogId::check(Origin::Admin, 0), "check-admin-0", "check_admin_smtp_0.log"),
            (LogId::send(Origin::Crm, 140), "send-users-140", "send_users_smtp_140.log"),
            (LogId::check(Origin::Mailbox, 7), "check-users-7", "check_users_smtp_7.log"),
            (LogId::Audit, "audit", "audit.log"),
        ] {
            assert_eq!(id.to_string(), name);
            assert_eq!(id.file_name(), file);
            assert_eq!(LogId::parse(name), Some(id));
        }
        for wrong in [
            "",
            "send-admin-",
            "send-admin--1",
            "send-admin-02",
            "send-user-2",
            "check-admin-x",
            "audit-1",
            "Audit",
        ] {
            assert_eq!(LogId::parse(wrong), None, "{wrong}");
        }
    }
}
