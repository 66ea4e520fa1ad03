//! The fields of settings by name, so that a mask, a list of paths and a note tell them apart.

use super::StoredSettings;

/// A field that a site may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described in `StoredSettings`")]
pub enum SettingsField {
    Enabled,
    UserAccountsEnabled,
    RequireConfirmedSender,
    AccountPriority,
    SendTestOnSave,
    ConnectionTimeout,
    SaveLogs,
    LogLevel,
    LogRewritePeriod,
    LogMaxSizeMib,
    RetryIntervals,
    MaxMessagesPerBatch,
    MinBatchInterval,
    SendInParts,
    OnUncertain,
    MessageRetention,
}

impl SettingsField {
    /// All of them, in the order of the proto.
    pub const ALL: [Self; 16] = [
        Self::Enabled,
        Self::UserAccountsEnabled,
        Self::RequireConfirmedSender,
        Self::AccountPriority,
        Self::SendTestOnSave,
        Self::ConnectionTimeout,
        Self::SaveLogs,
        Self::LogLevel,
        Self::LogRewritePeriod,
        Self::LogMaxSizeMib,
        Self::RetryIntervals,
        Self::MaxMessagesPerBatch,
        Self::MinBatchInterval,
        Self::SendInParts,
        Self::OnUncertain,
        Self::MessageRetention,
    ];

    /// The name, as masks have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::UserAccountsEnabled => "user_accounts_enabled",
            Self::RequireConfirmedSender => "require_confirmed_sender",
            Self::AccountPriority => "account_priority",
            Self::SendTestOnSave => "send_test_on_save",
            Self::ConnectionTimeout => "connection_timeout",
            Self::SaveLogs => "save_logs",
            Self::LogLevel => "log_level",
            Self::LogRewritePeriod => "log_rewrite_period",
            Self::LogMaxSizeMib => "log_max_size_mib",
            Self::RetryIntervals => "retry_intervals",
            Self::MaxMessagesPerBatch => "max_messages_per_batch",
            Self::MinBatchInterval => "min_batch_interval",
            Self::SendInParts => "send_in_parts",
            Self::OnUncertain => "on_uncertain",
            Self::MessageRetention => "message_retention",
        }
    }

    /// The field of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

impl StoredSettings {
    /// Sets this field as it is set there, or not.
    pub fn copy(&mut self, field: SettingsField, from: &Self) {
        match field {
            SettingsField::Enabled => self.enabled = from.enabled,
            SettingsField::UserAccountsEnabled => self.user_accounts_enabled = from.user_accounts_enabled,
            SettingsField::RequireConfirmedSender => {
                self.require_confirmed_sender = from.require_confirmed_sender;
            }
            SettingsField::AccountPriority => self.account_priority = from.account_priority,
            SettingsField::SendTestOnSave => self.send_test_on_save = from.send_test_on_save,
            SettingsField::ConnectionTimeout => self.connection_timeout = from.connection_timeout,
            SettingsField::SaveLogs => self.save_logs = from.save_logs,
            SettingsField::LogLevel => self.log_level = from.log_level,
            SettingsField::LogRewritePeriod => self.log_rewrite_period = from.log_rewrite_period,
            SettingsField::LogMaxSizeMib => self.log_max_size_mib = from.log_max_size_mib,
            SettingsField::RetryIntervals => self.retry_intervals.clone_from(&from.retry_intervals),
            SettingsField::MaxMessagesPerBatch => self.max_messages_per_batch = from.max_messages_per_batch,
            SettingsField::MinBatchInterval => self.min_batch_interval = from.min_batch_interval,
            SettingsField::SendInParts => self.send_in_parts = from.send_in_parts,
            SettingsField::OnUncertain => self.on_uncertain = from.on_uncertain,
            SettingsField::MessageRetention => self.message_retention = from.message_retention,
        }
    }
}
