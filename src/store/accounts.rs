//! SMTP accounts as their callers set them.

use sqlx::{PgConnection, query, query_as, query_scalar};
use time::OffsetDateTime;

use super::checks::{self, CheckChange};
use super::{Store, StoreError, logs, passwords};
use crate::domain::account::{
    Account, Check, CheckState, Login, Origin, Ownership, Profile, Security, Server,
};
use crate::domain::address::Address;
use crate::domain::limits::Limits;
use crate::domain::parking::{Parking, ParkingReason};
use crate::domain::secret::Secret;
use crate::domain::site::SiteId;

/// An account that is about to be saved.
pub struct NewAccount<'a> {
    /// Whose it is.
    pub site: &'a SiteId,
    /// Its id, from [`next_id`].
    pub id: i64,
    /// What its caller decided.
    pub profile: &'a Profile,
    /// The password; present exactly if the login needs one.
    pub password: Option<&'a Secret>,
    /// The caller's request id and the MAC of the request's content.
    pub request: Option<(&'a str, &'a [u8])>,
    /// The result of the check that went before.
    pub check: Option<&'a Check>,
}

/// What became of an attempt to create an account.
#[derive(Debug)]
pub enum Created {
    /// Saved.
    Saved,
    /// The request id was used before, by this account and for content with this MAC.
    RequestKnown {
        /// The account of then.
        account: i64,
        /// The MAC of then.
        mac: Vec<u8>,
    },
}

/// What became of an attempt to change an account.
#[derive(Debug)]
pub enum Replaced {
    /// Saved.
    Saved,
    /// Somebody else changed it meanwhile.
    VersionChanged,
    /// The request id was used before, for this account and for content with this MAC.
    RequestKnown {
        /// The account of then.
        account: i64,
        /// The MAC of then.
        mac: Vec<u8>,
    },
}

/// Which accounts to list.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    /// Only active or inactive ones.
    pub active: Option<bool>,
    /// Only those of this origin.
    pub origin: Option<Origin>,
    /// Only those of this user.
    pub user: Option<String>,
    /// Only those of this address key.
    pub sender_key: Option<String>,
    /// Only those in this state.
    pub check_state: Option<CheckState>,
}

struct AccountRow {
    account_id: i64,
    active: bool,
    sender_name: String,
    sender_email: String,
    host: String,
    port: i32,
    security: String,
    username: Option<String>,
    origin: String,
    user_id: String,
    shared: bool,
    mailings_first: bool,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
    check_state: Option<String>,
    check_time: Option<OffsetDateTime>,
    success_time: Option<OffsetDateTime>,
    error: Option<String>,
    capabilities: Option<Vec<String>>,
    per_minute: Option<i32>,
    per_hour: Option<i32>,
    per_day: Option<i32>,
    recipients_per_day: Option<i32>,
    max_connections: Option<i32>,
    max_recipients: Option<i32>,
    reserve_percent: Option<i32>,
    parking_reason: Option<String>,
    parked_until: Option<OffsetDateTime>,
    parking_error: Option<String>,
    failures: i32,
}

