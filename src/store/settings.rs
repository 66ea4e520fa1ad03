//! Settings of sites.

use std::time::Duration;

use sqlx::{query, query_as};
use time::OffsetDateTime;

use super::{Store, StoreError, audit};
use crate::domain::audit::Note;
use crate::domain::log::LogLevel;
use crate::domain::log::rotation::RewritePeriod;
use crate::domain::settings::{AccountPriority, OnUncertain, Settings, StoredSettings};
use crate::domain::site::SiteId;

struct SettingsRow {
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
    fn into_settings(self, site: &SiteId) -> Result<Settings, StoreError> {
        let Self {
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
        Ok(Settings { site: site.clone(), stored, version, update_time })
    }
}

/// The settings of a site.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, site: &SiteId) -> Result<Option<Settings>, StoreError> {
    query_as!(
        SettingsRow,
        "select enabled, user_accounts_enabled, require_confirmed_sender, account_priority, send_test_on_save,
                connection_timeout_ms, save_logs, log_level, log_rewrite_period, log_max_size_mib, retry_intervals_ms,
                max_messages_per_batch, min_batch_interval_ms, send_in_parts, on_uncertain, message_retention_ms, version, update_time
         from settings
         where site_id = $1",
        site.as_str(),
    )
    .fetch_optional(&store.pool)
    .await?
    .map(|row| row.into_settings(site))
    .transpose()
}

/// Replaces the settings of a site if they still have the version that `settings` names, and notes it; `None` if not.
///
/// # Errors
/// When the database does not answer.
pub async fn replace(
    store: &Store,
    settings: &Settings,
    note: &Note,
) -> Result<Option<Settings>, StoreError> {
    let Settings { site, stored, version, update_time: _ } = settings;
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
    let mut transaction = store.pool.begin().await?;
    let changed = query_as!(
        SettingsRow,
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
             version = version + 1,
             update_time = now()
         where site_id = $1
           and version = $2
         returning enabled, user_accounts_enabled, require_confirmed_sender, account_priority, send_test_on_save,
                   connection_timeout_ms, save_logs, log_level, log_rewrite_period, log_max_size_mib, retry_intervals_ms,
                   max_messages_per_batch, min_batch_interval_ms, send_in_parts, on_uncertain, message_retention_ms, version, update_time",
        site.as_str(),
        version,
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
    .fetch_optional(&mut *transaction)
    .await?;
    if changed.is_some() {
        // Mail that waits for the pace of before asks again.
        query!(
            "update lanes
             set pause_until = null,
                 mailing_pause_until = null
             where site_id = $1
               and (pause_until is not null or mailing_pause_until is not null)",
            site.as_str(),
        )
        .execute(&mut *transaction)
        .await?;
        audit::append(&mut transaction, &store.clock, site, note).await?;
    }
    transaction.commit().await?;
    store.changes.recorded(site, &[]);
    changed.map(|row| row.into_settings(site)).transpose()
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
