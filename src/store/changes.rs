//! What just changed, told inside this process: hints that save waiting, never the truth. The tables are the truth, and
//! everybody who listens here also looks there every second or so.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::queue::Lane;
use crate::domain::site::SiteId;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Changes {
    sites: Topics<SiteId>,
    letters: Topics<Uuid>,
    /// Accounts with due mail, and whether some of it is no part of a mailing.
    due: Mutex<HashMap<Lane, bool>>,
    due_added: Notify,
}

impl Changes {
    /// Wakes whenever letters or transcripts of the site were recorded by this process.
    #[must_use]
    pub fn watch(&self, site: &SiteId) -> watch::Receiver<u64> {
        self.sites.watch(site)
    }

    /// Wakes whenever an outcome of this letter was recorded by this process. A caller that waits for one letter is not
    /// woken by all the others of its site: a hundred such callers would ask ten thousand times.
    #[must_use]
    pub fn watch_letter(&self, message: Uuid) -> watch::Receiver<u64> {
        self.letters.watch(&message)
    }

    /// Tells those who watch the site, and those who watch the letters whose outcome counted.
    pub(super) fn recorded(&self, site: &SiteId, counted: &[Uuid]) {
        self.sites.tell(site);
        for message in counted {
            self.letters.tell(message);
        }
    }

    /// Tells that mail of this account is due.
    pub(super) fn due(&self, lane: Lane) {
        self.tell_due(lane, true);
    }

    /// Tells that a letter of this account is due; `other_mail`, that it is no part of a mailing.
    pub(super) fn tell_due(&self, lane: Lane, other_mail: bool) {
        *lock(&self.due).entry(lane).or_default() |= other_mail;
        self.due_added.notify_one();
    }

    /// The accounts for which mail became due since the last call, and whether some of it is no part of a mailing; waits
    /// until there is one.
    pub async fn next_due(&self) -> HashMap<Lane, bool> {
        loop {
            let due = std::mem::take(&mut *lock(&self.due));
            if !due.is_empty() {
                return due;
            }
            self.due_added.notified().await;
        }
    }
}

/// A topic more than so many, and those that nobody watches any more are forgotten.
const TOPICS: usize = 1_024;

/// Who watches what.
#[derive(Debug)]
struct Topics<Topic>(Mutex<HashMap<Topic, watch::Sender<u64>>>);

impl<Topic> Default for Topics<Topic> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Topic: Clone + Eq + Hash> Topics<Topic> {
    fn watch(&self, topic: &Topic) -> watch::Receiver<u64> {
        let mut topics = lock(&self.0);
        if topics.len() >= TOPICS {
            topics.retain(|_, sender| sender.receiver_count() > 0);
        }
        topics.entry(topic.clone()).or_default().subscribe()
    }

    /// Tells those who watch the topic; forgets one that nobody watches.
    fn tell(&self, topic: &Topic) {
        let mut topics = lock(&self.0);
        if let Some(sender) = topics.get(topic) {
            if sender.receiver_count() == 0 {
                topics.remove(topic);
            } else {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}

/// What is guarded here is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
