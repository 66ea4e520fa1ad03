//! The operator's defaults for the settings of sites: a TOML file with the names of the API's fields, held to the bounds of
//! `UpdateSettings`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use toml::{Table, Value};

use super::ConfigError;
use crate::domain::log::LogLevel;
use crate::domain::log::rotation::RewritePeriod;
use crate::domain::settings::rules::{self, Ruled};
use crate::domain::settings::{
    AccountPriority, EffectiveSettings, OnUncertain, SettingsField, StoredSettings,
};

/// What counts for sites that set nothing.
#[derive(Args, Clone, Debug)]
pub struct SiteDefaultsOptions {
    /// TOML file with the settings that count for every site that sets none of its own
    #[arg(long, env = "POSTROOM_SETTINGS_DEFAULTS", value_name = "FILE")]
    pub settings_defaults: Option<PathBuf>,
}

impl SiteDefaultsOptions {
    /// Reads the file and notes everything that is wrong with it. What it leaves out is as built in, but no wait between two
    /// attempts is below the floor.
    pub(super) fn into_config(
        self,
        retry_floor: Duration,
        errors: &mut Vec<ConfigError>,
    ) -> EffectiveSettings {
        let built_in = EffectiveSettings::default().with_retry_floor(retry_floor);
        let Some(path) = self.settings_defaults.filter(|path| !path.as_os_str().is_empty()) else {
            return built_in;
        };
        let mut wrong = Vec::new();
        let stored = match fs::read_to_string(&path) {
            Ok(text) => parse(&text, retry_floor, &mut wrong),
            Err(error) => {
                wrong.push(error.to_string());
                StoredSettings::default()
            }
        };
        errors.extend(wrong.into_iter().map(|problem| error(&path, problem)));
        built_in.under(&stored)
    }
}

fn error(path: &Path, problem: String) -> ConfigError {
    ConfigError::SettingsDefaults { path: path.to_owned(), problem }
}

/// The settings of a file, and what is wrong with it.
fn parse(text: &str, retry_floor: Duration, wrong: &mut Vec<String>) -> StoredSettings {
    let mut stored = StoredSettings::default();
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            wrong.push(error.to_string().trim_end().to_owned());
            return stored;
        }
    };
    for (key, value) in &table {
        let Some(field) = SettingsField::from_name(key) else {
            wrong.push(format!("`{}` is not a setting", key.escape_debug()));
            continue;
        };
        let mut told = |rule: String| wrong.push(format!("{key} {rule}"));
        match field {
            SettingsField::RetryIntervals => match intervals(value, retry_floor) {
                Ok(intervals) => stored.retry_intervals = Some(intervals),
                Err(rules) => wrong.extend(rules),
            },
            SettingsField::Enabled => set(&mut stored.enabled, boolean(value), &mut told),
            SettingsField::UserAccountsEnabled => {
                set(&mut stored.user_accounts_enabled, boolean(value), &mut told);
            }
            SettingsField::RequireConfirmedSender => {
                set(&mut stored.require_confirmed_sender, boolean(value), &mut told);
            }
            SettingsField::SendTestOnSave => set(&mut stored.send_test_on_save, boolean(value), &mut told),
            SettingsField::SaveLogs => set(&mut stored.save_logs, boolean(value), &mut told),
            SettingsField::SendInParts => set(&mut stored.send_in_parts, boolean(value), &mut told),
            SettingsField::AccountPriority => {
                set(&mut stored.account_priority, choice(value, &PRIORITIES), &mut told);
            }
            SettingsField::LogLevel => set(&mut stored.log_level, choice(value, &LEVELS), &mut told),
            SettingsField::LogRewritePeriod => {
                set(&mut stored.log_rewrite_period, choice(value, &PERIODS), &mut told);
            }
            SettingsField::OnUncertain => {
                set(&mut stored.on_uncertain, choice(value, &WAYS_OF_UNCERTAIN), &mut told);
            }
            SettingsField::ConnectionTimeout => {
                set(&mut stored.connection_timeout, duration(value, rules::connection_timeout), &mut told);
            }
            SettingsField::MinBatchInterval => {
                set(&mut stored.min_batch_interval, duration(value, rules::min_batch_interval), &mut told);
            }
            SettingsField::MessageRetention => {
                set(&mut stored.message_retention, duration(value, rules::message_retention), &mut told);
            }
            SettingsField::LogMaxSizeMib => {
                set(&mut stored.log_max_size_mib, number(value, rules::log_max_size_mib), &mut told);
            }
            SettingsField::MaxMessagesPerBatch => {
                let value = number(value, rules::max_messages_per_batch);
                set(&mut stored.max_messages_per_batch, value, &mut told);
            }
        }
    }
    stored
}

