//! Settings of a site: what is stored, the defaults, and what counts.

use std::time::Duration;

use time::OffsetDateTime;

use super::log::LogLevel;
use super::log::rotation::RewritePeriod;
use super::site::SiteId;

/// `connection_timeout` where the site sets none.
pub const DEFAULT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds of `connection_timeout`.
pub const CONNECTION_TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_mins(10);
/// Most intervals a site may set.
pub const MAX_RETRY_INTERVALS: usize = 32;
/// Longest interval between two attempts.
pub const MAX_RETRY_INTERVAL: Duration = Duration::from_hours(720);

/// Hours, or half an hour for the first, between the attempts where the site sets none: five days, as RFC 5321 4.5.4.1
/// asks for.
const DEFAULT_RETRY_MINUTES: [u64; 9] = [30, 60, 120, 240, 480, 960, 1440, 1440, 1440];

/// Size in MiB past which a log begins afresh where the site sets none.
pub const DEFAULT_LOG_MAX_SIZE_MIB: u32 = 10;
/// Largest `log_max_size_mib`: a TiB.
pub const MAX_LOG_MAX_SIZE_MIB: u32 = 1024 * 1024;

/// Most letters of one account sent in one go, where the site sets nothing.
pub const DEFAULT_MESSAGES_PER_BATCH: u32 = 100;
/// Bounds of `max_messages_per_batch`.
pub const MESSAGES_PER_BATCH_RANGE: std::ops::RangeInclusive<u32> = 1..=10_000;
/// How long final letters are kept where the site sets nothing.
pub const DEFAULT_MESSAGE_RETENTION: Duration = Duration::from_hours(30 * 24);
/// Bounds of `message_retention`: a week, and a hundred years.
pub const MESSAGE_RETENTION_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_hours(7 * 24)..=Duration::from_hours(100 * 365 * 24);
/// Longest `min_batch_interval`.
pub const MAX_BATCH_INTERVAL: Duration = Duration::from_hours(24);

/// What happens to a letter of which it is not known whether the server took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUncertain {
    /// It is sent again at the next interval, with the same Message-ID.
    #[default]
    Resend,
    /// It is kept until a person decides.
    Hold,
}

/// Which class of accounts is searched first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountPriority {
    /// Those of users.
    #[default]
    UserFirst,
    /// Those of the administrator.
    AdminFirst,
}

/// What a site has set; `None` stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSettings {
    /// Whether the site may send.
    pub enabled: Option<bool>,
    /// Whether accounts of users may be created and changed.
    pub user_accounts_enabled: Option<bool>,
    /// Whether a user's letter through an account of the administrator needs a confirmed sender.
    pub require_confirmed_sender: Option<bool>,
    /// Which class of accounts is searched first.
    pub account_priority: Option<AccountPriority>,
    /// Whether saving an account also sends a test letter.
    pub send_test_on_save: Option<bool>,
    /// Time limit for each reply of a server.
    pub connection_timeout: Option<Duration>,
    /// Whether transcripts are kept.
    pub save_logs: Option<bool>,
    /// How much of a dialogue is kept.
    pub log_level: Option<LogLevel>,
    /// After how long a log begins afresh.
    pub log_rewrite_period: Option<RewritePeriod>,
    /// Size in MiB past which a log begins afresh; 0 for no limit.
    pub log_max_size_mib: Option<u32>,
    /// Waits between attempts.
    pub retry_intervals: Option<Vec<Duration>>,
    /// Letters of one account sent in one go.
    pub max_messages_per_batch: Option<u32>,
    /// From the last start of a batch to the next of the same account.
    pub min_batch_interval: Option<Duration>,
    /// Whether each recipient gets a transaction of his own.
    pub send_in_parts: Option<bool>,
    /// What happens to a letter of which it is not known whether the server took it.
    pub on_uncertain: Option<OnUncertain>,
    /// How long final letters are kept.
    pub message_retention: Option<Duration>,
}

/// Settings of a site as they are stored, with their version.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose they are.
    pub site: SiteId,
    /// What is set.
    pub stored: StoredSettings,
    /// Grows with every change.
    pub version: i64,
    /// Last change.
    pub update_time: Option<OffsetDateTime>,
}

impl StoredSettings {
    /// Whether the site may send and change accounts.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Whether accounts of users may be created and changed.
    #[must_use]
    pub fn user_accounts_enabled(&self) -> bool {
        self.user_accounts_enabled.unwrap_or(true)
    }

    /// Whether a user's letter through an account of the administrator needs a confirmed sender.
    #[must_use]
    pub fn require_confirmed_sender(&self) -> bool {
        self.require_confirmed_sender.unwrap_or(true)
    }

    /// Which class of accounts is searched first.
    #[must_use]
    pub fn account_priority(&self) -> AccountPriority {
        self.account_priority.unwrap_or_default()
    }

