//! Changes of settings: what a request asks for, in its ranges, and of which fields.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::convert;
use crate::api::fields::{self, Violations};
use crate::api::proto::{
    AccountPriority as ProtoPriority, LogLevel as ProtoLogLevel, OnUncertain as ProtoUncertain,
    Settings as ProtoSettings,
};
use crate::domain::error::Problem;
use crate::domain::settings::{
    CONNECTION_TIMEOUT_RANGE, MAX_BATCH_INTERVAL, MAX_RETRY_INTERVAL, MAX_RETRY_INTERVALS,
    MESSAGE_RETENTION_RANGE, MESSAGES_PER_BATCH_RANGE, StoredSettings,
};

/// A change of settings: what is wanted, and of which fields.
pub(super) struct SettingsChange {
    wanted: StoredSettings,
    paths: Vec<&'static str>,
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
            ("enabled", enabled.is_some()),
            ("user_accounts_enabled", user_accounts_enabled.is_some()),
            ("require_confirmed_sender", require_confirmed_sender.is_some()),
            ("account_priority", account_priority.is_some()),
            ("send_test_on_save", send_test_on_save.is_some()),
            ("connection_timeout", connection_timeout.is_some()),
            ("save_logs", save_logs.is_some()),
            ("log_level", log_level.is_some()),
            ("retry_intervals", !retry_intervals.is_empty()),
            ("max_messages_per_batch", max_messages_per_batch.is_some()),
            ("min_batch_interval", min_batch_interval.is_some()),
            ("send_in_parts", send_in_parts.is_some()),
            ("on_uncertain", on_uncertain.is_some()),
            ("message_retention", message_retention.is_some()),
        ];
        let mut violations = Violations::default();
        let mut bounded = |field, value: Option<prost_types::Duration>, range, rule| {
            let value = value.map(|value| within(value, &range).ok_or(rule))?;
            violations.take(field, value)
        };
        let timeout = bounded(
            "settings.connection_timeout",
            connection_timeout,
            CONNECTION_TIMEOUT_RANGE,
            "must be 1s to 600s",
        );
        let interval = Duration::ZERO..=MAX_BATCH_INTERVAL;
        let interval =
            bounded("settings.min_batch_interval", min_batch_interval, interval, "must be 0s to 86400s");
        let retention = bounded(
            "settings.message_retention",
            message_retention,
            MESSAGE_RETENTION_RANGE,
            "must be 604800s (7 days) to 3153600000s (36,500 days)",
        );
        let batch = max_messages_per_batch.and_then(|count| {
            let count = Some(count).filter(|count| MESSAGES_PER_BATCH_RANGE.contains(count));
            violations.take("settings.max_messages_per_batch", count.ok_or("must be 1 to 10000"))
        });
        let uncertain = ProtoUncertain::try_from(on_uncertain.unwrap_or_default());
        let uncertain = violations
            .take("settings.on_uncertain", uncertain.map_err(|_| "is not a way to treat uncertain letters"));
        let level = ProtoLogLevel::try_from(log_level.unwrap_or_default()).map_err(|_| "is not a log level");
        let priority = ProtoPriority::try_from(account_priority.unwrap_or_default());
        let priority =
            violations.take("settings.account_priority", priority.map_err(|_| "is not a priority"));
        let wanted = StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority: priority.and_then(convert::priority_from_proto),
            send_test_on_save,
            connection_timeout: timeout,
            save_logs,
            log_level: violations.take("settings.log_level", level).and_then(convert::level_from_proto),
            retry_intervals: parse_intervals(&retry_intervals, retry_floor, &mut violations),
            max_messages_per_batch: batch,
            min_batch_interval: interval,
            send_in_parts,
            on_uncertain: uncertain.and_then(convert::uncertainty_from_proto),
            message_retention: retention,
        };
        for (index, path) in paths.iter().enumerate() {
            // An etag may be named: it is compared, not stored.
            let known =
                ["*", "etag"].contains(&path.as_str()) || present.iter().any(|(name, _)| name == path);
            if !known {
                let description = format!("`{path}` is not a setting that can be changed");
                violations.add(format!("update_mask.paths[{index}]"), description);
            }
        }
        violations.finish()?;
        let named = |name: &str| paths.iter().any(|path| path == name || path == "*");
        let changes = |(name, present): (&'static str, bool)| {
            (if paths.is_empty() { present } else { named(name) }).then_some(name)
        };
        Ok(Self { wanted, paths: present.into_iter().filter_map(changes).collect() })
    }

    /// Puts what is wanted into what is stored.
    pub(super) fn apply(self, stored: &mut StoredSettings) {
        let Self { wanted, paths } = self;
        let StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority,
            send_test_on_save,
            connection_timeout,
            save_logs,
            log_level,
            retry_intervals,
            max_messages_per_batch,
            min_batch_interval,
            send_in_parts,
            on_uncertain,
            message_retention,
        } = wanted;
        for path in paths {
            match path {
                "enabled" => stored.enabled = enabled,
                "user_accounts_enabled" => stored.user_accounts_enabled = user_accounts_enabled,
                "require_confirmed_sender" => stored.require_confirmed_sender = require_confirmed_sender,
                "account_priority" => stored.account_priority = account_priority,
                "send_test_on_save" => stored.send_test_on_save = send_test_on_save,
                "connection_timeout" => stored.connection_timeout = connection_timeout,
                "save_logs" => stored.save_logs = save_logs,
                "log_level" => stored.log_level = log_level,
                "retry_intervals" => stored.retry_intervals.clone_from(&retry_intervals),
                "max_messages_per_batch" => stored.max_messages_per_batch = max_messages_per_batch,
                "min_batch_interval" => stored.min_batch_interval = min_batch_interval,
                "send_in_parts" => stored.send_in_parts = send_in_parts,
                "on_uncertain" => stored.on_uncertain = on_uncertain,
                _ => stored.message_retention = message_retention,
            }
        }
    }
}

/// The duration, if it is one of this range.
fn within(value: prost_types::Duration, range: &RangeInclusive<Duration>) -> Option<Duration> {
    fields::duration(value).ok().filter(|duration| range.contains(duration))
}

/// The intervals; `None` where there are none, which stands for the default.
fn parse_intervals(
    values: &[prost_types::Duration],
    floor: Duration,
    violations: &mut Violations,
) -> Option<Vec<Duration>> {
    if values.len() > MAX_RETRY_INTERVALS {
        violations.add("settings.retry_intervals", format!("must be at most {MAX_RETRY_INTERVALS}"));
        return None;
    }
    let mut intervals = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let interval = within(*value, &(floor..=MAX_RETRY_INTERVAL));
        let rule = || format!("must be {}s to {}s", floor.as_secs_f64(), MAX_RETRY_INTERVAL.as_secs());
        let field = format!("settings.retry_intervals[{index}]");
        intervals.extend(violations.take(&field, interval.ok_or_else(rule)));
    }
    (!intervals.is_empty()).then_some(intervals)
}
