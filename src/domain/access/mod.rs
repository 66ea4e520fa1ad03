//! Access keys: roles, what each may do, and what a key of a site may reach.

mod rpc;

use std::num::NonZeroU32;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;
use uuid::Uuid;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use self::rpc::{Reach, Rpc, Special};
use super::error::{Problem, Reason};
use super::secret::Secret;
use super::site::SiteId;

/// What a key begins with, so that people and secret scanners recognise it.
const KEY_PREFIX: &str = "prm_";
/// Random bytes in a key.
const KEY_BYTES: usize = 32;

/// A role of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    Admin,
    /// Settings, accounts, messages with content and logs of its site.
    Operator,
    /// Sends, reads messages, lists accounts and senders, has senders confirmed.
    Sender,
    /// Reads messages and logs.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Sender, Self::Auditor];

    /// The name on the command line and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Sender => "sender",
            Self::Auditor => "auditor",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether the role has the right.
    #[must_use]
    pub const fn grants(self, right: Right) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(right, Right::ManageSites | Right::ReadAudit),
            Self::Sender => {
                matches!(
                    right,
                    Right::ReadSite
                        | Right::ReadProviders
                        | Right::ReadAccounts
                        | Right::ManageSenders
                        | Right::Send
                        | Right::ReadMessages
                )
            }
            Self::Auditor => {
                matches!(
                    right,
                    Right::ReadSite | Right::ReadProviders | Right::ReadMessages | Right::ReadLogs
                )
            }
        }
    }
}

/// What an rpc needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Create and delete sites.
    ManageSites,
    /// See that a site exists and what it is called.
    ReadSite,
    /// Read and change settings.
    ManageSettings,
    /// Read the table of mail providers.
    ReadProviders,
    /// Read accounts and senders.
    ReadAccounts,
    /// Create, change, delete and check accounts.
    ManageAccounts,
    /// Create, confirm and delete senders.
    ManageSenders,
    /// Send letters.
    Send,
    /// Read letters without their content.
    ReadMessages,
    /// Read the content of letters.
    ReadContent,
    /// Read logs, but for the log `audit`.
    ReadLogs,
    /// Clear logs, but for the log `audit`.
    ClearLogs,
    /// Read and clear the log `audit`.
    ReadAudit,
}

/// What a key reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every site, `sites/-`.
    AllSites,
    /// One site.
    Site(SiteId),
}

/// Who calls: a key that was presented and found good.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Id of the key.
    pub key_id: Uuid,
    /// What it reaches.
    pub scope: Scope,
    /// Its roles.
    pub roles: Vec<Role>,
    /// When it ends.
    pub expire_time: Option<OffsetDateTime>,
    /// Most calls a second at one server; `None` for what every key may make.
    pub calls_per_second: Option<NonZeroU32>,
}

impl Caller {
    /// Whoever holds a new key, which does not end and is limited as every key.
    #[must_use]
    pub fn new(scope: Scope, roles: Vec<Role>) -> Self {
        Self { key_id: Uuid::now_v7(), scope, roles, expire_time: None, calls_per_second: None }
    }

    /// Refuses unless the caller has the right, and for this site where one is named.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, in the same words whether the thing exists or not.
    pub fn may(&self, right: Right, site: Option<&SiteId>) -> Result<(), Problem> {
        let reaches = match (&self.scope, site) {
            (Scope::AllSites, _) => true,
            (Scope::Site(own), Some(site)) => own == site,
            (Scope::Site(_), None) => false,
        };
        if reaches && self.holds(right) { Ok(()) } else { Err(Self::denied()) }
    }

    /// Whether one of the roles grants the right, for whatever site.
    #[must_use]
    pub fn holds(&self, right: Right) -> bool {
        self.roles.iter().any(|role| role.grants(right))
    }

    /// What answers who may not.
    #[must_use]
    pub fn denied() -> Problem {
        Problem::new(Reason::PermissionDenied, "this key does not have the right to do that")
    }
}

/// A fresh key, in the form that its owner presents.
///
/// # Errors
/// None but that the operating system has no randomness to give.
pub fn new_key() -> Result<Secret, Problem> {
    let mut bytes = [0_u8; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Problem::new(Reason::Internal, "the operating system gave no randomness"))?;
    Ok(Secret::from(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// Whether this has the form of a key, so that what cannot be one is not even looked up.
#[must_use]
pub fn is_key(text: &str) -> bool {
    text.strip_prefix(KEY_PREFIX)
        .is_some_and(|rest| URL_SAFE_NO_PAD.decode(rest).is_ok_and(|bytes| bytes.len() == KEY_BYTES))
}

/// What of a key is stored: its SHA-256. The key has 256 random bits, so that no slow hash is needed.
#[must_use]
pub fn key_hash(key: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::{Caller, Right, Role, Scope, SiteId, is_key, new_key};

    fn caller(scope: Scope, roles: &[Role]) -> Caller {
        Caller::new(scope, roles.to_vec())
    }

    #[test]
    fn a_key_of_one_site_reaches_no_other() {
        let shop = SiteId::parse("shop").expect("a site id");
        let other = SiteId::parse("other").expect("a site id");
        let key = caller(Scope::Site(shop.clone()), &[Role::Admin]);
        assert!(key.may(Right::Send, Some(&shop)).is_ok());
        assert!(key.may(Right::Send, Some(&other)).is_err());
        assert!(key.may(Right::ManageSites, None).is_err());
    }

    #[test]
    fn roles_have_their_rights_and_no_others() {
        let table = [
            (Role::Sender, Right::Send, true),
            (Role::Sender, Right::ReadMessages, true),
            (Role::Sender, Right::ReadAccounts, true),
            (Role::Sender, Right::ManageSenders, true),
            (Role::Auditor, Right::ManageSenders, false),
            (Role::Sender, Right::ReadContent, false),
            (Role::Sender, Right::ReadLogs, false),
            (Role::Sender, Right::ManageAccounts, false),
            (Role::Auditor, Right::ReadLogs, true),
            (Role::Auditor, Right::ClearLogs, false),
            (Role::Auditor, Right::ReadAudit, false),
            (Role::Operator, Right::ReadLogs, true),
            (Role::Operator, Right::ClearLogs, true),
            (Role::Operator, Right::ReadAudit, false),
            (Role::Admin, Right::ReadAudit, true),
            (Role::Auditor, Right::ReadContent, false),
            (Role::Auditor, Right::Send, false),
            (Role::Auditor, Right::ReadAccounts, false),
            (Role::Operator, Right::ManageAccounts, true),
            (Role::Operator, Right::ReadContent, true),
            (Role::Operator, Right::ManageSites, false),
            (Role::Admin, Right::ReadContent, true),
            (Role::Admin, Right::ManageSites, true),
        ];
        for (role, right, granted) in table {
            assert_eq!(role.grants(right), granted, "{role:?} {right:?}");
        }
    }

    #[test]
    fn keys_differ_and_look_like_keys() {
        let (one, two) = (new_key().expect("randomness"), new_key().expect("randomness"));
        assert_ne!(one.expose(), two.expose());
        assert!(one.expose().starts_with(b"prm_"));
        assert_eq!(one.expose().len(), 4 + 43);
        let text = String::from_utf8(one.expose().to_vec()).expect("ASCII");
        assert!(is_key(&text));
        for wrong in ["", "prm_", &text[4..], &text[..46], &format!("{text}A"), &text.replace("prm", "prn")] {
            assert!(!is_key(wrong), "{wrong:?}");
        }
    }
}