const PRIORITIES: [(&str, AccountPriority); 2] =
    [("USER_FIRST", AccountPriority::UserFirst), ("ADMIN_FIRST", AccountPriority::AdminFirst)];
const LEVELS: [(&str, LogLevel); 4] = [
    ("CLIENT", LogLevel::Client),
    ("CLIENT_SERVER", LogLevel::ClientServer),
    ("CONNECTION", LogLevel::Connection),
    ("LOW_LEVEL", LogLevel::LowLevel),
];
const PERIODS: [(&str, RewritePeriod); 4] = [
    ("DAY", RewritePeriod::Day),
    ("WEEK", RewritePeriod::Week),
    ("MONTH", RewritePeriod::Month),
    ("YEAR", RewritePeriod::Year),
];
const WAYS_OF_UNCERTAIN: [(&str, OnUncertain); 2] =
    [("RESEND", OnUncertain::Resend), ("HOLD", OnUncertain::Hold)];

fn set<T>(place: &mut Option<T>, value: Ruled<T>, told: &mut impl FnMut(String)) {
    match value {
        Ok(value) => *place = Some(value),
        Err(rule) => told(rule),
    }
}

fn boolean(value: &Value) -> Ruled<bool> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Ruled<T> {
    let chosen = value.as_str().and_then(|name| choices.iter().find(|(known, _)| *known == name));
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn number(value: &Value, rule: impl FnOnce(u32) -> Ruled<u32>) -> Ruled<u32> {
    let number = value.as_integer().ok_or("must be a whole number")?;
    // What is too large or negative breaks every rule as the largest one does.
    rule(u32::try_from(number).unwrap_or(u32::MAX))
}

fn duration(value: &Value, rule: impl FnOnce(Duration) -> Ruled<Duration>) -> Ruled<Duration> {
    let text = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    rule(text.ok_or("must be a duration in quotes, such as \"90s\", \"30m\", \"7d\"")?)
}

fn intervals(value: &Value, floor: Duration) -> Result<Vec<Duration>, Vec<String>> {
    let name = SettingsField::RetryIntervals.name();
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        vec![format!("{name} must be a list of one duration or more, such as [\"30m\", \"1h\"]")]
    })?;
    rules::retry_interval_count(list.len()).map_err(|rule| vec![format!("{name} {rule}")])?;
    let (mut intervals, mut wrong) = (Vec::new(), Vec::new());
    for (index, value) in list.iter().enumerate() {
        match duration(value, |interval| rules::retry_interval(interval, floor)) {
            Ok(interval) => intervals.push(interval),
            Err(rule) => wrong.push(format!("{name}[{index}] {rule}")),
        }
    }
    if wrong.is_empty() { Ok(intervals) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_mins(30);

    fn read(text: &str) -> Result<StoredSettings, Vec<String>> {
        let mut wrong = Vec::new();
        let stored = parse(text, FLOOR, &mut wrong);
        if wrong.is_empty() { Ok(stored) } else { Err(wrong) }
    }

    #[test]
    fn every_field_can_be_given() {
        let text = r#"
            enabled = false
            user_accounts_enabled = false
            require_confirmed_sender = false
            account_priority = "ADMIN_FIRST"
            send_test_on_save = true
            connection_timeout = "20s"
            save_logs = false
            log_level = "LOW_LEVEL"
            log_rewrite_period = "YEAR"
            log_max_size_mib = 0
            retry_intervals = ["30m", "1h 30m"]
            max_messages_per_batch = 7
            min_batch_interval = "90s"
            send_in_parts = true
            on_uncertain = "HOLD"
            message_retention = "7d"
        "#;
        let read = read(text).unwrap();
        let expected = StoredSettings {
            enabled: Some(false),
            user_accounts_enabled: Some(false),
            require_confirmed_sender: Some(false),
            account_priority: Some(AccountPriority::AdminFirst),
            send_test_on_save: Some(true),
            connection_timeout: Some(Duration::from_secs(20)),
            save_logs: Some(false),
            log_level: Some(LogLevel::LowLevel),
            log_rewrite_period: Some(RewritePeriod::Year),
            log_max_size_mib: Some(0),
            retry_intervals: Some(vec![Duration::from_mins(30), Duration::from_mins(90)]),
            max_messages_per_batch: Some(7),
            min_batch_interval: Some(Duration::from_secs(90)),
            send_in_parts: Some(true),
            on_uncertain: Some(OnUncertain::Hold),
            message_retention: Some(Duration::from_hours(7 * 24)),
        };
        assert_eq!(read, expected);
        assert_eq!(super::tests::read(""), Ok(StoredSettings::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("enabled = 1", "enabled must be true or false"),
            ("save_logs = \"yes\"", "save_logs must be true or false"),
            ("enable = true", "`enable` is not a setting"),
            ("name = \"sites/a/settings\"", "`name` is not a setting"),
            ("etag = \"x\"", "`etag` is not a setting"),
            ("[settings]\nenabled = true", "`settings` is not a setting"),
            ("log_level = \"LOUD\"", "log_level must be one of \"CLIENT\", \"CLIENT_SERVER\""),
            ("log_level = \"connection\"", "log_level must be one of"),
            ("log_level = 3", "log_level must be one of"),
            ("account_priority = \"\"", "account_priority must be one of \"USER_FIRST\""),
            ("on_uncertain = \"KEEP\"", "on_uncertain must be one of \"RESEND\", \"HOLD\""),
            ("log_rewrite_period = \"HOUR\"", "log_rewrite_period must be one of \"DAY\""),
            ("connection_timeout = 20", "connection_timeout must be a duration in quotes"),
            ("connection_timeout = \"soon\"", "connection_timeout must be a duration in quotes"),
            ("connection_timeout = \"999ms\"", "connection_timeout must be 1s to 600s"),
            ("connection_timeout = \"11m\"", "connection_timeout must be 1s to 600s"),
            ("min_batch_interval = \"25h\"", "min_batch_interval must be 0s to 86400s"),
            ("message_retention = \"6d\"", "message_retention must be 604800s"),
            ("log_max_size_mib = -1", "log_max_size_mib must be 0 to 1048576"),
            ("log_max_size_mib = 1048577", "log_max_size_mib must be 0 to 1048576"),
            ("log_max_size_mib = 1.5", "log_max_size_mib must be a whole number"),
            ("max_messages_per_batch = 0", "max_messages_per_batch must be 1 to 10000"),
            ("max_messages_per_batch = 99999999999", "max_messages_per_batch must be 1 to 10000"),
            ("retry_intervals = []", "retry_intervals must be a list of one duration or more"),
            ("retry_intervals = \"30m\"", "retry_intervals must be a list of one duration or more"),
            ("retry_intervals = [\"1h\", \"29m\"]", "retry_intervals[1] must be 1800s to 2592000s"),
            ("retry_intervals = [\"1h\", 3]", "retry_intervals[1] must be a duration in quotes"),
            ("enabled", "line 1"),
            ("enabled = true\nenabled = false", "duplicate key"),
        ] {
            let wrong = read(text).expect_err(text);
            assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
            assert!(wrong[0].contains(expected), "{text}: {wrong:?}");
        }
        let many = format!("retry_intervals = [{}]", "\"1h\",".repeat(33));
        assert_eq!(read(&many), Err(vec!["retry_intervals must be at most 32".to_owned()]));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = read("a = 1\nenabled = 2\nretry_intervals = [\"1s\", \"1h\", \"2s\"]").unwrap_err();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }
}
