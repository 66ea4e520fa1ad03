//! The limits of accounts, as callers say them and as they are answered.

use std::ops::RangeInclusive;

use crate::api::fields::Violations;
use crate::api::proto::Limits as ProtoLimits;
use crate::domain::limits::{
    DEFAULT_CONNECTIONS, DEFAULT_RECIPIENTS, Limits, MAX_CONNECTIONS, MAX_COUNT, MAX_RECIPIENTS,
    MAX_RESERVE_PERCENT,
};

/// How the path of a single limit begins.
const PREFIX: &str = "limits.";

/// A single limit in a message.
type Field = fn(&mut ProtoLimits) -> &mut Option<u32>;

/// The single limits by their names.
const FIELDS: [(&str, Field); 7] = [
    ("per_minute", |limits| &mut limits.per_minute),
    ("per_hour", |limits| &mut limits.per_hour),
    ("per_day", |limits| &mut limits.per_day),
    ("recipients_per_day", |limits| &mut limits.recipients_per_day),
    ("max_connections", |limits| &mut limits.max_connections),
    ("max_recipients", |limits| &mut limits.max_recipients),
    ("reserve_percent", |limits| &mut limits.reserve_percent),
];

/// Whether a path of an update mask names a single limit.
pub(super) fn is_path(path: &str) -> bool {
    field(path).is_some()
}

/// The limit of a path such as `limits.per_minute`.
fn field(path: &str) -> Option<Field> {
    let name = path.strip_prefix(PREFIX)?;
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
}

/// The current limits with those that the paths name taken from the change; one without a value gets its default.
pub(super) fn merge(
    current: Option<ProtoLimits>,
    change: Option<ProtoLimits>,
    paths: &[String],
) -> ProtoLimits {
    let (mut merged, mut change) = (current.unwrap_or_default(), change.unwrap_or_default());
    for field in paths.iter().filter_map(|path| field(path)) {
        *field(&mut merged) = *field(&mut change);
    }
    merged
}

/// The limits. A default that is written out is the same as none, so that what is read and written back is no change.
pub(super) fn parse(limits: Option<ProtoLimits>, violations: &mut Violations) -> Limits {
    let ProtoLimits {
        per_minute,
        per_hour,
        per_day,
        recipients_per_day,
        max_connections,
        max_recipients,
        reserve_percent,
    } = limits.unwrap_or_default();
    let mut take = |name: &str, limit: Option<u32>, range: RangeInclusive<u32>, default: Option<u32>| {
        if limit.is_some_and(|limit| !range.contains(&limit)) {
            let rule = format!("must be {} to {}", range.start(), range.end());
            violations.add(format!("account.{PREFIX}{name}"), rule);
        }
        limit.filter(|_| limit != default)
    };
    Limits {
        per_minute: take("per_minute", per_minute, 1..=MAX_COUNT, None),
        per_hour: take("per_hour", per_hour, 1..=MAX_COUNT, None),
        per_day: take("per_day", per_day, 1..=MAX_COUNT, None),
        recipients_per_day: take("recipients_per_day", recipients_per_day, 1..=MAX_COUNT, None),
        max_connections: take(
            "max_connections",
            max_connections,
            1..=MAX_CONNECTIONS,
            Some(DEFAULT_CONNECTIONS),
        ),
        max_recipients: take("max_recipients", max_recipients, 1..=MAX_RECIPIENTS, Some(DEFAULT_RECIPIENTS)),
        reserve_percent: take("reserve_percent", reserve_percent, 0..=MAX_RESERVE_PERCENT, Some(0)),
    }
}

/// Limits as they are answered: every default written out.
pub(super) fn to_proto(limits: &Limits) -> ProtoLimits {
    let Limits {
        per_minute,
        per_hour,
        per_day,
        recipients_per_day,
        max_connections: _,
        max_recipients: _,
        reserve_percent,
    } = *limits;
    ProtoLimits {
        per_minute,
        per_hour,
        per_day,
        recipients_per_day,
        max_connections: Some(limits.max_connections()),
        max_recipients: Some(limits.max_recipients()),
        reserve_percent: Some(reserve_percent.unwrap_or_default()),
    }
}
