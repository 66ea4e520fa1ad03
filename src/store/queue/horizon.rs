//! How far back in the queue of an account one must look.
//!
//! While somebody's transaction holds an old snapshot, rows that left the queue stay in its index, and a look for the first
//! due letter walks past all of them: after minutes of full speed that would take longer than the sending. So most looks
//! begin a little before the letter that was claimed last. What lies further back (handed back, or left by a server that
//! died) is found by looks from the very beginning, which are made once a second, or as seldom as what they cost demands.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::{Claim, Lane};

/// Letters are due since they were taken, and become visible a little later, in another order.
const MARGIN: Duration = Duration::from_secs(2);
/// Time between two looks from the beginning, at least;
const BETWEEN: Duration = Duration::from_secs(1);
/// and so many times what the last one took, for all accounts together that cost much lately,
const TIMES: u32 = 20;
/// but at most: letters that were handed back wait for it.
const AT_MOST: Duration = Duration::from_secs(10);
/// A look that takes longer costs much.
const MUCH: Duration = Duration::from_millis(5);
/// What was longer ago is no more than a memory.
const LATELY: Duration = Duration::from_mins(1);
/// Accounts that are remembered at once.
const MOST: usize = 10_000;

/// Where looks into the queues of accounts begin.
#[derive(Debug, Default)]
pub(in crate::store) struct Horizons(Mutex<HashMap<Lane, Horizon>>);

#[derive(Clone, Copy, Debug)]
struct Horizon {
    /// No older letters of other mail, and no older ones of mailings, wait, as far as is known.
    from: From,
    /// When it was last looked from the beginning,
    last: Instant,
    /// and what that took.
    took: Duration,
}

/// Where a look begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct From {
    pub(in crate::store) other_mail: OffsetDateTime,
    pub(in crate::store) mailings: OffsetDateTime,
}

/// No letter is older.
pub(in crate::store) const BEGINNING: From =
    From { other_mail: OffsetDateTime::UNIX_EPOCH, mailings: OffsetDateTime::UNIX_EPOCH };

impl From {
    fn of(&mut self, mailing: bool) -> &mut OffsetDateTime {
        if mailing { &mut self.mailings } else { &mut self.other_mail }
    }
}

impl Horizons {
    /// Where a look for letters to claim begins.
    pub(super) fn from(&self, lane: &Lane) -> From {
        let horizons = self.lock();
        let Some(known) = horizons.get(lane) else { return BEGINNING };
        let mut between = BETWEEN;
        if known.took > MUCH {
            let costs_much = |other: &&Horizon| other.took > MUCH && other.last.elapsed() < LATELY;
            let accounts = u32::try_from(horizons.values().filter(costs_much).count()).unwrap_or(u32::MAX);
            let share = known.took.saturating_mul(TIMES).saturating_mul(accounts.max(1));
            between = share.clamp(BETWEEN, AT_MOST);
        }
        if known.last.elapsed() < between { known.from } else { BEGINNING }
    }

    /// Where a look begins whether something waits before a new letter.
    pub(in crate::store) fn near(&self, lane: &Lane) -> From {
        self.lock().get(lane).map_or(BEGINNING, |known| known.from)
    }

    /// Notes what a look found that began there and then.
    pub(super) fn found(&self, lane: &Lane, from: From, began: Instant, claims: &[Claim]) {
        let mut horizons = self.lock();
        if from == BEGINNING {
            if horizons.len() >= MOST && !horizons.contains_key(lane) {
                horizons.clear();
            }
            let known = horizons.entry(lane.clone()).or_insert(Horizon {
                from: BEGINNING,
                last: began,
                took: Duration::ZERO,
            });
            (known.last, known.took) = (Instant::now(), began.elapsed());
        }
        let Some(known) = horizons.get_mut(lane) else { return };
        // Of one class they come in the order of their times: what is before the last of them is claimed. One that was found
        // from the beginning may be the first of many that were handed back.
        for claim in claims {
            let place = known.from.of(claim.mailing);
            let reached = claim.due - MARGIN;
            *place = if from == BEGINNING { reached } else { (*place).max(reached) };
        }
    }

    /// Notes that at this time no letter of a class was due and not leased.
    pub(in crate::store) fn nothing_waited(&self, lane: &Lane, mailing: bool, time: OffsetDateTime) {
        if let Some(known) = self.lock().get_mut(lane) {
            let place = known.from.of(mailing);
            *place = (*place).max(time - MARGIN);
        }
    }

    /// The map is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Horizon>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::site::SiteId;

    fn claim(mailing: bool, due: OffsetDateTime) -> Claim {
        Claim { due, mailing, ..Claim::example() }
    }

    #[test]
    fn looks_begin_a_little_before_what_was_found_last() {
        let (horizons, now) = (Horizons::default(), datetime!(2026-01-01 12:00 UTC));
        let lane = Lane { site: SiteId::parse("shop").unwrap(), account: 1 };
        assert_eq!(horizons.from(&lane), BEGINNING);
        horizons.found(&lane, BEGINNING, Instant::now(), &[claim(false, now)]);
        let near = From { other_mail: now - MARGIN, ..BEGINNING };
        assert_eq!((horizons.from(&lane), horizons.near(&lane)), (near, near), "mailings are as they were");
        horizons.found(&lane, near, Instant::now(), &[claim(true, now), claim(false, now - MARGIN)]);
        let both = From { mailings: now - MARGIN, ..near };
        assert_eq!(horizons.from(&lane), both, "it does not go back for what was found late");
        horizons.nothing_waited(&lane, false, now + MARGIN);
        assert_eq!(horizons.near(&lane), From { other_mail: now, ..both });
        horizons.found(&lane, BEGINNING, Instant::now(), &[claim(true, now - 9 * MARGIN)]);
        assert_eq!(horizons.from(&lane).mailings, now - 10 * MARGIN, "more may have been handed back");
    }

    #[test]
    fn from_the_beginning_is_looked_as_seldom_as_it_is_slow() {
        let (horizons, lane) =
            (Horizons::default(), Lane { site: SiteId::parse("shop").unwrap(), account: 1 });
        let now = datetime!(2026-01-01 12:00 UTC);
        let long_ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
        let other = Lane { account: 2, ..lane.clone() };
        let looked = |lane: &Lane, ago: Duration, took: Duration| {
            horizons.found(lane, BEGINNING, Instant::now(), &[claim(false, now)]);
            let mut horizons = horizons.lock();
            let horizon = horizons.get_mut(lane).unwrap();
            (horizon.last, horizon.took) = (long_ago(ago), took);
        };
        let (short, seconds) = (Duration::from_millis(200), Duration::from_secs);
        looked(&lane, seconds(2), short);
        assert_ne!(horizons.from(&lane), BEGINNING, "it took 0.2 s");
        looked(&lane, seconds(5), short);
        assert_eq!(horizons.from(&lane), BEGINNING);
        // Two of them share that part of the time.
        looked(&other, seconds(0), short);
        assert_ne!(horizons.from(&lane), BEGINNING);
        looked(&other, LATELY, short);
        assert_eq!(horizons.from(&lane), BEGINNING, "that was long ago");
        // A look that was held up by something else does not keep letters waiting for long.
        looked(&lane, seconds(5), LATELY);
        assert_ne!(horizons.from(&lane), BEGINNING);
        looked(&lane, AT_MOST, LATELY);
        assert_eq!(horizons.from(&lane), BEGINNING);
    }
}
