//! What counts for a site.

use std::time::Duration;

use super::{AccountPriority, OnUncertain, SettingsField, StoredSettings};
use crate::domain::log::LogLevel;
use crate::domain::log::rotation::RewritePeriod;

/// Half an hour, then hours, between the attempts where nobody sets any: five days, as RFC 5321 4.5.4.1 asks for.
const RETRY_MINUTES: [u64; 9] = [30, 60, 120, 240, 480, 960, 1440, 1440, 1440];

/// What counts for a site, every field of it. As a default for all sites: what counts where a site has set nothing.
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings that are independent of one another, as the proto has them"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// Whether the site may send and change accounts.
    pub enabled: bool,
    /// Whether accounts of users may be created and changed.
    pub user_accounts_enabled: bool,
    /// Whether a user's letter through an account of the administrator needs a confirmed sender.
    pub require_confirmed_sender: bool,
    /// Which class of accounts is searched first.
    pub account_priority: AccountPriority,
    /// Whether saving an account also sends a test letter.
    pub send_test_on_save: bool,
    /// Time limit for each reply of a server.
    pub connection_timeout: Duration,
    /// Whether transcripts are kept.
    pub save_logs: bool,
    /// How much of a dialogue is kept.
    pub log_level: LogLevel,
    /// After how long a log begins afresh, counted from the last change of its account.
    pub log_rewrite_period: RewritePeriod,
    /// Size in MiB past which a log begins afresh; 0 for no limit.
    pub log_max_size_mib: u32,
    /// Waits between attempts.
    pub retry_intervals: Vec<Duration>,
    /// Letters of one account sent in one go.
    pub max_messages_per_batch: u32,
    /// From the last start of a batch to the next of the same account, across replicas.
    pub min_batch_interval: Duration,
    /// Whether each recipient gets a transaction of his own.
    pub send_in_parts: bool,
    /// What happens to a letter of which it is not known whether the server took it.
    pub on_uncertain: OnUncertain,
    /// How long final letters are kept, with their content.
    pub message_retention: Duration,
}

impl Default for EffectiveSettings {
    /// What counts where neither the site nor the operator has set anything (API 3).
    fn default() -> Self {
        Self {
            enabled: true,
            user_accounts_enabled: true,
            require_confirmed_sender: true,
            account_priority: AccountPriority::UserFirst,
            send_test_on_save: false,
            connection_timeout: Duration::from_secs(10),
            save_logs: true,
            log_level: LogLevel::ClientServer,
            log_rewrite_period: RewritePeriod::Day,
            log_max_size_mib: 10,
            retry_intervals: RETRY_MINUTES.map(Duration::from_mins).to_vec(),
            max_messages_per_batch: 100,
            min_batch_interval: Duration::ZERO,
            send_in_parts: false,
            on_uncertain: OnUncertain::Resend,
            message_retention: Duration::from_hours(30 * 24),
        }
    }
}

impl EffectiveSettings {
    /// What counts where `stored` is set, and these settings are the default.
    #[must_use]
    pub fn under(&self, stored: &StoredSettings) -> Self {
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
        Self {
            enabled: enabled.unwrap_or(self.enabled),
            user_accounts_enabled: user_accounts_enabled.unwrap_or(self.user_accounts_enabled),
            require_confirmed_sender: require_confirmed_sender.unwrap_or(self.require_confirmed_sender),
            account_priority: account_priority.unwrap_or(self.account_priority),
            send_test_on_save: send_test_on_save.unwrap_or(self.send_test_on_save),
            connection_timeout: connection_timeout.unwrap_or(self.connection_timeout),
            save_logs: save_logs.unwrap_or(self.save_logs),
            log_level: log_level.unwrap_or(self.log_level),
            log_rewrite_period: log_rewrite_period.unwrap_or(self.log_rewrite_period),
            log_max_size_mib: log_max_size_mib.unwrap_or(self.log_max_size_mib),
            retry_intervals: retry_intervals.as_ref().unwrap_or(&self.retry_intervals).clone(),
            max_messages_per_batch: max_messages_per_batch.unwrap_or(self.max_messages_per_batch),
            min_batch_interval: min_batch_interval.unwrap_or(self.min_batch_interval),
            send_in_parts: send_in_parts.unwrap_or(self.send_in_parts),
            on_uncertain: on_uncertain.unwrap_or(self.on_uncertain),
            message_retention: message_retention.unwrap_or(self.message_retention),
        }
    }

