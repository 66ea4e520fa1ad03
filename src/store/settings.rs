//! Settings of sites.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, query, query_as};
use time::OffsetDateTime;

use super::{Store, StoreError, audit};
use crate::domain::audit::Note;
use crate::domain::log::LogLevel;
use crate::domain::log::rotation::RewritePeriod;
use crate::domain::settings::{
    AccountPriority, EffectiveSettings, OnUncertain, Settings, SettingsField, StoredSettings,
};
use crate::domain::site::SiteId;

struct SettingsRow {
    site_id: String,
    enabled: Option<bool>,
    user_accounts_enabled: Option<bool>,
    require_confirmed_sender: Option<bool>,
    account_priority: Option<String>,
    send_test_on_save: Option<bool>,
    connection_timeout_ms: Option<i64>,
    save_logs: Option<bool>,
    log_level: Option<String>,
    log_rewrite_period: Option<String>,
    log_max_size_mib: Option<i32>,
    retry_intervals_ms: Option<Vec<i64>>,
    max_messages_per_batch: Option<i32>,
    min_batch_interval_ms: Option<i64>,
    send_in_parts: Option<bool>,
    on_uncertain: Option<String>,
    message_retention_ms: Option<i64>,
    version: i64,
    update_time: Option<OffsetDateTime>,
}

impl SettingsRow {
    fn into_settings(self, site: &SiteId, defaults: &EffectiveSettings) -> Result<Settings, StoreError> {
        let Self {
            site_id: _,
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority,
            send_test_on_save,
            connection_timeout_ms,
            save_logs,
            log_level,
            log_rewrite_period,
            log_max_size_mib,
            retry_intervals_ms,
            max_messages_per_batch,
            min_batch_interval_ms,
            send_in_parts,
            on_uncertain,
            message_retention_ms,
            version,
            update_time,
        } = self;
        let stored = StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority: account_priority.as_deref().map(priority).transpose()?,
            send_test_on_save,
            connection_timeout: connection_timeout_ms.map(duration).transpose()?,
            save_logs,
            log_level: log_level.as_deref().map(level).transpose()?,
            log_rewrite_period: log_rewrite_period.as_deref().map(period).transpose()?,
            log_max_size_mib: log_max_size_mib.map(count).transpose()?,
            retry_intervals: retry_intervals_ms
                .map(|intervals| intervals.into_iter().map(duration).collect())
                .transpose()?,
            max_messages_per_batch: max_messages_per_batch.map(count).transpose()?,
            min_batch_interval: min_batch_interval_ms.map(duration).transpose()?,
            send_in_parts,
            on_uncertain: on_uncertain.as_deref().map(uncertainty).transpose()?,
            message_retention: message_retention_ms.map(duration).transpose()?,
        };
        let effective = defaults.under(&stored);
        Ok(Settings { site: site.clone(), stored, effective, version, update_time })
    }
}

/// The settings of a site.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, site: &SiteId) -> Result<Option<Settings>, StoreError> {
    read(&store.pool, site, &store.defaults).await
}

/// The settings of these sites, as far as they exist.
pub(super) async fn of_sites(
    connection: &mut PgConnection,
    sites: &BTreeSet<&SiteId>,
    defaults: &EffectiveSettings,
) -> Result<Vec<Settings>, StoreError> {
    let sites: Vec<&SiteId> = sites.iter().copied().collect();
    read_all(connection, &sites, defaults).await
}

async fn read(
    executor: impl PgExecutor<'_>,
    site: &SiteId,
    defaults: &EffectiveSettings,
) -> Result<Option<Settings>, StoreError> {
    Ok(read_all(executor, &[site], defaults).await?.pop())
}

async fn read_all(
    executor: impl PgExecutor<'_>,
    sites: &[&SiteId],
    defaults: &EffectiveSettings,
) -> Result<Vec<Settings>, StoreError> {
    let ids: Vec<&str> = sites.iter().map(|site| site.as_str()).collect();
    let rows = query_as!(
        SettingsRow,
        "select site_id, enabled, user_accounts_enabled, require_confirmed_sender, account_priority, send_test_on_save,
                connection_timeout_ms, save_logs, log_level, log_rewrite_period, log_max_size_mib, retry_intervals_ms,
                max_messages_per_batch, min_batch_interval_ms, send_in_parts, on_uncertain, message_retention_ms, version, update_time
         from settings
         where site_id = any($1::text[])",
        &ids as &[&str],
    )
    .fetch_all(executor)
    .await?;
    let of_row = |row: SettingsRow| {
        let site = sites.iter().find(|site| site.as_str() == row.site_id);
        row.into_settings(site.ok_or(StoreError::Corrupt("site id"))?, defaults)
    };
    rows.into_iter().map(of_row).collect()
}

/// Changes what a site has set by `edit`, and notes which fields changed; `None` where there is no such site. Where the
/// same counts as before it is no change: nothing is noted, and the version stays.
///
/// # Errors
/// Those of `edit`; when the database does not answer.
pub async fn change<E: From<StoreError>>(
    store: &Store,
    site: &SiteId,
    edit: impl FnOnce(&Settings) -> Result<StoredSettings, E>,
    note: impl FnOnce(&[SettingsField]) -> Note,
) -> Result<Option<Settings>, E> {
    let mut transaction = store.begin().await.map_err(StoreError::from)?;
    let Some(before) = lock(&mut transaction, site, &store.defaults).await? else { return Ok(None) };
    let stored = edit(&before)?;
    if stored == before.stored {
        return Ok(Some(before));
    }
    let fields = store.defaults.under(&stored).differences(&before.effective);
    let changed = put(&mut transaction, site, &stored, !fields.is_empty(), &store.defaults).await?;
    if !fields.is_empty() {
        resume_lanes(&mut transaction, site).await?;
        audit::append(&mut transaction, &store.clock, site, &note(&fields)).await?;
    }
    transaction.commit().await.map_err(StoreError::from)?;
    store.changes.configured();
    store.changes.recorded(site, &[]);
    Ok(Some(changed))
}

