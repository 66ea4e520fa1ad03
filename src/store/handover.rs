//! The counters at which letters that this process has just taken are handed to its own workers, already leased.
//!
//! A counter belongs to an account that workers of this process have a session open for. It has few places: what does not
//! fit, and all that is in any way special, waits in the table like everything else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::queue::{Claim, Lane};

/// Letters that may lie at the counter of an account, those on their way to it included: a tenth of a second's work.
const PLACES: usize = 64;

/// A letter that is leased and has not been tried.
pub type Handed = Claim;

/// All counters of this process.
#[derive(Debug, Default)]
pub struct Handover {
    counters: Mutex<HashMap<Lane, Arc<Counter>>>,
    in_doubt: AtomicBool,
    /// While what becomes of letters cannot be recorded.
    suspended: AtomicBool,
}

/// The counter of one account.
#[derive(Debug)]
pub struct Counter {
    replica: Uuid,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Workers that serve here; without any nothing is taken.
    workers: usize,
    /// The versions of account and settings that they work with; `None` where nothing may be handed over.
    versions: Option<(i64, i64)>,
    /// Places that are given out or hold a letter.
    taken: usize,
    letters: VecDeque<Handed>,
}

/// A place at a counter, given back unless a letter is put there.
#[derive(Debug)]
pub(super) struct Place {
    counter: Arc<Counter>,
    versions: (i64, i64),
    used: AtomicBool,
}

impl Handover {
    /// Serves the counter of an account, until what is returned is closed.
    #[must_use]
    pub fn serve(&self, lane: &Lane, replica: Uuid) -> Arc<Counter> {
        let mut counters = lock(&self.counters);
        let counter = counters
            .entry(lane.clone())
            .or_insert_with(|| Arc::new(Counter { replica, state: Mutex::default() }));
        lock(&counter.state).workers += 1;
        Arc::clone(counter)
    }

    /// Ends the service of one worker. What the last one leaves lies there no more: it is to be handed back.
    #[must_use]
    pub fn leave(&self, lane: &Lane, counter: &Arc<Counter>) -> Vec<Handed> {
        let mut counters = lock(&self.counters);
        let mut state = lock(&counter.state);
        state.workers -= 1;
        if state.workers > 0 {
            return Vec::new();
        }
        state.versions = None;
        counters.remove(lane);
        state.letters.drain(..).collect()
    }

    /// Gives no place at any counter any more, or again.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// A place for a letter, where there is one.
    pub(super) fn place(&self, lane: &Lane) -> Option<Place> {
        if self.suspended.load(Ordering::Relaxed) {
            return None;
        }
        let counter = Arc::clone(lock(&self.counters).get(lane)?);
        let mut state = lock(&counter.state);
        let versions = state.versions.filter(|_| state.taken < PLACES)?;
        state.taken += 1;
        drop(state);
        Some(Place { counter, versions, used: AtomicBool::new(false) })
    }

    /// The letters that lie at the counters: leased, and known to this process although no worker has them yet.
    #[must_use]
    pub fn lying(&self) -> HashSet<(Uuid, i32)> {
        let counters: Vec<Arc<Counter>> = lock(&self.counters).values().cloned().collect();
        let letters = |counter: &Arc<Counter>| -> Vec<(Uuid, i32)> {
            lock(&counter.state).letters.iter().map(|letter| (letter.message, letter.attempt)).collect()
        };
        counters.iter().flat_map(letters).collect()
    }

    /// Notes that there may be leases of which nobody knows.
    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// Whether there may be leases of which nobody knows; it is forgotten by being asked.
    #[must_use]
    pub fn take_doubt(&self) -> bool {
        self.in_doubt.swap(false, Ordering::Relaxed)
    }
}

impl Counter {
    /// Opens it for letters of an account and settings of these versions.
    pub fn open(&self, versions: (i64, i64)) {
        let mut state = lock(&self.state);
        if state.workers > 0 {
            state.versions = Some(versions);
        }
    }

    /// Closes it for further letters; those that lie there stay.
    pub fn close(&self) {
        lock(&self.state).versions = None;
    }

    /// Up to so many letters, other mail before mailings; and whether more lie there.
    #[must_use]
    pub fn take(&self, most: usize) -> (Vec<Handed>, bool) {
        let mut state = lock(&self.state);
        let mut taken = state.pick(most, |letter| !letter.mailing);
        let left = most - taken.len();
        taken.extend(state.pick(left, |_| true));
        (taken, !state.letters.is_empty())
    }

    /// Up to so many letters that are no part of a mailing.
    #[must_use]
    pub fn take_other_mail(&self, most: usize) -> Vec<Handed> {
        lock(&self.state).pick(most, |letter| !letter.mailing)
    }
}

