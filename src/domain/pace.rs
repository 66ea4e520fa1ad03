//! The pace of an account: how many transactions it may begin, by its limits and the site's batches. Pure.
//!
//! Usage is counted in buckets of a second and of a minute. A bucket counts until all of it is past: so a limit is kept
//! for every stretch of its length, wherever it begins, at the price of up to a bucket more of waiting.

use std::time::Duration;

use time::OffsetDateTime;

use super::limits::Limits;

/// What paces the letters of an account.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The account's limits.
    pub limits: Limits,
    /// Letters in one batch.
    pub max_messages_per_batch: u32,
    /// From the start of a batch to the next; zero = no batches.
    pub min_batch_interval: Duration,
}

/// From a slot to the server's ear, in seconds: what comes later of one transaction than of another, the other end, who counts
/// too, finds closer together.
const ON_THE_WAY: u64 = 1;

/// How long the buckets of a minute, an hour and a day are looked at: one bucket more than the stretch itself, and the way.
pub const MINUTE: Duration = Duration::from_secs(60 + 1 + ON_THE_WAY);
/// See [`MINUTE`].
pub const HOUR: Duration = Duration::from_secs(3_600 + 60 + ON_THE_WAY);
/// See [`MINUTE`].
pub const DAY: Duration = Duration::from_secs(24 * 3_600 + 60 + ON_THE_WAY);

/// What was used in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// So many.
    pub count: u32,
    /// Begin of its oldest bucket.
    pub oldest: Option<OffsetDateTime>,
}

/// What an account has used up to now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Transactions of the last minute.
    pub minute: Used,
    /// Of the last hour.
    pub hour: Used,
    /// Of the last day.
    pub day: Used,
    /// Recipients of the last day.
    pub recipients: Used,
    /// The running batch: its start and its letters.
    pub batch: Option<(OffsetDateTime, u32)>,
}

/// What a transaction asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Whether its letter is part of a mailing.
    pub mailing: bool,
    /// Whether it is the first of its letter in this attempt.
    pub begins_letter: bool,
    /// Its recipients.
    pub recipients: u32,
}

/// Whether a transaction may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now. So many transactions more could follow at once, of the same kind.
    Now {
        /// Those.
        left: u32,
        /// Whether a new batch begins with it.
        new_batch: bool,
    },
    /// Not before this time; `everybody` tells whether other mail than mailings has to wait, too.
    NotBefore {
        /// That time.
        time: OffsetDateTime,
        /// Whether this holds for all mail.
        everybody: bool,
    },
}

