//! Keys that were not seen here of late: they are looked up, but whoever invents keys keeps the store from nobody.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

use super::rate::Rate;
use crate::domain::error::{Problem, Reason};
use crate::store::{Store, keys};

/// Those that nothing is known of share so many look-ups a second.
const LOOKUPS: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// Looked up at once: they leave connections to the others.
const AT_ONCE: usize = 2;
/// Waiting for that; more are put off.
const WAITING: usize = 256;
/// One that was refused is refused again for so long without a look.
const REFUSED: Duration = Duration::from_secs(2);
/// Refused ones remembered at once.
const MAX_REFUSED: usize = 1_000;
/// The keys that exist are read again at most so often.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Keys read at once, and remembered in all; a store with more has those of them looked up as strangers.
const MAX_KEYS: usize = 100_000;
/// A key may be seen by others so long after the time that it bears: its transaction took so long.
const COMMITTED_WITHIN: Duration = Duration::from_secs(30);

/// SHA-256 of a key.
pub(super) type KeyHash = [u8; 32];

/// What is known of keys that nobody presented here of late.
pub(super) struct Strangers {
    seen: Mutex<Seen>,
    /// The keys that exist, as they were last read.
    existing: AsyncMutex<Existing>,
    lookups: Semaphore,
    waiting: Semaphore,
}

struct Seen {
    rate: Rate,
    /// Those that were found to be none, and when.
    refused: HashMap<KeyHash, Instant>,
}

#[derive(Default)]
struct Existing {
    hashes: HashSet<KeyHash>,
    newest: Option<OffsetDateTime>,
    /// When they were last read, and what came of it.
    read: Option<(Instant, Result<(), Problem>)>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            seen: Mutex::new(Seen { rate: Rate::new(Instant::now()), refused: HashMap::new() }),
            existing: AsyncMutex::default(),
            lookups: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(WAITING),
        }
    }
}

impl Strangers {
    /// Lets a key be looked up: at once where it exists, as far as is known, else by turns.
    ///
    /// # Errors
    /// `KEY_MISSING` where it was refused a moment ago, `RATE_LIMITED` where too many come; `STORE_UNAVAILABLE`.
    pub(super) async fn admit(
        &self,
        store: &Store,
        hash: &KeyHash,
    ) -> Result<Option<SemaphorePermit<'_>>, Problem> {
        if self.seen().refused.get(hash).is_some_and(|then| then.elapsed() < REFUSED) {
            return Err(missing());
        }
        if self.exists(store, hash).await? {
            return Ok(None);
        }
        let place = self.waiting.try_acquire().map_err(|_| put_off(READ_AGAIN))?;
        self.seen().rate.take(Instant::now(), LOOKUPS).map_err(put_off)?;
        let turn = self.lookups.acquire().await;
        drop(place);
        // It is never closed.
        Ok(turn.ok())
    }

    /// Remembers that this is no key.
    pub(super) fn refuse(&self, hash: &KeyHash) {
        let refused = &mut self.seen().refused;
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(*hash, Instant::now());
    }

    /// Whether there was such a key when the keys were last read, which is a moment ago.
    async fn exists(&self, store: &Store, hash: &KeyHash) -> Result<bool, Problem> {
        // One reads, and the others wait for it.
        let mut existing = self.existing.lock().await;
        if existing.hashes.contains(hash) {
            return Ok(true);
        }
        let last = existing.read.clone().filter(|(then, _)| then.elapsed() < READ_AGAIN);
        if let Some((_, read)) = last {
            return read.map(|()| false);
        }
        let read = existing.read_on(store).await;
        existing.read = Some((Instant::now(), read.clone()));
        read.map(|()| existing.hashes.contains(hash))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Existing {
    /// Reads what was made since.
    async fn read_on(&mut self, store: &Store) -> Result<(), Problem> {
        let since = self.newest.map_or(OffsetDateTime::UNIX_EPOCH, |newest| newest - COMMITTED_WITHIN);
        let made = keys::made_since(store, since, i64::try_from(MAX_KEYS).unwrap_or(i64::MAX)).await?;
        if self.hashes.len() + made.len() > 2 * MAX_KEYS {
            // Those that were revoked since are among them.
            self.hashes.clear();
        }
        self.newest = made.last().map(|(_, time)| *time).or(self.newest);
        self.hashes.extend(made.into_iter().map(|(hash, _)| hash));
        Ok(())
    }
}

fn put_off(wait: Duration) -> Problem {
    let text = "too many calls come with keys that are not known here";
    Problem::new(Reason::RateLimited, text).retry_after(wait)
}

/// What answers who has no key, or one that does not count: the same words whatever is wrong with it.
pub(super) fn missing() -> Problem {
    Problem::new(
        Reason::KeyMissing,
        "a valid access key is required: metadata `authorization: Bearer <key>`, made by `postroom key create`",
    )
}
