//! What just changed, told inside this process: hints that save waiting, never the truth. The tables are the truth, and
//! everybody who listens here also looks there every second or so.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::queue::Lane;
use crate::domain::site::SiteId;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Changes {
    sites: Mutex<HashMap<SiteId, watch::Sender<u64>>>,
    due: Mutex<HashSet<Lane>>,
    due_added: Notify,
}

impl Changes {
    /// Wakes whenever letters or transcripts of the site were recorded by this process.
    #[must_use]
    pub fn watch(&self, site: &SiteId) -> watch::Receiver<u64> {
        lock(&self.sites).entry(site.clone()).or_default().subscribe()
    }

    /// Tells those who watch the site; forgets sites that nobody watches.
    pub(super) fn recorded(&self, site: &SiteId) {
        let mut sites = lock(&self.sites);
        if let Some(sender) = sites.get(site) {
            if sender.receiver_count() == 0 {
                sites.remove(site);
            } else {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// Tells that a letter of this account is due.
    pub(super) fn due(&self, lane: Lane) {
        lock(&self.due).insert(lane);
        self.due_added.notify_one();
    }

    /// The accounts for which a letter became due since the last call; waits until there is one.
    pub async fn next_due(&self) -> HashSet<Lane> {
        loop {
            let due = std::mem::take(&mut *lock(&self.due));
            if !due.is_empty() {
                return due;
            }
            self.due_added.notified().await;
        }
    }
}

/// What is guarded here is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
