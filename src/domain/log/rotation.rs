//! When a log begins afresh: pure.

use std::time::Duration;

use time::OffsetDateTime;

/// After how long a log begins afresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewritePeriod {
    /// After 24 hours.
    #[default]
    Day,
    /// After 7 days.
    Week,
    /// After 30 days.
    Month,
    /// After 365 days.
    Year,
}

impl RewritePeriod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The period of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }

    const fn duration(self) -> Duration {
        Duration::from_hours(match self {
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30 * 24,
            Self::Year => 365 * 24,
        })
    }
}

/// Why a log began afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCause {
    /// Its period was over.
    Period,
    /// It would have grown past its limit.
    Size,
    /// Its account was changed.
    AccountChanged,
    /// Its account was deleted.
    AccountDeleted,
    /// Somebody cleared it.
    Cleared,
}

impl RestartCause {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Period, Self::Size, Self::AccountChanged, Self::AccountDeleted, Self::Cleared];

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Period => "period",
            Self::Size => "size",
            Self::AccountChanged => "account_changed",
            Self::AccountDeleted => "account_deleted",
            Self::Cleared => "cleared",
        }
    }

    /// The cause of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

/// A log that began afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Why.
    pub cause: RestartCause,
    /// When.
    pub time: OffsetDateTime,
}

/// How long a site's logs go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// After how long one begins afresh.
    pub period: RewritePeriod,
    /// Past how many bytes of text; 0 for no limit.
    pub max_bytes: u64,
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes of its text.
    pub bytes: u64,
    /// When it began, see [`Held::begins`]; `None` where it holds nothing.
    pub first_time: Option<OffsetDateTime>,
    /// The last change of its account, from which periods are counted; without one they are from its first entry.
    pub account_change: Option<OffsetDateTime>,
}

impl Held {
    /// When a log begins whose first entries, the oldest of them of `entry`, are added at `now`. Where periods are counted
    /// from the account's change, that is the moment of adding: an entry that is of the period before, since a session ran
    /// across its end, would soon make the log begin afresh once more.
    #[must_use]
    pub fn begins(&self, now: OffsetDateTime, entry: OffsetDateTime) -> OffsetDateTime {
        if self.account_change.is_some() { now } else { entry }
    }
}

impl Rotation {
    /// Why a log has to begin afresh at `now`, before so many bytes are added; `None` if it goes on.
    #[must_use]
    pub fn due(&self, held: &Held, now: OffsetDateTime, added: u64) -> Option<RestartCause> {
        let Held { bytes, first_time, account_change } = *held;
        if bytes == 0 {
            return None;
        }
        if let Some(first_time) = first_time {
            let base = account_change.unwrap_or(first_time);
            let period = i128::try_from(self.period.duration().as_nanos()).unwrap_or(i128::MAX);
            // How many periods were over at a time. A check that precedes the change it proves belongs to what follows.
            let over = |time: OffsetDateTime| (time.max(base) - base).whole_nanoseconds() / period;
            if over(now) > over(first_time) {
                return Some(RestartCause::Period);
            }
        }
        (self.max_bytes > 0 && bytes.saturating_add(added) > self.max_bytes).then_some(RestartCause::Size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, OffsetDateTime};

    use super::{Held, RestartCause, RewritePeriod, Rotation};

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn hours(hours: i64) -> OffsetDateTime {
        START + Duration::hours(hours)
    }

    #[test]
    fn names_come_back() {
        for cause in RestartCause::ALL {
            assert_eq!(RestartCause::from_name(cause.name()), Some(cause));
        }
        for period in RewritePeriod::ALL {
            assert_eq!(RewritePeriod::from_name(period.name()), Some(period));
        }
    }

    #[test]
    fn periods_are_counted_from_the_change_or_from_the_first_entry() {
        use RewritePeriod::{Day, Month, Week, Year};
        let rows = [
            // Period, change of the account, first entry, now, in hours: whether it begins afresh.
            (Day, Some(0), 1, 23, false),
            (Day, Some(0), 1, 24, true),
            (Day, Some(0), 23, 24, true),
            (Day, Some(0), 24, 47, false),
            (Day, Some(0), 24, 48, true),
            (Day, Some(0), 1, 500, true),
            // From the first entry, where there is no account.
            (Day, None, 23, 24, false),
            (Day, None, 23, 46, false),
            (Day, None, 23, 47, true),
            // The entry is older than the change: it is of the check that went before.
            (Day, Some(2), 1, 3, false),
            (Day, Some(2), 1, 25, false),
            (Day, Some(2), 1, 26, true),
            (Week, Some(0), 1, 7 * 24 - 1, false),
            (Week, Some(0), 1, 7 * 24, true),
            (Month, Some(0), 1, 30 * 24 - 1, false),
            (Month, Some(0), 1, 30 * 24, true),
            (Year, None, 1, 365 * 24, false),
            (Year, None, 1, 365 * 24 + 1, true),
        ];
        for (period, change, first, now, afresh) in rows {
            let held = Held { bytes: 1, first_time: Some(hours(first)), account_change: change.map(hours) };
            let rotation = Rotation { period, max_bytes: 0 };
            let cause = rotation.due(&held, hours(now), 0);
            assert_eq!(cause, afresh.then_some(RestartCause::Period), "{period:?} {change:?} {first} {now}");
        }
    }

    #[test]
    fn an_empty_log_does_not_begin_afresh() {
        let rotation = Rotation { period: RewritePeriod::Day, max_bytes: 10 };
        let held = Held { bytes: 0, first_time: None, account_change: Some(START) };
        assert_eq!(rotation.due(&held, hours(1_000), 1_000), None);
    }

    #[test]
    fn a_session_across_the_end_of_a_period_is_one_restart() {
        let rotation = Rotation { period: RewritePeriod::Day, max_bytes: 0 };
        let (entry, now, later) = (hours(24) - Duration::seconds(1), hours(24), hours(25));
        for account_change in [Some(START), None] {
            let empty = Held { bytes: 0, first_time: None, account_change };
            let held = Held { bytes: 1, first_time: Some(empty.begins(now, entry)), account_change };
            assert_eq!(rotation.due(&held, later, 1), None, "{account_change:?}");
        }
    }

    #[test]
    fn a_log_of_which_it_is_not_known_when_it_began_has_its_limit() {
        let rotation = Rotation { period: RewritePeriod::Day, max_bytes: 10 };
        let held = Held { bytes: 10, first_time: None, account_change: Some(START) };
        assert_eq!(rotation.due(&held, hours(1_000), 0), None);
        assert_eq!(rotation.due(&held, hours(1_000), 1), Some(RestartCause::Size));
    }

    proptest! {
        #[test]
        fn no_log_grows_past_its_limit(sizes in prop::collection::vec(1_u64..100, 1..50), limit in 100_u64..200) {
            let rotation = Rotation { period: RewritePeriod::Day, max_bytes: limit };
            let mut bytes = 0;
            for size in sizes {
                let held = Held { bytes, first_time: Some(START), account_change: Some(START) };
                match rotation.due(&held, START, size) {
                    Some(cause) => {
                        prop_assert_eq!(cause, RestartCause::Size);
                        bytes = 0;
                    }
                    None => prop_assert!(bytes + size <= limit),
                }
                bytes += size;
                prop_assert!(bytes <= limit);
            }
        }
    }
}
