//! Who did what, as the log `audit` tells it: names of things and of fields, never their values.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use super::access::{Caller, Role, Scope};
use super::account::{Login, Ownership, Profile, Server, account_name};
use super::limits::Limits;
use super::log::{Chunk, Entry, EntryKind, LogId};
use super::site::SiteId;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever holds this key.
    Key {
        /// Id of the key.
        id: Uuid,
        /// Its roles.
        roles: Vec<Role>,
    },
    /// Whoever may run `postroom` on the store itself.
    CommandLine,
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self::Key { id: caller.key_id, roles: caller.roles.clone() }
    }
}

/// The logs that somebody tails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tailed {
    /// All of the site but the log `audit`.
    All,
    /// Those of an account.
    OfAccount(i64),
    /// These.
    These(Vec<LogId>),
}

impl Tailed {
    /// These logs; none = all.
    #[must_use]
    pub fn of(logs: &[LogId]) -> Self {
        let sorted = |logs: &[LogId]| {
            let mut logs = logs.to_vec();
            logs.sort_unstable();
            logs.dedup();
            logs
        };
        let logs = sorted(logs);
        match logs.first() {
            None => Self::All,
            Some(log) => match log.account() {
                Some(account) if logs == sorted(&LogId::of_account(account)) => Self::OfAccount(account),
                _ => Self::These(logs),
            },
        }
    }
}

/// What somebody read. Reads are noted before anything is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Entries of a log.
    Entries {
        /// The log.
        log: LogId,
        /// The letter, if it was about one.
        message: Option<Uuid>,
    },
    /// A tail, from its start.
    Tail {
        /// Of which logs.
        logs: Tailed,
        /// The letter, if it was about one.
        message: Option<Uuid>,
    },
    /// A log as text.
    Download(LogId),
    /// The content of a letter.
    Content(Uuid),
}

