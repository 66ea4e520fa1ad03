//! The memory that requests may take together: those that are being received, and letters that are being worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::domain::error::{Problem, Reason};

/// What all requests together may hold, in bytes, unless two of the largest letters need more. A letter takes up to four times
/// its size while it is put together and stored.
const TOTAL_BYTES: usize = 128 * 1024 * 1024;
/// Smaller requests are not counted: the number of calls bounds them.
pub(super) const SMALL_BYTES: usize = 64 * 1024;
/// When to try again: a large letter is stored in less.
const RETRY: Duration = Duration::from_secs(1);

/// What is left.
#[derive(Clone)]
pub(super) struct Memory(Arc<AtomicUsize>);

/// Bytes in use, given back when this is dropped.
pub(super) struct Hold {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    /// Enough for two of the largest requests.
    pub(super) fn for_requests_of(max_request_bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(TOTAL_BYTES.max(max_request_bytes.saturating_mul(2)))))
    }

    /// Holds nothing yet.
    pub(super) fn nothing(&self) -> Hold {
        Hold { memory: self.clone(), bytes: 0 }
    }

    /// Holds what a request of so many bytes takes; a small one nothing.
    ///
    /// # Errors
    /// `RATE_LIMITED` where that much is not left.
    pub(super) fn hold(&self, bytes: usize) -> Result<Hold, Problem> {
        let mut hold = self.nothing();
        if bytes > SMALL_BYTES {
            hold.grow(bytes)?;
        }
        Ok(hold)
    }
}

impl Hold {
    /// Holds more.
    ///
    /// # Errors
    /// `RATE_LIMITED` where that much is not left; then it holds what it held.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let take = |left: usize| left.checked_sub(bytes);
        if self.memory.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let text = "too many large letters are being taken at this moment, try again";
            return Err(Problem::new(Reason::RateLimited, text).retry_after(RETRY));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        self.memory.0.fetch_add(freed, Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_is_held_is_given_back() {
        let memory = Memory::for_requests_of(MIB);
        let first = memory.hold(72 * MIB).expect("room");
        let refused = memory.hold(60 * MIB).map(|_| ()).expect_err("no room");
        assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(RETRY)));
        memory.hold(SMALL_BYTES).expect("small ones find room");
        let mut second = memory.hold(50 * MIB).expect("room");
        assert!(second.grow(10 * MIB).is_err());
        second.shrink_to(40 * MIB);
        second.grow(16 * MIB).expect("room");
        drop((first, second));
        memory.hold(128 * MIB).expect("all of it");
    }

    #[test]
    fn two_of_the_largest_fit() {
        let memory = Memory::for_requests_of(200 * MIB);
        let _first = memory.hold(200 * MIB).expect("room");
        memory.hold(200 * MIB).expect("room");
    }
}