    /// Whether saving an account also sends a test letter.
    #[must_use]
    pub fn send_test_on_save(&self) -> bool {
        self.send_test_on_save.unwrap_or(false)
    }

    /// Time limit for each reply of a server.
    #[must_use]
    pub fn connection_timeout(&self) -> Duration {
        self.connection_timeout.unwrap_or(DEFAULT_CONNECTION_TIMEOUT)
    }

    /// Whether transcripts are kept.
    #[must_use]
    pub fn save_logs(&self) -> bool {
        self.save_logs.unwrap_or(true)
    }

    /// How much of a dialogue is kept.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.log_level.unwrap_or_default()
    }

    /// After how long a log begins afresh, counted from the last change of its account.
    #[must_use]
    pub fn log_rewrite_period(&self) -> RewritePeriod {
        self.log_rewrite_period.unwrap_or_default()
    }

    /// Size in MiB past which a log begins afresh; 0 for no limit.
    #[must_use]
    pub fn log_max_size_mib(&self) -> u32 {
        self.log_max_size_mib.unwrap_or(DEFAULT_LOG_MAX_SIZE_MIB)
    }

    /// The names of the settings of which not the same counts here as there, defaults being written out or not.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self {
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
        } = self.written_out();
        let other = other.written_out();
        let settings = [
            ("enabled", enabled != other.enabled),
            ("user_accounts_enabled", user_accounts_enabled != other.user_accounts_enabled),
            ("require_confirmed_sender", require_confirmed_sender != other.require_confirmed_sender),
            ("account_priority", account_priority != other.account_priority),
            ("send_test_on_save", send_test_on_save != other.send_test_on_save),
            ("connection_timeout", connection_timeout != other.connection_timeout),
            ("save_logs", save_logs != other.save_logs),
            ("log_level", log_level != other.log_level),
            ("log_rewrite_period", log_rewrite_period != other.log_rewrite_period),
            ("log_max_size_mib", log_max_size_mib != other.log_max_size_mib),
            ("retry_intervals", retry_intervals != other.retry_intervals),
            ("max_messages_per_batch", max_messages_per_batch != other.max_messages_per_batch),
            ("min_batch_interval", min_batch_interval != other.min_batch_interval),
            ("send_in_parts", send_in_parts != other.send_in_parts),
            ("on_uncertain", on_uncertain != other.on_uncertain),
            ("message_retention", message_retention != other.message_retention),
        ];
        settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    /// The same with every default written out.
    fn written_out(&self) -> Self {
        Self {
            enabled: Some(self.enabled()),
            user_accounts_enabled: Some(self.user_accounts_enabled()),
            require_confirmed_sender: Some(self.require_confirmed_sender()),
            account_priority: Some(self.account_priority()),
            send_test_on_save: Some(self.send_test_on_save()),
            connection_timeout: Some(self.connection_timeout()),
            save_logs: Some(self.save_logs()),
            log_level: Some(self.log_level()),
            log_rewrite_period: Some(self.log_rewrite_period()),
            log_max_size_mib: Some(self.log_max_size_mib()),
            retry_intervals: Some(self.retry_intervals()),
            max_messages_per_batch: Some(self.max_messages_per_batch()),
            min_batch_interval: Some(self.min_batch_interval()),
            send_in_parts: Some(self.send_in_parts()),
            on_uncertain: Some(self.on_uncertain()),
            message_retention: Some(self.message_retention()),
        }
    }

    /// Waits between attempts.
    #[must_use]
    pub fn retry_intervals(&self) -> Vec<Duration> {
        self.retry_intervals.clone().unwrap_or_else(|| {
            DEFAULT_RETRY_MINUTES.iter().map(|minutes| Duration::from_secs(minutes * 60)).collect()
        })
    }

    /// Letters of one account sent in one go.
    #[must_use]
    pub fn max_messages_per_batch(&self) -> u32 {
        self.max_messages_per_batch.unwrap_or(DEFAULT_MESSAGES_PER_BATCH)
    }

    /// From the last start of a batch to the next of the same account, across replicas.
    #[must_use]
    pub fn min_batch_interval(&self) -> Duration {
        self.min_batch_interval.unwrap_or_default()
    }

    /// Whether each recipient gets a transaction of his own.
    #[must_use]
    pub fn send_in_parts(&self) -> bool {
        self.send_in_parts.unwrap_or(false)
    }

    /// What happens to a letter of which it is not known whether the server took it.
    #[must_use]
    pub fn on_uncertain(&self) -> OnUncertain {
        self.on_uncertain.unwrap_or_default()
    }

    /// How long final letters are kept, with their content.
    #[must_use]
    pub fn message_retention(&self) -> Duration {
        self.message_retention.unwrap_or(DEFAULT_MESSAGE_RETENTION)
    }
}
