//! Whether a site is there, for every call before anything else is asked for: one that is being deleted is gone at once,
//! although most of its rows still stand.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::error::Problem;
use crate::domain::site::SiteId;
use crate::store::{Store, sites};

/// A site that was there is asked for again after so long. With what a change takes to be answered, within the 2 s of the
/// contract (API 3).
const REMEMBER: Duration = Duration::from_secs(1);
/// Sites remembered at once.
const MAX_REMEMBERED: usize = 10_000;

/// Sites that were there a moment ago.
pub(super) struct Presence {
    store: Store,
    remembered: Mutex<HashMap<SiteId, Instant>>,
}

impl Presence {
    pub(super) fn new(store: Store) -> Self {
        Self { store, remembered: Mutex::default() }
    }

    /// Refuses where there is no such site, or no more.
    ///
    /// # Errors
    /// `NOT_FOUND`; `STORE_UNAVAILABLE`.
    pub(super) async fn demand(&self, site: &SiteId) -> Result<(), Problem> {
        if self.remembered().get(site).is_some_and(|since| since.elapsed() < REMEMBER) {
            return Ok(());
        }
        // What is found out is as old as the question.
        let asked = Instant::now();
        let found = sites::find(&self.store, site).await?;
        let mut remembered = self.remembered();
        if found.is_none() {
            remembered.remove(site);
            return Err(Problem::not_found(site.name()));
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(site.clone(), asked);
        Ok(())
    }

    /// Forgets a site, since it was deleted here.
    pub(super) fn forget(&self, site: &SiteId) {
        self.remembered().remove(site);
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<SiteId, Instant>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