impl Pace {
    /// Whether nothing is paced.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.limits.count() && self.min_batch_interval.is_zero()
    }

    /// Recipients in one transaction; never more than a day allows, so that each transaction has its turn some time.
    #[must_use]
    pub fn max_recipients(&self, mailing: bool) -> u32 {
        let of_day = self.limits.recipients_per_day.map(|limit| self.limits.share(limit, mailing));
        self.limits.max_recipients().min(of_day.unwrap_or(u32::MAX)).max(1)
    }

    /// Whether a transaction may begin at `now`.
    #[must_use]
    pub fn turn(&self, usage: &Usage, request: Request, now: OffsetDateTime) -> Turn {
        let Limits { per_minute, per_hour, per_day, recipients_per_day, .. } = self.limits;
        let stretches = [
            (per_minute, usage.minute, 1, MINUTE),
            (per_hour, usage.hour, 1, HOUR),
            (per_day, usage.day, 1, DAY),
            (recipients_per_day, usage.recipients, request.recipients, DAY),
        ];
        let mut left = u32::MAX;
        let mut wait: Option<(OffsetDateTime, bool)> = None;
        let mut not_before = |time: OffsetDateTime, everybody: bool| {
            wait = Some(match wait {
                Some((latest, all)) => (latest.max(time), all || everybody),
                None => (time, everybody),
            });
        };
        for (limit, used, wanted, stretch) in stretches {
            let Some(limit) = limit else { continue };
            let fits = |share: u32| used.count.saturating_add(wanted) <= share;
            let share = self.limits.share(limit, request.mailing);
            if fits(share) {
                left = left.min((share - used.count - wanted) / wanted.max(1));
            } else {
                // A mailing that does not fit stops other mail only where nothing is left for that either.
                not_before(used.oldest.unwrap_or(now) + stretch, !request.mailing || used.count >= limit);
            }
        }
        let mut new_batch = false;
        if !self.min_batch_interval.is_zero() && request.begins_letter {
            match usage.batch {
                Some((start, letters)) if now < start + self.min_batch_interval => {
                    if letters < self.max_messages_per_batch {
                        left = left.min(self.max_messages_per_batch - letters - 1);
                    } else {
                        not_before(start + self.min_batch_interval, true);
                    }
                }
                _ => {
                    new_batch = true;
                    left = left.min(self.max_messages_per_batch - 1);
                }
            }
        }
        match wait {
            Some((time, everybody)) => Turn::NotBefore { time, everybody },
            None => Turn::Now { left, new_batch },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::{DAY, HOUR, MINUTE, Pace, Request, Turn, Usage, Used};
    use crate::domain::limits::Limits;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const LETTER: Request = Request { mailing: false, begins_letter: true, recipients: 1 };
    const MAILING: Request = Request { mailing: true, ..LETTER };

    fn ago(seconds: u64) -> OffsetDateTime {
        NOW - Duration::from_secs(seconds)
    }

    fn used(count: u32, seconds: u64) -> Used {
        Used { count, oldest: Some(ago(seconds)) }
    }

    fn limits() -> Limits {
        Limits {
            per_minute: Some(10),
            per_hour: Some(100),
            per_day: Some(500),
            recipients_per_day: Some(1_000),
            reserve_percent: Some(20),
            ..Limits::default()
        }
    }

    fn pace(limits: Limits) -> Pace {
        Pace { limits, max_messages_per_batch: 3, min_batch_interval: Duration::ZERO }
    }

    #[test]
    fn the_narrowest_limit_counts() {
        let minute = |count| Usage { minute: used(count, 30), ..Usage::default() };
        let wait = |time, everybody| Turn::NotBefore { time, everybody };
        let now = |left| Turn::Now { left, new_batch: false };
        let table = [
            (Usage::default(), LETTER, now(9)),
            (minute(9), LETTER, now(0)),
            (minute(10), LETTER, wait(ago(30) + MINUTE, true)),
            (minute(7), MAILING, now(0)),
            (minute(8), MAILING, wait(ago(30) + MINUTE, false)),
            (minute(10), MAILING, wait(ago(30) + MINUTE, true)),
            (Usage { hour: used(100, 9), ..minute(10) }, LETTER, wait(ago(9) + HOUR, true)),
            (Usage { day: used(500, 70), ..Usage::default() }, LETTER, wait(ago(70) + DAY, true)),
            (
                Usage { recipients: used(996, 5), ..Usage::default() },
                Request { recipients: 5, ..LETTER },
                wait(ago(5) + DAY, true),
            ),
            (
                Usage { recipients: used(901, 5), ..Usage::default() },
                Request { recipients: 100, ..MAILING },
                wait(ago(5) + DAY, false),
            ),
            (
                Usage { recipients: used(990, 5), ..Usage::default() },
                Request { recipients: 5, ..LETTER },
                now(1),
            ),
        ];
        for (usage, request, turn) in table {
            assert_eq!(pace(limits()).turn(&usage, request, NOW), turn, "{usage:?} {request:?}");
        }
    }

    #[test]
    fn batches_begin_at_their_interval() {
        let interval = Duration::from_secs(10);
        let pace = Pace { min_batch_interval: interval, ..pace(Limits::default()) };
        let batch = |seconds, letters| Usage { batch: Some((ago(seconds), letters)), ..Usage::default() };
        let begins = Turn::Now { left: 2, new_batch: true };
        let table = [
            (Usage::default(), LETTER, begins),
            (batch(9, 1), LETTER, Turn::Now { left: 1, new_batch: false }),
            (batch(9, 3), LETTER, Turn::NotBefore { time: ago(9) + interval, everybody: true }),
            (batch(9, 3), MAILING, Turn::NotBefore { time: ago(9) + interval, everybody: true }),
            (batch(10, 3), LETTER, begins),
            // What a letter has begun it may finish.
            (
                batch(9, 3),
                Request { begins_letter: false, ..LETTER },
                Turn::Now { left: u32::MAX, new_batch: false },
            ),
        ];
        for (usage, request, turn) in table {
            assert_eq!(pace.turn(&usage, request, NOW), turn, "{usage:?} {request:?}");
        }
    }

    #[test]
    fn a_transaction_fits_into_a_day() {
        let few = |recipients_per_day, max_recipients| {
            pace(Limits { recipients_per_day, max_recipients, ..Limits::default() })
        };
        assert_eq!(few(None, None).max_recipients(false), 100);
        assert_eq!(few(Some(30), Some(50)).max_recipients(false), 30);
        assert_eq!(few(Some(30), Some(7)).max_recipients(true), 7);
        assert!(few(None, None).is_free() && !few(Some(1), None).is_free());
    }
}
