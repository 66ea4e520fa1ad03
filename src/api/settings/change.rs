//! Changes of settings: what a request asks for, in its ranges, and of which fields.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::convert;
use crate::api::fields::{self, Violations};
use crate::api::proto::Settings as ProtoSettings;
use crate::domain::error::Problem;
use crate::domain::settings::{
    CONNECTION_TIMEOUT_RANGE, MAX_BATCH_INTERVAL, MAX_LOG_MAX_SIZE_MIB, MAX_RETRY_INTERVAL,
    MAX_RETRY_INTERVALS, MESSAGE_RETENTION_RANGE, MESSAGES_PER_BATCH_RANGE, StoredSettings,
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
            ("enabled", enabled.is_some()),
            ("user_accounts_enabled", user_accounts_enabled.is_some()),
            ("require_confirmed_sender", require_confirmed_sender.is_some()),
            ("account_priority", account_priority.is_some()),
            ("send_test_on_save", send_test_on_save.is_some()),
            ("connection_timeout", connection_timeout.is_some()),
            ("save_logs", save_logs.is_some()),
            ("log_level", log_level.is_some()),
            ("log_rewrite_period", log_rewrite_period.is_some()),
            ("log_max_size_mib", log_max_size_mib.is_some()),
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
        let log_size = log_max_size_mib.and_then(|size| {
            let size = Some(size).filter(|size| *size <= MAX_LOG_MAX_SIZE_MIB);
            violations.take("settings.log_max_size_mib", size.ok_or("must be 0 to 1048576"))
        });
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
        check_paths(paths, &present, &mut violations);
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
            log_rewrite_period,
            log_max_size_mib,
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
                "log_rewrite_period" => stored.log_rewrite_period = log_rewrite_period,
                "log_max_size_mib" => stored.log_max_size_mib = log_max_size_mib,
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

/// Refuses paths that are none of these fields. An etag may be named: it is compared, not stored.
fn check_paths(paths: &[String], fields: &[(&'static str, bool)], violations: &mut Violations) {
    for (index, path) in paths.iter().enumerate() {
        let known = ["*", "etag"].contains(&path.as_str()) || fields.iter().any(|(name, _)| name == path);
        if !known {
            let description = format!("`{path}` is not a setting that can be changed");
            violations.add(format!("update_mask.paths[{index}]"), description);
        }
    }
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
