//! Accounts as rows.

use time::OffsetDateTime;

use crate::domain::account::{Account, Check, Login, Origin, Ownership, Profile, Security, Server};
use crate::domain::address::Address;
use crate::domain::limits::Limits;
use crate::domain::parking::{Parking, ParkingReason};
use crate::domain::site::SiteId;
use crate::store::{StoreError, checks};

/// An account, its check and its parking as they are stored.
pub(super) struct AccountRow {
    pub(super) account_id: i64,
    pub(super) active: bool,
    pub(super) sender_name: String,
    pub(super) sender_email: String,
    pub(super) host: String,
    pub(super) port: i32,
    pub(super) security: String,
    pub(super) username: Option<String>,
    pub(super) origin: String,
    pub(super) user_id: String,
    pub(super) shared: bool,
    pub(super) mailings_first: bool,
    pub(super) version: i64,
    pub(super) create_time: OffsetDateTime,
    pub(super) update_time: OffsetDateTime,
    pub(super) check_state: Option<String>,
    pub(super) check_time: Option<OffsetDateTime>,
    pub(super) success_time: Option<OffsetDateTime>,
    pub(super) error: Option<String>,
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) per_minute: Option<i32>,
    pub(super) per_hour: Option<i32>,
    pub(super) per_day: Option<i32>,
    pub(super) recipients_per_day: Option<i32>,
    pub(super) max_connections: Option<i32>,
    pub(super) max_recipients: Option<i32>,
    pub(super) reserve_percent: Option<i32>,
    pub(super) parking_reason: Option<String>,
    pub(super) parked_until: Option<OffsetDateTime>,
    pub(super) parking_error: Option<String>,
    pub(super) failures: i32,
}

impl AccountRow {
    /// The account that it tells of.
    pub(super) fn into_account(self, site: &SiteId) -> Result<Account, StoreError> {
        let check = Check {
            state: checks::state_from_name(self.check_state.as_deref())?,
            check_time: self.check_time,
            success_time: self.success_time,
            error: self.error.unwrap_or_default(),
            capabilities: self.capabilities.unwrap_or_default(),
        };
        let limits = Limits {
            per_minute: count(self.per_minute)?,
            per_hour: count(self.per_hour)?,
            per_day: count(self.per_day)?,
            recipients_per_day: count(self.recipients_per_day)?,
            max_connections: count(self.max_connections)?,
            max_recipients: count(self.max_recipients)?,
            reserve_percent: count(self.reserve_percent)?,
        };
        let parked = self.parking_reason.zip(self.parked_until).zip(self.parking_error);
        let parking = parked
            .map(|((reason, until), error)| {
                let reason = ParkingReason::from_name(&reason).ok_or(StoreError::Corrupt("parking"))?;
                Ok::<_, StoreError>(Parking { reason, until, error })
            })
            .transpose()?;
        let server = Server {
            host: self.host,
            port: u16::try_from(self.port).map_err(|_| StoreError::Corrupt("port"))?,
            security: security(&self.security)?,
        };
        let profile = Profile {
            active: self.active,
            sender_name: self.sender_name,
            sender_email: Address::parse(&self.sender_email).map_err(|_| StoreError::Corrupt("address"))?,
            server,
            login: self.username.map_or(Login::None, |username| Login::Password { username }),
            ownership: Ownership {
                origin: Origin::from_name(&self.origin).ok_or(StoreError::Corrupt("origin"))?,
                user: self.user_id,
                shared: self.shared,
                mailings_first: self.mailings_first,
            },
            limits,
        };
        Ok(Account {
            site: site.clone(),
            id: self.account_id,
            profile,
            check,
            parking,
            failures: self.failures,
            version: self.version,
            create_time: self.create_time,
            update_time: self.update_time,
        })
    }
}

fn count(stored: Option<i32>) -> Result<Option<u32>, StoreError> {
    stored.map(|count| u32::try_from(count).map_err(|_| StoreError::Corrupt("limit"))).transpose()
}

/// A limit as it is stored.
pub(super) fn stored(limit: Option<u32>) -> Option<i32> {
    limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

/// The user name, where there is a login.
pub(super) fn username(login: &Login) -> Option<&str> {
    match login {
        Login::None => None,
        Login::Password { username } => Some(username),
    }
}

fn security(name: &str) -> Result<Security, StoreError> {
    match name {
        "implicit_tls" => Ok(Security::ImplicitTls),
        "starttls" => Ok(Security::StartTls),
        "none" => Ok(Security::None),
        _ => Err(StoreError::Corrupt("security")),
    }
}

/// The name in the store.
pub(super) const fn security_name(security: Security) -> &'static str {
    match security {
        Security::ImplicitTls => "implicit_tls",
        Security::StartTls => "starttls",
        Security::None => "none",
    }
}
