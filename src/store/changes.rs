//! What just changed, told inside this process, and gathered for the others: hints that save waiting, never the truth. The
//! tables are the truth, and everybody who listens here also looks there every second or so.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::queue::{DueMail, Lane};
use super::word::{self, Hint, Word};
use crate::domain::site::SiteId;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Changes {
    sites: Topics<SiteId>,
    letters: Topics<Uuid>,
    /// How often this process changed accounts or settings.
    configuration: AtomicU64,
    due: Mutex<Due>,
    due_added: Notify,
    /// What other replicas have not yet been told.
    untold: Mutex<Word>,
    untold_added: Notify,
}

/// Mail that became due.
#[derive(Debug, Default)]
pub struct Due {
    /// Accounts with such mail, and what of it.
    pub lanes: HashMap<Lane, DueMail>,
    /// Accounts whose mail another replica cannot send, since all their sessions are held, here perhaps.
    pub passed_on: HashSet<Lane>,
}

impl Changes {
    /// Wakes whenever letters or transcripts of the site were recorded, by another process a little later.
    #[must_use]
    pub fn watch(&self, site: &SiteId) -> watch::Receiver<u64> {
        self.sites.watch(site)
    }

    /// Wakes whenever an outcome of this letter was recorded, by another process a little later. A caller that waits
    /// for one letter is not woken by all the others of its site: a hundred such callers would ask ten thousand times.
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
        lock(&self.untold).recorded(site, counted);
        self.untold_added.notify_one();
    }

    /// Tells that accounts or settings changed: what was read of them before counts no more.
    pub(super) fn configured(&self) {
        self.configuration.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`configured`](Self::configured) was told.
    pub(super) fn of_configuration(&self) -> u64 {
        self.configuration.load(Ordering::Acquire)
    }

    /// Tells that mail of this account is due.
    pub(super) fn due(&self, lane: Lane) {
        self.tell_due(lane, DueMail { other_mail: true, in_table: true });
    }

    /// Tells what of this account's mail is due.
    pub(super) fn tell_due(&self, lane: Lane, mail: DueMail) {
        let mut due = lock(&self.due);
        let known = due.lanes.entry(lane).or_default();
        *known = known.and(mail);
        drop(due);
        self.due_added.notify_one();
    }

    /// Tells other replicas that mail of this account is due and finds no free session here: who holds one may idle. Other
    /// due mail they are not told of, since all of them would reach for it, and only one can have it.
    pub fn pass_on(&self, lane: Lane) {
        lock(&self.untold).pass_on(lane);
        self.untold_added.notify_one();
    }

    /// The mail that became due since the last call; waits until there is some.
    pub async fn next_due(&self) -> Due {
        loop {
            let due = std::mem::take(&mut *lock(&self.due));
            if !(due.lanes.is_empty() && due.passed_on.is_empty()) {
                return due;
            }
            self.due_added.notified().await;
        }
    }

    /// What other replicas are to be told; waits until there is something.
    pub(super) async fn next_payload(&self) -> String {
        loop {
            if let Some(payload) = self.take_payload() {
                return payload;
            }
            self.untold_added.notified().await;
        }
    }

    /// What other replicas are to be told, if anything.
    pub(super) fn take_payload(&self) -> Option<String> {
        std::mem::take(&mut *lock(&self.untold)).payload()
    }

    /// Wakes those who wait for what another replica told.
    pub(super) fn hear(&self, payload: &str) {
        let mut marks = HashSet::new();
        for hint in word::hints(payload) {
            match hint {
                Hint::Site(site) => self.sites.tell(&site),
                Hint::EverySite => self.sites.tell_all(|_| true),
                Hint::Letter(mark) => _ = marks.insert(mark),
                Hint::EveryLetter => self.letters.tell_all(|_| true),
                Hint::Lane(lane) => {
                    lock(&self.due).passed_on.insert(lane);
                    self.due_added.notify_one();
                }
            }
        }
        if !marks.is_empty() {
            self.letters.tell_all(|message| marks.contains(&word::mark(*message)));
        }
    }

    /// Wakes everyone: it is not known what other replicas told meanwhile.
    pub(super) fn wake_everyone(&self) {
        self.sites.tell_all(|_| true);
        self.letters.tell_all(|_| true);
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
                wake(sender);
            }
        }
    }

    /// Tells those who watch one of these topics; forgets what nobody watches.
    fn tell_all(&self, is_told: impl Fn(&Topic) -> bool) {
        lock(&self.0).retain(|topic, sender| {
            if sender.receiver_count() > 0 && is_told(topic) {
                wake(sender);
            }
            sender.receiver_count() > 0
        });
    }
}

fn wake(sender: &watch::Sender<u64>) {
    sender.send_modify(|count| *count = count.wrapping_add(1));
}

/// What is guarded here is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_heard_wakes_those_it_is_about() {
        let (here, elsewhere) = (Changes::default(), Changes::default());
        let sites = ["shop", "blog"].map(|site| SiteId::parse(site).unwrap());
        let letters = [Uuid::now_v7(), Uuid::now_v7()];
        let mut watching: Vec<_> = sites.iter().map(|site| here.watch(site)).collect();
        watching.extend(letters.iter().map(|letter| here.watch_letter(*letter)));
        let mut woken = || -> Vec<bool> {
            watching
                .iter_mut()
                .map(|watcher| {
                    let woken = watcher.has_changed().unwrap();
                    watcher.mark_unchanged();
                    woken
                })
                .collect()
        };
        elsewhere.recorded(&sites[0], &letters[1..]);
        here.hear(&elsewhere.next_payload().await);
        assert_eq!(woken(), [true, false, false, true]);
        assert_eq!(elsewhere.take_payload(), None, "it is told once");
        assert_eq!(here.take_payload(), None, "what is heard is not told on");
        here.hear("*");
        assert_eq!(woken(), [true, true, false, false]);
        here.hear("#*");
        assert_eq!(woken(), [false, false, true, true]);
        here.wake_everyone();
        assert_eq!(woken(), [true; 4]);

        let lane = Lane { site: sites[0].clone(), account: 7 };
        elsewhere.pass_on(lane.clone());
        here.hear(&elsewhere.next_payload().await);
        let due = here.next_due().await;
        assert_eq!((due.lanes.len(), due.passed_on), (0, HashSet::from([lane])));
    }
}
