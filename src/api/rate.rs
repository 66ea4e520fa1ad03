//! How often something may happen: evenly, with bursts of a second.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// What may be used at once after a while of rest, as the time in which it comes again.
const BURST: Duration = Duration::from_secs(1);

/// Counts one kind of thing (the generic cell rate algorithm: one point in time is all that is kept).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// When all that was used will have come again.
    full: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes one of so many a second.
    ///
    /// # Errors
    /// The time after which there is one.
    pub(super) fn take(&mut self, now: Instant, per_second: NonZeroU32) -> Result<(), Duration> {
        let full = self.full.max(now) + Duration::from_secs(1) / per_second.get();
        let over = full.duration_since(now).saturating_sub(BURST);
        if over > Duration::ZERO {
            return Err(over);
        }
        self.full = full;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_evenly() {
        let start = Instant::now();
        for per_second in [1, 3, 10, 1_000, 20_000] {
            let rate_of = NonZeroU32::new(per_second).expect("not zero");
            let mut rate = Rate::new(start);
            for _ in 0..per_second {
                assert_eq!(rate.take(start, rate_of), Ok(()), "{per_second}");
            }
            let wait = rate.take(start, rate_of).expect_err("used up");
            assert!(wait <= Duration::from_secs(1) / per_second, "{per_second}: {wait:?}");
            assert_eq!(rate.take(start + wait, rate_of), Ok(()), "as long as was said");
            assert!(rate.take(start + wait, rate_of).is_err());
            // Rest gives back no more than a burst.
            let later = start + Duration::from_mins(10);
            let taken = (0..2 * per_second).filter(|_| rate.take(later, rate_of).is_ok()).count();
            assert_eq!(taken, usize::try_from(per_second).expect("small"), "{per_second}");
        }
    }
}
