//! An SMTP account: where it connects to, how it logs in, whose letters it carries.

use time::OffsetDateTime;

use super::address::Address;
use super::limits::Limits;
use super::parking::Parking;
use super::secret::Secret;
use super::site::SiteId;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (RFC 8314).
    ImplicitTls,
    /// STARTTLS, required, never optional (RFC 3207).
    StartTls,
    /// Plain text.
    None,
}

impl Security {
    /// The port an account uses that names none: 465, 587 or 25.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::ImplicitTls => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// The server of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host name in its ASCII (A-label) form, or an IP literal without brackets.
    pub host: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
    /// Protection of the connection.
    pub security: Security,
}

/// How an account logs in.
#[derive(Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// By user name and password (RFC 4954).
    Password {
        /// The user name, never empty.
        username: String,
        /// The password.
        password: Secret,
    },
}

/// How an account logs in, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// By user name and a password that is sealed.
    Password {
        /// The user name, never empty.
        username: String,
    },
}

/// Where an account comes from. It cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The site's administrator.
    Admin,
    /// A person's mailbox.
    Mailbox,
    /// A person's own server for CRM letters.
    Crm,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Mailbox, Self::Crm];

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Mailbox => "mailbox",
            Self::Crm => "crm",
        }
    }

    /// The origin of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.name() == name)
    }
}

/// Whose an account is, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Where it comes from.
    pub origin: Origin,
    /// The site's own id of the person whose it is; empty exactly for the administrator's accounts.
    pub user: String,
    /// Whether everyone of the site may send through it.
    pub shared: bool,
    /// Whether it is searched first when a letter is part of a mailing.
    pub mailings_first: bool,
}

impl Ownership {
    /// An account of the administrator.
    #[must_use]
    pub const fn admin() -> Self {
        Self { origin: Origin::Admin, user: String::new(), shared: false, mailings_first: false }
    }
}

/// What a caller decides about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whether it takes part in the choice.
    pub active: bool,
    /// Name of the sender, maybe empty.
    pub sender_name: String,
    /// Address of the sender.
    pub sender_email: Address,
    /// Where it connects to.
    pub server: Server,
    /// How it logs in.
    pub login: Login,
    /// Whose it is, and what it is used for.
    pub ownership: Ownership,
    /// What its provider takes of it.
    pub limits: Limits,
}

/// What the last try of an account showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// Never tried since the last change that reaches the server.
    NotChecked,
    /// Passed.
    Passed,
    /// Failed.
    Failed,
}

/// The last known state of an account.
#[derive(Clone, Debug)]
pub struct Check {
    /// What the last try showed.
    pub state: CheckState,
    /// The last try.
    pub check_time: Option<OffsetDateTime>,
    /// The last success.
    pub success_time: Option<OffsetDateTime>,
    /// Why the last try failed, empty when it passed.
    pub error: String,
    /// What the server offered.
    pub capabilities: Vec<String>,
}

impl Check {
    /// The state of an account that was never tried.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            state: CheckState::NotChecked,
            check_time: None,
            success_time: None,
            error: String::new(),
            capabilities: Vec::new(),
        }
    }
}

/// One account of a site.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose it is.
    pub site: SiteId,
    /// Its id; a later account has a higher one.
    pub id: i64,
    /// What its caller decided.
    pub profile: Profile,
    /// The last known state.
    pub check: Check,
    /// Set while it is parked.
    pub parking: Option<Parking>,
    /// Sessions in a row that could not be opened for now.
    pub failures: i32,
    /// Grows with every change of the profile or the password.
    pub version: i64,
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// Last change of the profile or the password.
    pub update_time: OffsetDateTime,
}

/// The resource name of an account.
#[must_use]
pub fn account_name(site: &SiteId, id: i64) -> String {
    format!("sites/{site}/accounts/{id}")
}