impl AccountRow {
    fn into_account(self, site: &SiteId) -> Result<Account, StoreError> {
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

/// The id of the next account of a site; `None` where there is no such site. An id that is not used is lost.
///
/// # Errors
/// When the database does not answer.
pub async fn next_id(store: &Store, site: &SiteId) -> Result<Option<i64>, StoreError> {
    let id = query_scalar!(
        "update sites set last_account_id = last_account_id + 1 where site_id = $1 returning last_account_id",
        site.as_str(),
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(id)
}

/// Saves a new account together with the result of its check.
///
/// # Errors
/// When the database does not answer.
pub async fn create(store: &Store, account: &NewAccount<'_>) -> Result<Created, StoreError> {
    let NewAccount { site, id, profile, password, request, check } = *account;
    let sealed_password = password.map(|password| passwords::seal(store, site, id, password)).transpose()?;
    let mut transaction = store.pool.begin().await?;
    query!(
        "insert into accounts (
             site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security,
             username, sealed_password, origin, user_id, shared, mailings_first, per_minute, per_hour, per_day,
             recipients_per_day, max_connections, max_recipients, reserve_percent
         ) values (
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22
         )",
        site.as_str(),
        id,
        profile.active,
        profile.sender_name,
        profile.sender_email.to_string(),
        profile.sender_email.key(),
        profile.server.host,
        i32::from(profile.server.port),
        security_name(profile.server.security),
        username(&profile.login),
        sealed_password.as_deref(),
        profile.ownership.origin.name(),
        profile.ownership.user,
        profile.ownership.shared,
        profile.ownership.mailings_first,
        stored(profile.limits.per_minute),
        stored(profile.limits.per_hour),
        stored(profile.limits.per_day),
        stored(profile.limits.recipients_per_day),
        stored(profile.limits.max_connections),
        stored(profile.limits.max_recipients),
        stored(profile.limits.reserve_percent),
    )
    .execute(&mut *transaction)
    .await?;
    if let Some(known) = claim_request(&mut transaction, site, id, request).await? {
        return Ok(known);
    }
    if let Some(check) = check {
        checks::apply(&mut transaction, site, id, CheckChange::Set(check)).await?;
    }
    transaction.commit().await?;
    Ok(Created::Saved)
}

/// Notes the request that creates this account, inside its transaction; what came before it, where it is not the first.
async fn claim_request(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    request: Option<(&str, &[u8])>,
) -> Result<Option<Created>, StoreError> {
    let Some((request_id, mac)) = request else { return Ok(None) };
    // Waits for a transaction that notes the same id, and sees what it did.
    let noted = query!(
        "insert into account_requests (site_id, request_id, request_mac, account_id) values ($1, $2, $3, $4)
         on conflict do nothing",
        site.as_str(),
        request_id,
        mac,
        account,
    )
    .execute(&mut *connection)
    .await?;
    if noted.rows_affected() > 0 {
        return Ok(None);
    }
    let known = known_request(connection, site, request_id).await?;
    let (account, mac) = known.ok_or(StoreError::Corrupt("request id"))?;
    Ok(Some(Created::RequestKnown { account, mac }))
}

/// The account that was created by this request, and the MAC of the request's content.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_request(
    store: &Store,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let mut connection = store.pool.acquire().await?;
    known_request(&mut connection, site, request_id).await
}

async fn known_request(
    connection: &mut PgConnection,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = query!(
        "select account_id, request_mac from account_requests where site_id = $1 and request_id = $2",
        site.as_str(),
        request_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.account_id, row.request_mac)))
}

/// The account of this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, site: &SiteId, id: i64) -> Result<Option<Account>, StoreError> {
    query_as!(
        AccountRow,
        r#"select a.account_id, a.active, a.sender_name, a.sender_email, a.host, a.port, a.security, a.username,
                  a.origin, a.user_id, a.shared, a.mailings_first, a.version, a.create_time, a.update_time,
                  c.state as "check_state?", c.check_time as "check_time?", c.success_time,
                  c.error as "error?", c.capabilities as "capabilities?",
                  a.per_minute, a.per_hour, a.per_day, a.recipients_per_day, a.max_connections, a.max_recipients,
                  a.reserve_percent, l.parking_reason as "parking_reason?", l.parked_until as "parked_until?",
                  l.parking_error as "parking_error?", coalesce(l.failures, 0) as "failures!"
           from accounts a
           left join account_checks c on c.site_id = a.site_id and c.account_id = a.account_id
           left join lanes l on l.site_id = a.site_id and l.account_id = a.account_id
           where a.site_id = $1
             and a.account_id = $2"#,
        site.as_str(),
        id,
    )
    .fetch_optional(&store.pool)
    .await?
    .map(|row| row.into_account(site))
    .transpose()
}