    /// The fields of which not the same counts here as there.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<SettingsField> {
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
        } = self;
        let fields = [
            (SettingsField::Enabled, *enabled != other.enabled),
            (SettingsField::UserAccountsEnabled, *user_accounts_enabled != other.user_accounts_enabled),
            (
                SettingsField::RequireConfirmedSender,
                *require_confirmed_sender != other.require_confirmed_sender,
            ),
            (SettingsField::AccountPriority, *account_priority != other.account_priority),
            (SettingsField::SendTestOnSave, *send_test_on_save != other.send_test_on_save),
            (SettingsField::ConnectionTimeout, *connection_timeout != other.connection_timeout),
            (SettingsField::SaveLogs, *save_logs != other.save_logs),
            (SettingsField::LogLevel, *log_level != other.log_level),
            (SettingsField::LogRewritePeriod, *log_rewrite_period != other.log_rewrite_period),
            (SettingsField::LogMaxSizeMib, *log_max_size_mib != other.log_max_size_mib),
            (SettingsField::RetryIntervals, *retry_intervals != other.retry_intervals),
            (SettingsField::MaxMessagesPerBatch, *max_messages_per_batch != other.max_messages_per_batch),
            (SettingsField::MinBatchInterval, *min_batch_interval != other.min_batch_interval),
            (SettingsField::SendInParts, *send_in_parts != other.send_in_parts),
            (SettingsField::OnUncertain, *on_uncertain != other.on_uncertain),
            (SettingsField::MessageRetention, *message_retention != other.message_retention),
        ];
        fields.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    /// The same with no wait between two attempts below `floor`: what is built in gives way to an operator who wants longer
    /// waits than that.
    #[must_use]
    pub fn with_retry_floor(self, floor: Duration) -> Self {
        let retry_intervals = self.retry_intervals.into_iter().map(|interval| interval.max(floor)).collect();
        Self { retry_intervals, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_counts_and_the_default_elsewhere() {
        let defaults = EffectiveSettings { save_logs: false, ..EffectiveSettings::default() };
        assert_eq!(defaults.under(&StoredSettings::default()), defaults);
        let stored = StoredSettings { log_max_size_mib: Some(0), ..StoredSettings::default() };
        let counts = defaults.under(&stored);
        assert_eq!((counts.log_max_size_mib, counts.save_logs), (0, false));
        assert_eq!(counts.differences(&defaults), [SettingsField::LogMaxSizeMib]);
        assert!(counts.differences(&counts).is_empty());
    }

    #[test]
    fn each_field_is_copied_and_told_apart() {
        let defaults = EffectiveSettings::default();
        let other = StoredSettings {
            enabled: Some(false),
            user_accounts_enabled: Some(false),
            require_confirmed_sender: Some(false),
            account_priority: Some(AccountPriority::AdminFirst),
            send_test_on_save: Some(true),
            connection_timeout: Some(Duration::from_secs(1)),
            save_logs: Some(false),
            log_level: Some(LogLevel::Client),
            log_rewrite_period: Some(RewritePeriod::Year),
            log_max_size_mib: Some(1),
            retry_intervals: Some(vec![Duration::from_hours(1)]),
            max_messages_per_batch: Some(1),
            min_batch_interval: Some(Duration::from_secs(1)),
            send_in_parts: Some(true),
            on_uncertain: Some(OnUncertain::Hold),
            message_retention: Some(Duration::from_hours(7 * 24)),
        };
        let mut all = StoredSettings::default();
        for field in SettingsField::ALL {
            assert_eq!(SettingsField::from_name(field.name()), Some(field));
            let mut one = StoredSettings::default();
            one.copy(field, &other);
            assert_eq!(defaults.under(&one).differences(&defaults), [field]);
            all.copy(field, &other);
        }
        assert_eq!(all, other);
    }

    #[test]
    fn built_in_waits_give_way_to_the_floor() {
        let waits = |floor| EffectiveSettings::default().with_retry_floor(floor).retry_intervals;
        assert_eq!(waits(Duration::ZERO), EffectiveSettings::default().retry_intervals);
        let raised = waits(Duration::from_hours(3));
        assert_eq!(raised[..4], [3, 3, 3, 4].map(Duration::from_hours));
        assert_eq!(raised[8], Duration::from_hours(24));
    }
}
