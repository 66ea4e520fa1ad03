//! The clock of the process, kept in step with the database's, so that times of several replicas agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use time::{Duration, OffsetDateTime};

/// The system clock plus a correction in microseconds; clones share the correction.
///
/// The store sets the correction from the database clock (see `store::clock`); tests step time with it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    correction_us: Arc<AtomicI64>,
}

impl Clock {
    /// The present moment by the database's clock, as well as it is known.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        system_time() + Duration::microseconds(self.correction_us.load(Ordering::Relaxed))
    }

    /// Makes `now` answer `moment` at this instant, and go on from there.
    pub fn set(&self, moment: OffsetDateTime) {
        let difference = moment - system_time();
        let microseconds = i64::try_from(difference.whole_microseconds()).unwrap_or_default();
        self.correction_us.store(microseconds, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the system's clock is read")]
fn system_time() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
