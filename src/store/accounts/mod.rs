//! SMTP accounts as their callers set them.

mod requests;
mod row;

use sqlx::{query, query_as, query_scalar};

pub use self::requests::find_by_request;
use self::row::{AccountRow, security_name, stored, username};
use super::checks::{self, CheckChange};
use super::{Store, StoreError, audit, lanes, logs, passwords};
use crate::domain::account::{Account, Check, CheckState, Origin, Profile};
use crate::domain::audit::Note;
use crate::domain::secret::Secret;
use crate::domain::site::SiteId;

/// An account that is about to be saved.
pub struct NewAccount<'a> {
    /// Whose it is.
    pub site: &'a SiteId,
    /// Which of the sites that had this id, see [`super::sites::life`].
    pub life: i64,
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
    /// The site is gone.
    NoSite,
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
    /// Only those that are parked, or that are not.
    pub parked: Option<bool>,
}

/// The id of the next account of a site; `None` where there is no such site any more. An id that is not used is lost.
///
/// # Errors
/// When the database does not answer.
pub async fn next_id(store: &Store, site: &SiteId, life: i64) -> Result<Option<i64>, StoreError> {
    let id = query_scalar!(
        "update sites
         set last_account_id = last_account_id + 1
         where site_id = $1
           and first_position = $2
           and delete_time is null
         returning last_account_id",
        site.as_str(),
        life,
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(id)
}

/// Saves a new account together with the result of its check, and notes it.
///
/// # Errors
/// When the database does not answer.
pub async fn create(store: &Store, account: &NewAccount<'_>, note: &Note) -> Result<Created, StoreError> {
    let NewAccount { site, life, id, profile, password, request, check } = *account;
    let sealed_password = password.map(|password| passwords::seal(store, site, id, password)).transpose()?;
    let mut transaction = store.begin().await?;
    // A check took its time: the site may be gone, and another have its id.
    let site_row = query!(
        "select from sites where site_id = $1 and first_position = $2 and delete_time is null for key share",
        site.as_str(),
        life,
    );
    if site_row.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(Created::NoSite);
    }
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
    if let Some(known) = requests::claim(&mut transaction, site, id, request).await? {
        return Ok(known);
    }
    if let Some(check) = check {
        checks::apply(&mut transaction, site, id, CheckChange::Set(check)).await?;
    }
    audit::append(&mut transaction, &store.clock, site, note).await?;
    transaction.commit().await?;
    store.changes.configured();
    store.changes.recorded(site, &[]);
    Ok(Created::Saved)
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
    let AccountFilter { active, origin, user, sender_key, check_state, parked } = filter;
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
             and ($8::boolean is null or (l.parking_reason is not null) = $8)
           order by a.account_id
           limit $9"#,
        site.as_str(),
        after,
        *active,
        sender_key.as_deref(),
        check_state.map(checks::state_name),
        origin.map(Origin::name),
        user.as_deref(),
        *parked,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| row.into_account(site))
    .collect()
}

/// Replaces the profile of an account if it still has the version that `account` names. A new
/// password replaces the sealed one; without one it stays, unless the login needs none. The account's logs are emptied,
/// it is no longer parked, and the change is noted.
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
    note: &Note,
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
    let mut transaction = store.begin().await?;
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
        requests::claim(&mut transaction, site, *id, request).await?
    {
        return Ok(Replaced::RequestKnown { account, mac });
    }
    checks::apply(&mut transaction, site, *id, check).await?;
    // Before the logs: who records transcripts locks the site before its logs, too.
    lanes::resume(&mut transaction, site, *id).await?;
    logs::restart_changed(&mut transaction, site, *id, store.clock().now()).await?;
    audit::append(&mut transaction, &store.clock, site, note).await?;
    transaction.commit().await?;
    store.changes.configured();
    lanes::tell_resumed(store, site, *id);
    Ok(Replaced::Saved)
}
