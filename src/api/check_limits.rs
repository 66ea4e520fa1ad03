//! Checks are limited, by site and by host, so that nobody scans ports or guesses passwords with them (API 4).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::error::{Problem, Reason};
use crate::domain::site::SiteId;

/// The window in which checks are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Checks allowed a minute, by this replica.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// Of one site.
    pub per_site: usize,
    /// Of one host, whoever asks.
    pub per_host: usize,
}

impl Default for CheckLimits {
    /// Enough for a person who sets accounts up, and for an import that is patient.
    fn default() -> Self {
        Self { per_site: 60, per_host: 60 }
    }
}

/// What is counted together.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Counted {
    Site(SiteId),
    Host(String),
}

/// The checks of the last minute.
pub(super) struct CheckBudget {
    limits: CheckLimits,
    starts: Mutex<HashMap<Counted, VecDeque<Instant>>>,
}

impl CheckBudget {
    pub(super) fn new(limits: CheckLimits) -> Self {
        Self { limits, starts: Mutex::default() }
    }

    /// Takes one check of this site at this host.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time after which there is one again.
    pub(super) fn take(&self, site: &SiteId, host: &str) -> Result<(), Problem> {
        let now = Instant::now();
        let counted = [
            (Counted::Site(site.clone()), self.limits.per_site),
            (Counted::Host(host.to_ascii_lowercase()), self.limits.per_host),
        ];
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.retain(|_, times| {
            times.retain(|time| now.duration_since(*time) < WINDOW);
            !times.is_empty()
        });
        for (key, limit) in &counted {
            if let Some(times) = starts.get(key)
                && times.len() >= *limit
            {
                let oldest = times.front().copied().unwrap_or(now);
                let wait = WINDOW.saturating_sub(now.duration_since(oldest));
                let text = "too many checks of accounts within a minute, by this site or at this host";
                return Err(Problem::new(Reason::RateLimited, text).retry_after(wait));
            }
        }
        for (key, _) in counted {
            starts.entry(key).or_default().push_back(now);
        }
        Ok(())
    }
}
