//! The bounds of the fields of settings: the same for `UpdateSettings` and for the operator's defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

const CONNECTION_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
/// Up to a TiB.
const LOG_MAX_SIZE_MIB: RangeInclusive<u32> = 0..=1024 * 1024;
const MESSAGES_PER_BATCH: RangeInclusive<u32> = 1..=10_000;
const BATCH_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
/// A week to a hundred years.
const MESSAGE_RETENTION: RangeInclusive<Duration> =
    Duration::from_hours(7 * 24)..=Duration::from_hours(100 * 365 * 24);
/// Most intervals that may be set.
const MAX_RETRY_INTERVALS: usize = 32;
/// Longest interval between two attempts.
const MAX_RETRY_INTERVAL: Duration = Duration::from_hours(720);

/// A value that keeps the rule, or the rule.
pub type Ruled<T> = Result<T, String>;

/// A time limit for each reply of a server.
///
/// # Errors
/// The rule.
pub fn connection_timeout(value: Duration) -> Ruled<Duration> {
    within(value, &CONNECTION_TIMEOUT, "must be 1s to 600s")
}

/// A size in MiB past which a log begins afresh.
///
/// # Errors
/// The rule.
pub fn log_max_size_mib(value: u32) -> Ruled<u32> {
    within(value, &LOG_MAX_SIZE_MIB, "must be 0 to 1048576")
}

/// A number of letters that are sent in one go.
///
/// # Errors
/// The rule.
pub fn max_messages_per_batch(value: u32) -> Ruled<u32> {
    within(value, &MESSAGES_PER_BATCH, "must be 1 to 10000")
}

/// A wait from one batch to the next.
///
/// # Errors
/// The rule.
pub fn min_batch_interval(value: Duration) -> Ruled<Duration> {
    within(value, &BATCH_INTERVAL, "must be 0s to 86400s")
}

/// How long final letters are kept.
///
/// # Errors
/// The rule.
pub fn message_retention(value: Duration) -> Ruled<Duration> {
    within(value, &MESSAGE_RETENTION, "must be 604800s (7 days) to 3153600000s (36,500 days)")
}

/// A wait between two attempts, with the operator's floor.
///
/// # Errors
/// The rule.
pub fn retry_interval(value: Duration, floor: Duration) -> Ruled<Duration> {
    let rule = format!("must be {}s to {}s", floor.as_secs_f64(), MAX_RETRY_INTERVAL.as_secs());
    within(value, &(floor..=MAX_RETRY_INTERVAL), &rule)
}

/// A number of waits between attempts.
///
/// # Errors
/// The rule.
pub fn retry_interval_count(count: usize) -> Ruled<usize> {
    within(count, &(0..=MAX_RETRY_INTERVALS), &format!("must be at most {MAX_RETRY_INTERVALS}"))
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, rule: &str) -> Ruled<T> {
    if range.contains(&value) { Ok(value) } else { Err(rule.to_owned()) }
}