impl State {
    /// Takes the first letters of a kind.
    fn pick(&mut self, most: usize, is_wanted: impl Fn(&Handed) -> bool) -> Vec<Handed> {
        let mut picked = Vec::new();
        let mut number = 0;
        while picked.len() < most && number < self.letters.len() {
            if self.letters.get(number).is_some_and(&is_wanted) {
                picked.extend(self.letters.remove(number));
            } else {
                number += 1;
            }
        }
        self.taken = self.taken.saturating_sub(picked.len());
        picked
    }
}

impl Place {
    /// The versions of account and settings that the workers here work with.
    pub(super) const fn versions(&self) -> (i64, i64) {
        self.versions
    }

    /// Whose lease it is.
    pub(super) fn replica(&self) -> Uuid {
        self.counter.replica
    }

    /// Puts a letter here.
    ///
    /// # Errors
    /// Nobody serves here any more: it is to be handed back.
    pub(super) fn put(&self, letter: Handed) -> Result<(), Box<Handed>> {
        let mut state = lock(&self.counter.state);
        if state.workers == 0 {
            return Err(Box::new(letter));
        }
        state.letters.push_back(letter);
        self.used.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used.load(Ordering::Relaxed) {
            let mut state = lock(&self.counter.state);
            state.taken = state.taken.saturating_sub(1);
        }
    }
}

/// What is guarded here is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::site::SiteId;

    fn lane() -> Lane {
        Lane { site: SiteId::parse("shop").unwrap(), account: 1 }
    }

    fn letter(mailing: bool) -> Handed {
        Claim { message: Uuid::now_v7(), mailing, ..Claim::example() }
    }

    #[test]
    fn only_an_open_counter_with_room_has_places() {
        let (handover, replica) = (Handover::default(), Uuid::now_v7());
        assert!(handover.place(&lane()).is_none(), "nobody serves");
        let counter = handover.serve(&lane(), replica);
        assert!(handover.place(&lane()).is_none(), "it is not open");
        counter.open((3, 4));
        let place = handover.place(&lane()).unwrap();
        assert_eq!((place.versions(), place.replica()), ((3, 4), replica));
        drop(place);
        let places: Vec<_> = std::iter::from_fn(|| handover.place(&lane())).collect();
        assert_eq!(places.len(), PLACES);
        for place in places {
            place.put(letter(false)).unwrap();
        }
        assert!(handover.place(&lane()).is_none(), "it is full");
        let (taken, more) = counter.take(PLACES - 1);
        assert_eq!((taken.len(), more), (PLACES - 1, true));
        assert!(handover.place(&lane()).is_some());
        handover.suspend(true);
        assert!(handover.place(&lane()).is_none());
        handover.suspend(false);
        assert!(handover.place(&lane()).is_some());
        counter.close();
        assert!(handover.place(&lane()).is_none());
        assert_eq!(counter.take(10).0.len(), 1, "what lies there is still sent");
    }

    #[test]
    fn other_mail_is_taken_before_mailings() {
        let handover = Handover::default();
        let counter = handover.serve(&lane(), Uuid::nil());
        counter.open((1, 1));
        for mailing in [true, false, true, false] {
            handover.place(&lane()).unwrap().put(letter(mailing)).unwrap();
        }
        assert_eq!(handover.lying().len(), 4);
        let mailings = |letters: Vec<Handed>| letters.iter().map(|letter| letter.mailing).collect::<Vec<_>>();
        assert_eq!(mailings(counter.take_other_mail(1)), [false]);
        assert_eq!(mailings(counter.take(2).0), [false, true]);
        assert_eq!(counter.take_other_mail(9).len(), 0);
        assert_eq!(mailings(counter.take(9).0), [true]);
        assert!(handover.lying().is_empty());
    }

    #[test]
    fn nothing_is_left_when_the_last_worker_leaves() {
        let handover = Handover::default();
        let (first, second) = (handover.serve(&lane(), Uuid::nil()), handover.serve(&lane(), Uuid::nil()));
        first.open((1, 1));
        let (lies, comes) = (handover.place(&lane()).unwrap(), handover.place(&lane()).unwrap());
        lies.put(letter(false)).unwrap();
        assert_eq!(handover.leave(&lane(), &first).len(), 0, "the other one serves on");
        assert_eq!(handover.leave(&lane(), &second).len(), 1);
        assert!(comes.put(letter(false)).is_err(), "it came too late");
        second.open((1, 1));
        assert!(handover.place(&lane()).is_none(), "who has left opens nothing");
    }
}
