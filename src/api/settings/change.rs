//! Changes of settings: what a request asks for, within its bounds, and of which fields.

use std::time::Duration;

use super::convert;
use crate::api::fields::{self, Violations};
use crate::api::proto::Settings as ProtoSettings;
use crate::domain::error::Problem;
use crate::domain::settings::rules::{self, Ruled};
use crate::domain::settings::{EffectiveSettings, Settings, SettingsField, StoredSettings};

/// A change of settings: what is wanted, and of which fields.
pub(super) struct SettingsChange {
    wanted: StoredSettings,
    fields: Vec<SettingsField>,
    naming: Naming,
}

/// How a request tells which fields it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// One by one.
    Named,
    /// As those that have a value, or as all: settings that are read and written back are no settings that somebody wants to
    /// keep whatever the defaults will be.
    Implied,
}

impl SettingsChange {
    /// The change that a request asks for; without paths the fields that are present.
    pub(super) fn parse(
        wanted: ProtoSettings,
        paths: &[String],
        retry_floor: Duration,
    ) -> Result<Self, Problem> {
        let ProtoSettings {
            name: _,
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
            etag: _,
            update_time: _,
        } = wanted;
        let present = [
            (SettingsField::Enabled, enabled.is_some()),
            (SettingsField::UserAccountsEnabled, user_accounts_enabled.is_some()),
            (SettingsField::RequireConfirmedSender, require_confirmed_sender.is_some()),
            (SettingsField::AccountPriority, account_priority.is_some()),
            (SettingsField::SendTestOnSave, send_test_on_save.is_some()),
            (SettingsField::ConnectionTimeout, connection_timeout.is_some()),
            (SettingsField::SaveLogs, save_logs.is_some()),
            (SettingsField::LogLevel, log_level.is_some()),
            (SettingsField::LogRewritePeriod, log_rewrite_period.is_some()),
            (SettingsField::LogMaxSizeMib, log_max_size_mib.is_some()),
            (SettingsField::RetryIntervals, !retry_intervals.is_empty()),
            (SettingsField::MaxMessagesPerBatch, max_messages_per_batch.is_some()),
            (SettingsField::MinBatchInterval, min_batch_interval.is_some()),
            (SettingsField::SendInParts, send_in_parts.is_some()),
            (SettingsField::OnUncertain, on_uncertain.is_some()),
            (SettingsField::MessageRetention, message_retention.is_some()),
        ];
        let mut violations = Violations::default();
        let mut bounded =
            |field, value: Option<prost_types::Duration>, rule: fn(Duration) -> Ruled<Duration>| {
                let value = duration(value?, rule);
                violations.take(field, value)
            };
        let timeout = bounded("settings.connection_timeout", connection_timeout, rules::connection_timeout);
        let interval = bounded("settings.min_batch_interval", min_batch_interval, rules::min_batch_interval);
        let retention = bounded("settings.message_retention", message_retention, rules::message_retention);
        let mut counted = |field, value: Option<u32>, rule: fn(u32) -> Ruled<u32>| {
            value.and_then(|value| violations.take(field, rule(value)))
        };
        let batch =
            counted("settings.max_messages_per_batch", max_messages_per_batch, rules::max_messages_per_batch);
        let log_size = counted("settings.log_max_size_mib", log_max_size_mib, rules::log_max_size_mib);
        let uncertain =
            Choice("settings.on_uncertain", on_uncertain, "is not a way to treat uncertain letters");
        let level = Choice("settings.log_level", log_level, "is not a log level");
        let period = Choice("settings.log_rewrite_period", log_rewrite_period, "is not a period");
        let priority = Choice("settings.account_priority", account_priority, "is not a priority");
        let wanted = StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority: priority.take(convert::priority_from_proto, &mut violations),
            send_test_on_save,
            connection_timeout: timeout,
            save_logs,
            log_level: level.take(convert::level_from_proto, &mut violations),
            log_rewrite_period: period.take(convert::period_from_proto, &mut violations),
            log_max_size_mib: log_size,
            retry_intervals: parse_intervals(&retry_intervals, retry_floor, &mut violations),
            max_messages_per_batch: batch,
            min_batch_interval: interval,
            send_in_parts,
            on_uncertain: uncertain.take(convert::uncertainty_from_proto, &mut violations),
            message_retention: retention,
        };
        let named = parse_mask(paths, &mut violations);
        violations.finish()?;
        let (fields, naming) = match named {
            Named::Nothing => {
                let present = present.into_iter().filter_map(|(field, present)| present.then_some(field));
                (present.collect(), Naming::Implied)
            }
            Named::All => (SettingsField::ALL.to_vec(), Naming::Implied),
            Named::Fields(fields) => (fields, Naming::Named),
        };
        Ok(Self { wanted, fields, naming })
    }

    /// What is set after the change of these settings.
    pub(super) fn apply(&self, settings: &Settings, defaults: &EffectiveSettings) -> StoredSettings {
        let Self { wanted, fields, naming } = self;
        let mut stored = settings.stored.clone();
        for field in fields {
            let mut with_field = stored.clone();
            with_field.copy(*field, wanted);
            let sets = with_field != stored && {
                let mut without = stored.clone();
                without.copy(*field, &StoredSettings::default());
                with_field != without
            };
            let counts_already = defaults.under(&with_field) == defaults.under(&stored);
            if *naming == Naming::Implied && sets && counts_already {
                continue;
            }
            stored = with_field;
        }
        stored
    }
}