/// Up to `limit` accounts behind the id `after`, by id.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    filter: &AccountFilter,
    after: i64,
    limit: i64,
) -> Result<Vec<Account>, StoreError> {
    let AccountFilter { active, origin, user, sender_key, check_state } = filter;
    query_as!(
        AccountRow,
        r#"select a.account_id, a.active, a.sender_name, a.sender_email, a.host, a.port, a.security, a.username,
                  a.origin, a.user_id, a.shared, a.mailings_first, a.version, a.create_time, a.update_time,
                  c.state as "check_state?", c.check_time as "check_time?", c.success_time,
                  c.error as "error?", c.capabilities as "capabilities?",
                  a.per_minute, a.per_hour, a.per_day, a.recipients_per_day, a.max_connections, a.max_recipients,
                  a.reserve_percent, l.parking_reason as "parking_reason?", l.parked_until as "parked_until?",
                  l.parking_error as "parking_error?", coalesce(l.failures, 0) as "failures!"
           from accounts a
           left join account_checks c on c.site_id = a.site_id and c.account_id = a.account_id
           left join lanes l on l.site_id = a.site_id and l.account_id = a.account_id
           where a.site_id = $1
             and a.account_id > $2
             and ($3::boolean is null or a.active = $3)
             and ($4::text is null or a.sender_key = $4)
             and ($5::text is null or coalesce(c.state, 'not_checked') = $5)
             and ($6::text is null or a.origin = $6)
             and ($7::text is null or a.user_id = $7)
           order by a.account_id
           limit $8"#,
        site.as_str(),
        after,
        *active,
        sender_key.as_deref(),
        check_state.map(checks::state_name),
        origin.map(Origin::name),
        user.as_deref(),
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| row.into_account(site))
    .collect()
}

/// Replaces the profile of an account if it still has the version that `account` names. A new
/// password replaces the sealed one; without one it stays, unless the login needs none. The account's logs are emptied.
/// `request` is that of a call that creates, where the change takes an account over.
///
/// # Errors
/// When the database does not answer.
pub async fn replace(
    store: &Store,
    account: &Account,
    password: Option<&Secret>,
    check: CheckChange<'_>,
    request: Option<(&str, &[u8])>,
) -> Result<Replaced, StoreError> {
    let Account {
        site,
        id,
        profile,
        version,
        check: _,
        parking: _,
        failures: _,
        create_time: _,
        update_time: _,
    } = account;
    let sealed_password = password.map(|password| passwords::seal(store, site, *id, password)).transpose()?;
    let mut transaction = store.pool.begin().await?;
    let changed = query!(
        "update accounts
         set active = $4,
             sender_name = $5,
             sender_email = $6,
             sender_key = $7,
             host = $8,
             port = $9,
             security = $10,
             username = $11,
             origin = $13,
             shared = $14,
             mailings_first = $15,
             per_minute = $16,
             per_hour = $17,
             per_day = $18,
             recipients_per_day = $19,
             max_connections = $20,
             max_recipients = $21,
             reserve_percent = $22,
             sealed_password = case when $11::text is null then null else coalesce($12, sealed_password) end,
             version = version + 1,
             update_time = now()
         where site_id = $1
           and account_id = $2
           and version = $3",
        site.as_str(),
        id,
        version,
        profile.active,
        profile.sender_name,
        profile.sender_email.to_string(),
        profile.sender_email.key(),
        profile.server.host,
        i32::from(profile.server.port),
        security_name(profile.server.security),
        username(&profile.login),
        sealed_password.as_deref(),
        profile.ownership.origin.name(),
        profile.ownership.shared,
        profile.ownership.mailings_first,
        stored(profile.limits.per_minute),
        stored(profile.limits.per_hour),
        stored(profile.limits.per_day),
        stored(profile.limits.recipients_per_day),
        stored(profile.limits.max_connections),
        stored(profile.limits.max_recipients),
        stored(profile.limits.reserve_percent),
    )
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(Replaced::VersionChanged);
    }
    if let Some(Created::RequestKnown { account, mac }) =
        claim_request(&mut transaction, site, *id, request).await?
    {
        return Ok(Replaced::RequestKnown { account, mac });
    }
    checks::apply(&mut transaction, site, *id, check).await?;
    logs::drop_logs(&mut transaction, site, *id).await?;
    transaction.commit().await?;
    Ok(Replaced::Saved)
}

fn count(stored: Option<i32>) -> Result<Option<u32>, StoreError> {
    stored.map(|count| u32::try_from(count).map_err(|_| StoreError::Corrupt("limit"))).transpose()
}

fn stored(limit: Option<u32>) -> Option<i32> {
    limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

fn username(login: &Login) -> Option<&str> {
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

const fn security_name(security: Security) -> &'static str {
    match security {
        Security::ImplicitTls => "implicit_tls",
        Security::StartTls => "starttls",
        Security::None => "none",
    }
}
