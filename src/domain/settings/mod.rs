//! Settings of a site: what somebody has set (`StoredSettings`), what counts (`EffectiveSettings`), and the bounds of each
//! field (`rules`).

mod effective;
mod field;
pub mod rules;

use std::time::Duration;

use time::OffsetDateTime;

pub use self::effective::EffectiveSettings;
pub use self::field::SettingsField;
use super::log::LogLevel;
use super::log::rotation::RewritePeriod;
use super::site::SiteId;

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

/// What somebody has set, a site or the operator for all of them; `None` where nothing is.
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

/// Settings of a site, with their version.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose they are.
    pub site: SiteId,
    /// What the site has set.
    pub stored: StoredSettings,
    /// What counts: the operator's defaults where the site has set nothing.
    pub effective: EffectiveSettings,
    /// Grows with every change of what counts.
    pub version: i64,
    /// Last change.
    pub update_time: Option<OffsetDateTime>,
}