/// The settings, locked until the transaction ends.
async fn lock(
    connection: &mut PgConnection,
    site: &SiteId,
    defaults: &EffectiveSettings,
) -> Result<Option<Settings>, StoreError> {
    query!("select from settings where site_id = $1 for no key update", site.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    read(connection, site, defaults).await
}

/// Stores settings that are locked; as a new version where something else `counts` then.
async fn put(
    connection: &mut PgConnection,
    site: &SiteId,
    stored: &StoredSettings,
    counts: bool,
    defaults: &EffectiveSettings,
) -> Result<Settings, StoreError> {
    let StoredSettings {
        enabled,
        user_accounts_enabled,
        require_confirmed_sender,
        account_priority,
        send_test_on_save,
        connection_timeout,
        save_logs,
        log_level,
        log_rewrite_period,
        log_max_size_mib,
        retry_intervals,
        max_messages_per_batch,
        min_batch_interval,
        send_in_parts,
        on_uncertain,
        message_retention,
    } = stored;
    let intervals: Option<Vec<i64>> =
        retry_intervals.as_ref().map(|intervals| intervals.iter().map(|i| milliseconds(*i)).collect());
    query!(
        "update settings
         set enabled = $3,
             connection_timeout_ms = $4,
             save_logs = $5,
             log_level = $6,
             retry_intervals_ms = $7,
             user_accounts_enabled = $8,
             require_confirmed_sender = $9,
             account_priority = $10,
             send_test_on_save = $11,
             max_messages_per_batch = $12,
             min_batch_interval_ms = $13,
             send_in_parts = $14,
             on_uncertain = $15,
             message_retention_ms = $16,
             log_rewrite_period = $17,
             log_max_size_mib = $18,
             version = version + $2::boolean::integer,
             update_time = case when $2 then now() else update_time end
         where site_id = $1",
        site.as_str(),
        counts,
        *enabled,
        connection_timeout.map(milliseconds),
        *save_logs,
        log_level.map(level_name),
        intervals.as_deref(),
        *user_accounts_enabled,
        *require_confirmed_sender,
        account_priority.map(priority_name),
        *send_test_on_save,
        max_messages_per_batch.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        min_batch_interval.map(milliseconds),
        *send_in_parts,
        on_uncertain.map(uncertainty_name),
        message_retention.map(milliseconds),
        log_rewrite_period.map(RewritePeriod::name),
        log_max_size_mib.map(|size| i32::try_from(size).unwrap_or(i32::MAX)),
    )
    .execute(&mut *connection)
    .await?;
    read(connection, site, defaults).await?.ok_or(StoreError::Corrupt("settings"))
}

/// Mail that waits for the pace of before asks again.
async fn resume_lanes(connection: &mut PgConnection, site: &SiteId) -> Result<(), StoreError> {
    query!(
        "update lanes
         set pause_until = null,
             mailing_pause_until = null
         where site_id = $1
           and (pause_until is not null or mailing_pause_until is not null)",
        site.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn duration(milliseconds: i64) -> Result<Duration, StoreError> {
    u64::try_from(milliseconds).map(Duration::from_millis).map_err(|_| StoreError::Corrupt("duration"))
}

fn count(stored: i32) -> Result<u32, StoreError> {
    u32::try_from(stored).map_err(|_| StoreError::Corrupt("count"))
}

fn period(name: &str) -> Result<RewritePeriod, StoreError> {
    RewritePeriod::from_name(name).ok_or(StoreError::Corrupt("log_rewrite_period"))
}

fn uncertainty(name: &str) -> Result<OnUncertain, StoreError> {
    match name {
        "resend" => Ok(OnUncertain::Resend),
        "hold" => Ok(OnUncertain::Hold),
        _ => Err(StoreError::Corrupt("on_uncertain")),
    }
}

const fn uncertainty_name(on_uncertain: OnUncertain) -> &'static str {
    match on_uncertain {
        OnUncertain::Resend => "resend",
        OnUncertain::Hold => "hold",
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn level(name: &str) -> Result<LogLevel, StoreError> {
    match name {
        "client" => Ok(LogLevel::Client),
        "client_server" => Ok(LogLevel::ClientServer),
        "connection" => Ok(LogLevel::Connection),
        "low_level" => Ok(LogLevel::LowLevel),
        _ => Err(StoreError::Corrupt("log level")),
    }
}

const fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Client => "client",
        LogLevel::ClientServer => "client_server",
        LogLevel::Connection => "connection",
        LogLevel::LowLevel => "low_level",
    }
}

fn priority(name: &str) -> Result<AccountPriority, StoreError> {
    match name {
        "user_first" => Ok(AccountPriority::UserFirst),
        "admin_first" => Ok(AccountPriority::AdminFirst),
        _ => Err(StoreError::Corrupt("account priority")),
    }
}

const fn priority_name(priority: AccountPriority) -> &'static str {
    match priority {
        AccountPriority::UserFirst => "user_first",
        AccountPriority::AdminFirst => "admin_first",
    }
}
