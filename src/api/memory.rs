//! The memory that requests may take together: each that is not small takes what its length says before a byte of it is read,
//! and gives it back when it was worked on. No key takes more than half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// What all requests together may hold, in bytes, unless four of the largest letters need more: half of it is a key's, and a
/// compressed letter takes its size packed and unpacked. What is counted is the request as it came in, once. While a letter is
/// put together and stored it takes up to four times its size, so that all together stay below four times this.
const TOTAL_BYTES: usize = 128 * 1024 * 1024;
/// Smaller requests are not counted: the number of calls bounds them.
pub(super) const SMALL_BYTES: usize = 64 * 1024;
/// What is counted at once.
const UNIT_BYTES: usize = 1024;

/// What is left, of all and of each key.
pub(super) struct Memory {
    all: Arc<Semaphore>,
    /// What one key may hold, in units.
    most: usize,
    of_keys: Mutex<HashMap<Uuid, Weak<Semaphore>>>,
}

/// What the calls of one key may take. It is looked up where something is held: most requests are small.
#[derive(Clone)]
pub(super) struct Share {
    memory: Arc<Memory>,
    key: Uuid,
}

/// Bytes in use, given back when this is dropped. The semaphores are never closed, so that all permits are there.
pub(super) struct Hold {
    of_key: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Enough for four of the largest requests.
    pub(super) fn for_requests_of(max_request_bytes: usize) -> Arc<Self> {
        let total = units(TOTAL_BYTES.max(max_request_bytes.saturating_mul(4))).min(Semaphore::MAX_PERMITS);
        let all = Arc::new(Semaphore::new(total));
        Arc::new(Self { all, most: total / 2, of_keys: Mutex::default() })
    }

    /// What the calls of this key share.
    pub(super) fn share_of(self: &Arc<Self>, key: Uuid) -> Share {
        Share { memory: Arc::clone(self), key }
    }

    fn of_key(&self, key: Uuid) -> Arc<Semaphore> {
        let mut of_keys = self.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = of_keys.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            of_keys.retain(|_, of_key| of_key.strong_count() > 0);
            let of_key = Arc::new(Semaphore::new(self.most));
            of_keys.insert(key, Arc::downgrade(&of_key));
            of_key
        })
    }
}

impl Share {
    /// Waits until that much is left, in the order of those who ask. Who waits must hold nothing: others may wait for it.
    pub(super) async fn hold(self, bytes: usize) -> Hold {
        let Self { memory, key } = self;
        let wanted = u32::try_from(units(bytes).min(memory.most)).unwrap_or(u32::MAX);
        // First what nobody but the key waits for.
        let of_key = memory.of_key(key).acquire_many_owned(wanted).await.ok();
        let of_all = Arc::clone(&memory.all).acquire_many_owned(wanted).await.ok();
        Hold { of_key, of_all }
    }
}

impl Hold {
    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let Self { of_key, of_all } = self;
        for held in [of_key, of_all].into_iter().flatten() {
            let freed = held.num_permits().saturating_sub(units(bytes));
            drop(held.split(freed));
        }
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn poll(hold: Pin<&mut impl Future<Output = Hold>>) -> Option<Hold> {
        match hold.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(hold) => Some(hold),
            Poll::Pending => None,
        }
    }

    fn now(share: &Share, bytes: usize) -> Option<Hold> {
        poll(pin!(share.clone().hold(bytes)))
    }

    #[test]
    fn what_is_held_is_given_back() {
        let memory = Memory::for_requests_of(MIB);
        let (first, second, third) = (
            memory.share_of(Uuid::now_v7()),
            memory.share_of(Uuid::now_v7()),
            memory.share_of(Uuid::now_v7()),
        );
        let mut held = now(&first, 60 * MIB).expect("room");
        assert!(now(&first, 5 * MIB).is_none(), "one key has half");
        let _all_of_second = now(&second, 64 * MIB).expect("another has its own");
        let _rest = now(&third, 4 * MIB).expect("room");
        assert!(now(&third, 1).is_none(), "nothing is left of all");
        held.shrink_to(10 * MIB);
        let more = now(&first, 50 * MIB).expect("room");
        drop((held, more));
        now(&first, 60 * MIB).expect("room");
    }

    #[test]
    fn a_key_is_known_while_it_holds_something() {
        let memory = Memory::for_requests_of(MIB);
        let is_known = |key: &Uuid| memory.of_keys.lock().expect("whole").contains_key(key);
        let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let _held = now(&memory.share_of(first), 64 * MIB).expect("room");
        assert!(now(&memory.share_of(first), MIB).is_none(), "calls of a key share");
        drop(now(&memory.share_of(second), MIB).expect("room"));
        let share = memory.share_of(third);
        assert!(!is_known(&third), "it holds nothing yet");
        let _held = now(&share, MIB).expect("room");
        assert!(is_known(&first) && !is_known(&second) && is_known(&third));
    }

    #[test]
    fn four_of_the_largest_fit() {
        let memory = Memory::for_requests_of(200 * MIB);
        let (first, second) = (memory.share_of(Uuid::now_v7()), memory.share_of(Uuid::now_v7()));
        let _first = now(&first, 400 * MIB).expect("room");
        let _second = now(&second, 900 * MIB).expect("more than there ever is counts as a share");
    }

    #[test]
    fn who_waits_is_served_in_turn() {
        let memory = Memory::for_requests_of(MIB);
        let share = memory.share_of(Uuid::now_v7());
        let held = now(&share, 60 * MIB).expect("room");
        let mut large = pin!(share.clone().hold(30 * MIB));
        assert!(poll(large.as_mut()).is_none());
        let mut small = pin!(share.clone().hold(MIB));
        assert!(poll(small.as_mut()).is_none(), "the first comes first");
        drop(held);
        let _large = poll(large).expect("its turn");
        poll(small).expect("and room for more");
    }
}
