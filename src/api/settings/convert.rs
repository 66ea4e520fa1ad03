//! Sites and settings as they are answered, and the choices a setting has.

use crate::api::fields;
use crate::api::proto::{
    AccountPriority as ProtoPriority, LogLevel as ProtoLogLevel, LogRewritePeriod as ProtoPeriod,
    OnUncertain as ProtoUncertain, Settings as ProtoSettings, Site as ProtoSite,
};
use crate::domain::log::LogLevel;
use crate::domain::log::rotation::RewritePeriod;
use crate::domain::settings::{AccountPriority, EffectiveSettings, OnUncertain, Settings};
use crate::domain::site::Site;

/// A site as it is answered.
pub(super) fn site(site: Site) -> ProtoSite {
    ProtoSite {
        name: site.id.name(),
        display_name: site.display_name,
        create_time: Some(fields::to_timestamp(site.create_time)),
    }
}

/// Settings as they are answered: every default written out.
pub(super) fn settings(settings: &Settings) -> ProtoSettings {
    let Settings { site, stored: _, effective, version, update_time } = settings;
    let EffectiveSettings {
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
    } = effective;
    ProtoSettings {
        name: format!("{}/settings", site.name()),
        enabled: Some(*enabled),
        user_accounts_enabled: Some(*user_accounts_enabled),
        require_confirmed_sender: Some(*require_confirmed_sender),
        account_priority: Some(priority_to_proto(*account_priority).into()),
        send_test_on_save: Some(*send_test_on_save),
        connection_timeout: Some(fields::to_duration(*connection_timeout)),
        save_logs: Some(*save_logs),
        log_level: Some(level_to_proto(*log_level).into()),
        log_rewrite_period: Some(period_to_proto(*log_rewrite_period).into()),
        log_max_size_mib: Some(*log_max_size_mib),
        retry_intervals: retry_intervals.iter().copied().map(fields::to_duration).collect(),
        max_messages_per_batch: Some(*max_messages_per_batch),
        min_batch_interval: Some(fields::to_duration(*min_batch_interval)),
        send_in_parts: Some(*send_in_parts),
        on_uncertain: Some(uncertainty_to_proto(*on_uncertain).into()),
        message_retention: Some(fields::to_duration(*message_retention)),
        etag: fields::etag(ETAG, *version),
        update_time: update_time.map(fields::to_timestamp),
    }
}

/// What the etags of settings begin with.
pub(super) const ETAG: &str = "settings";

/// The level; `None` for the default.
pub(super) const fn level_from_proto(level: ProtoLogLevel) -> Option<LogLevel> {
    match level {
        ProtoLogLevel::Unspecified => None,
        ProtoLogLevel::Client => Some(LogLevel::Client),
        ProtoLogLevel::ClientServer => Some(LogLevel::ClientServer),
        ProtoLogLevel::Connection => Some(LogLevel::Connection),
        ProtoLogLevel::LowLevel => Some(LogLevel::LowLevel),
    }
}

/// The priority; `None` for the default.
pub(super) const fn priority_from_proto(priority: ProtoPriority) -> Option<AccountPriority> {
    match priority {
        ProtoPriority::Unspecified => None,
        ProtoPriority::UserFirst => Some(AccountPriority::UserFirst),
        ProtoPriority::AdminFirst => Some(AccountPriority::AdminFirst),
    }
}

const fn priority_to_proto(priority: AccountPriority) -> ProtoPriority {
    match priority {
        AccountPriority::UserFirst => ProtoPriority::UserFirst,
        AccountPriority::AdminFirst => ProtoPriority::AdminFirst,
    }
}

const fn level_to_proto(level: LogLevel) -> ProtoLogLevel {
    match level {
        LogLevel::Client => ProtoLogLevel::Client,
        LogLevel::ClientServer => ProtoLogLevel::ClientServer,
        LogLevel::Connection => ProtoLogLevel::Connection,
        LogLevel::LowLevel => ProtoLogLevel::LowLevel,
    }
}

/// What happens to an uncertain letter; `None` for the default.
pub(super) const fn uncertainty_from_proto(on_uncertain: ProtoUncertain) -> Option<OnUncertain> {
    match on_uncertain {
        ProtoUncertain::Unspecified => None,
        ProtoUncertain::Resend => Some(OnUncertain::Resend),
        ProtoUncertain::Hold => Some(OnUncertain::Hold),
    }
}

const fn uncertainty_to_proto(on_uncertain: OnUncertain) -> ProtoUncertain {
    match on_uncertain {
        OnUncertain::Resend => ProtoUncertain::Resend,
        OnUncertain::Hold => ProtoUncertain::Hold,
    }
}

/// After how long a log begins afresh; `None` for the default.
pub(super) const fn period_from_proto(period: ProtoPeriod) -> Option<RewritePeriod> {
    match period {
        ProtoPeriod::Unspecified => None,
        ProtoPeriod::Day => Some(RewritePeriod::Day),
        ProtoPeriod::Week => Some(RewritePeriod::Week),
        ProtoPeriod::Month => Some(RewritePeriod::Month),
        ProtoPeriod::Year => Some(RewritePeriod::Year),
    }
}

const fn period_to_proto(period: RewritePeriod) -> ProtoPeriod {
    match period {
        RewritePeriod::Day => ProtoPeriod::Day,
        RewritePeriod::Week => ProtoPeriod::Week,
        RewritePeriod::Month => ProtoPeriod::Month,
        RewritePeriod::Year => ProtoPeriod::Year,
    }
}