/// What somebody did. Changes are noted in the transaction that makes them.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Read something.
    Read(Reading),
    /// Cleared a log.
    ClearLog(LogId),
    /// Created an account.
    CreateAccount(i64),
    /// Changed fields of an account.
    ChangeAccount {
        /// The account.
        account: i64,
        /// The fields, as an update mask names them.
        fields: Vec<&'static str>,
    },
    /// Turned the CRM account of a person into the account of the mailbox.
    TakeAccountOver {
        /// The account.
        account: i64,
        /// The fields that changed with it, as an update mask names them.
        fields: Vec<&'static str>,
    },
    /// Deleted an account.
    DeleteAccount {
        /// The account.
        account: i64,
        /// Whether mail that waited for it was to be no hindrance.
        force: bool,
    },
    /// Changed these settings.
    ChangeSettings(Vec<&'static str>),
    /// Set these settings back to the operator's defaults.
    RestoreSettings(Vec<&'static str>),
    /// Made a key.
    MakeKey(Caller),
    /// Sealed so many stored secrets anew, under another key of the vault.
    Reseal(usize),
    /// Revoked a key.
    RevokeKey {
        /// Its id.
        key: Uuid,
        /// What it reached.
        scope: Scope,
    },
}

impl Deed {
    /// The change of an account from one profile into another; `with_password`, that there is a new password, too.
    #[must_use]
    pub fn change_account(account: i64, before: &Profile, after: &Profile, with_password: bool) -> Self {
        let fields = changed_fields(before, after, with_password);
        // An origin changes in this one case alone.
        if before.ownership.origin == after.ownership.origin {
            Self::ChangeAccount { account, fields }
        } else {
            Self::TakeAccountOver { account, fields }
        }
    }

    /// The letter that it is about, if it is about one.
    fn message(&self) -> Option<Uuid> {
        match self {
            Self::Read(Reading::Entries { message, .. } | Reading::Tail { message, .. }) => *message,
            Self::Read(Reading::Content(message)) => Some(*message),
            _ => None,
        }
    }

    /// What was done, behind the name of who did it.
    fn words(&self, site: &SiteId) -> String {
        let name = site.name();
        let log = |log: LogId| format!("{name}/logs/{log}");
        let account = |id: i64| account_name(site, id);
        match self {
            Self::Read(Reading::Entries { log: read, message }) => {
                format!("read {}{}", log(*read), about(site, *message))
            }
            Self::Read(Reading::Tail { logs, message }) => {
                let logs = match logs {
                    Tailed::All => format!("all logs of {name}"),
                    Tailed::OfAccount(id) => format!("the logs of {}", account(*id)),
                    Tailed::These(logs) => logs.iter().map(|id| log(*id)).collect::<Vec<_>>().join(", "),
                };
                format!("tailed {logs}{}", about(site, *message))
            }
            Self::Read(Reading::Download(id)) => format!("downloaded {}", log(*id)),
            Self::Read(Reading::Content(message)) => format!("read the content of {name}/messages/{message}"),
            Self::ClearLog(id) => format!("cleared {}", log(*id)),
            Self::CreateAccount(id) => format!("created {}", account(*id)),
            Self::ChangeAccount { account: id, fields } => {
                format!("changed {}{}", account(*id), listed(fields))
            }
            Self::TakeAccountOver { account: id, fields } => {
                format!("turned {} from CRM into MAILBOX{}", account(*id), listed(fields))
            }
            Self::DeleteAccount { account: id, force } => {
                format!("deleted {}{}", account(*id), if *force { " (force)" } else { "" })
            }
            Self::ChangeSettings(fields) => format!("changed {name}/settings{}", listed(fields)),
            Self::RestoreSettings(fields) => format!("restored {name}/settings{}", listed(fields)),
            Self::MakeKey(Caller { key_id, scope, roles, expire_time, calls_per_second }) => {
                let noun = if roles.len() == 1 { "role" } else { "roles" };
                let end = expire_time.map(|end| format!(", until {}", moment(end))).unwrap_or_default();
                let pace =
                    calls_per_second.map(|rate| format!(", {rate} calls a second")).unwrap_or_default();
                format!("made key {key_id} for {} with the {noun} {}{end}{pace}", reach(scope), names(roles))
            }
            Self::Reseal(1) => "sealed 1 secret anew".to_owned(),
            Self::Reseal(count) => format!("sealed {count} secrets anew"),
            Self::RevokeKey { key, scope } => format!("revoked key {key} for {}", reach(scope)),
        }
    }
}

/// Who did what: an entry of the log `audit` before it has its time.
#[derive(Clone, Debug)]
pub struct Note {
    /// Who.
    pub by: Actor,
    /// What.
    pub deed: Deed,
}

impl Note {
    /// The note in the log of a site, at this time.
    #[must_use]
    pub fn chunk(&self, site: &SiteId, time: OffsetDateTime) -> Chunk {
        let mut text = match &self.by {
            Actor::Key { id, roles } => format!("key {id} ({})", names(roles)),
            Actor::CommandLine => "the command line".to_owned(),
        };
        text.push(' ');
        text.push_str(&self.deed.words(site));
        Chunk {
            site: site.clone(),
            log: LogId::Audit,
            session: None,
            message: self.deed.message().map(|message| (message, 0)),
            entries: vec![Entry { time, kind: EntryKind::Audit, text }],
        }
    }
}

fn about(site: &SiteId, message: Option<Uuid>) -> String {
    message.map(|message| format!(" about {}/messages/{message}", site.name())).unwrap_or_default()
}

fn listed(fields: &[&str]) -> String {
    if fields.is_empty() { String::new() } else { format!(": {}", fields.join(", ")) }
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}

fn reach(scope: &Scope) -> String {
    match scope {
        Scope::AllSites => "all sites".to_owned(),
        Scope::Site(site) => site.name(),
    }
}

/// RFC 3339 in UTC, to the second. Writing to a string does not fail.
fn moment(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let mut text = String::new();
    let _ = write!(text, "{date}T{hour:02}:{minute:02}:{second:02}Z");
    text
}

/// The fields in which two profiles differ, as an update mask names them. A password that was given counts as a new one:
/// whether it is the one of before is nobody's business.
fn changed_fields(before: &Profile, after: &Profile, with_password: bool) -> Vec<&'static str> {
    let Profile { active, sender_name, sender_email, server, login, ownership, limits } = before;
    let Server { host, port, security } = server;
    // The origin is told by the deed, and the user never changes.
    let Ownership { origin: _, user: _, shared, mailings_first } = ownership;
    let Limits {
        per_minute,
        per_hour,
        per_day,
        recipients_per_day,
        max_connections,
        max_recipients,
        reserve_percent,
    } = limits;
    let (other_auth, other_username) = match (login, &after.login) {
        (Login::None, Login::None) => (false, false),
        (Login::Password { username }, Login::Password { username: new }) => (false, username != new),
        (Login::None, Login::Password { .. }) | (Login::Password { .. }, Login::None) => (true, false),
    };
    let fields = [
        ("active", *active != after.active),
        ("sender_name", *sender_name != after.sender_name),
        ("sender_email", *sender_email != after.sender_email),
        ("host", *host != after.server.host),
        ("port", *port != after.server.port),
        ("security", *security != after.server.security),
        ("auth", other_auth),
        ("username", other_username),
        ("password", with_password),
        ("mailings_first", *mailings_first != after.ownership.mailings_first),
        ("shared", *shared != after.ownership.shared),
        ("limits.per_minute", *per_minute != after.limits.per_minute),
        ("limits.per_hour", *per_hour != after.limits.per_hour),
        ("limits.per_day", *per_day != after.limits.per_day),
        ("limits.recipients_per_day", *recipients_per_day != after.limits.recipients_per_day),
        ("limits.max_connections", *max_connections != after.limits.max_connections),
        ("limits.max_recipients", *max_recipients != after.limits.max_recipients),
        ("limits.reserve_percent", *reserve_percent != after.limits.reserve_percent),
    ];
    fields.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}