/// What a mask names.
enum Named {
    Nothing,
    All,
    Fields(Vec<SettingsField>),
}

/// The fields of a mask. An etag may be named: it is compared, not stored.
fn parse_mask(paths: &[String], violations: &mut Violations) -> Named {
    let mut fields = Vec::with_capacity(paths.len());
    for (index, path) in paths.iter().enumerate() {
        if !["*", "etag"].contains(&path.as_str()) {
            fields.extend(violations.take(&format!("update_mask.paths[{index}]"), field(path)));
        }
    }
    if paths.is_empty() {
        Named::Nothing
    } else if paths.iter().any(|path| path == "*") {
        Named::All
    } else {
        Named::Fields(fields)
    }
}

/// The fields that are to be restored: those of the paths, or all.
pub(super) fn parse_restored(paths: &[String]) -> Result<Vec<SettingsField>, Problem> {
    let mut violations = Violations::default();
    let mut fields = Vec::with_capacity(paths.len());
    for (index, path) in paths.iter().enumerate() {
        fields.extend(violations.take(&format!("paths[{index}]"), field(path)));
    }
    violations.finish()?;
    Ok(if paths.is_empty() { SettingsField::ALL.to_vec() } else { fields })
}

fn field(path: &str) -> Result<SettingsField, String> {
    SettingsField::from_name(path).ok_or_else(|| {
        // As much of it as a name has: it may be as long as a request.
        let shown: String = path.chars().take(64).collect();
        format!("`{}` is not a setting that can be changed", shown.escape_debug())
    })
}

/// An enum's field, its number, and what is said of a number that means nothing.
struct Choice(&'static str, Option<i32>, &'static str);

impl Choice {
    /// What was chosen; `None` for the default.
    fn take<Proto: TryFrom<i32>, Chosen>(
        self,
        convert: impl FnOnce(Proto) -> Option<Chosen>,
        violations: &mut Violations,
    ) -> Option<Chosen> {
        let Self(field, number, rule) = self;
        let proto = Proto::try_from(number.unwrap_or_default()).map_err(|_| rule);
        violations.take(field, proto).and_then(convert)
    }
}

/// The duration, if it keeps the rule; to the millisecond, as it is stored.
fn duration(value: prost_types::Duration, rule: impl FnOnce(Duration) -> Ruled<Duration>) -> Ruled<Duration> {
    let value = rule(fields::duration(value)?)?;
    Ok(Duration::new(value.as_secs(), value.subsec_millis() * 1_000_000))
}

/// The intervals; `None` where there are none, which stands for the default.
fn parse_intervals(
    values: &[prost_types::Duration],
    floor: Duration,
    violations: &mut Violations,
) -> Option<Vec<Duration>> {
    violations.take("settings.retry_intervals", rules::retry_interval_count(values.len()))?;
    let mut intervals = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let interval = duration(*value, |interval| rules::retry_interval(interval, floor));
        intervals.extend(violations.take(&format!("settings.retry_intervals[{index}]"), interval));
    }
    (!intervals.is_empty()).then_some(intervals)
}
