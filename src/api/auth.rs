//! Who calls: the key in the metadata, `authorization: Bearer <key>`, and whether it calls too often.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;

use super::rate::Rate;
use crate::domain::access::{Caller, is_key, key_hash};
use crate::domain::audit::Actor;
use crate::domain::error::{Problem, Reason};
use crate::store::Store;
use crate::store::keys::{self, Key};

/// A key that was found good is asked for again after so long; a revoked one is dead within 5 s (API 9).
const REMEMBER: Duration = Duration::from_secs(2);
/// Keys remembered at once.
const MAX_REMEMBERED: usize = 10_000;
/// A key that was good within so long is looked up as often as is needed; strangers share what follows, so that whoever
/// invents keys keeps the store from nobody.
const KNOWN: Duration = Duration::from_mins(10);
/// Strangers looked up a second.
const STRANGERS: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// Strangers looked up at once: they leave connections to the others.
const STRANGERS_AT_ONCE: usize = 2;
/// Strangers remembered at once.
const MAX_REFUSED: usize = 1_000;
/// How exact the time of the last use is.
const USE_PRECISION: Duration = Duration::from_mins(1);

/// A stream asks so often whether its key still counts. With the time for which a good key is remembered, and the second
/// within which this is noticed, a revoked one is dead within 5 s.
pub(super) const KEY_CHECK: Duration = Duration::from_secs(1);

type KeyHash = [u8; 32];

/// Finds out who calls.
pub(super) struct Authenticator {
    store: Store,
    /// Calls a second of a key that sets no limit of its own.
    calls_per_second: NonZeroU32,
    known: Mutex<HashMap<KeyHash, Known>>,
    strangers: Mutex<Strangers>,
    /// Strangers that may be looked up at once.
    lookups: Semaphore,
}

/// What is known of keys that are none.
struct Strangers {
    /// How often they may be looked up.
    rate: Rate,
    /// Those that were found to be none, and when.
    refused: HashMap<KeyHash, Instant>,
}

/// A key that was found good.
#[derive(Clone)]
struct Known {
    caller: Caller,
    since: Instant,
    calls: Rate,
}

/// A caller together with the key it came with, so that a long stream can ask again.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) caller: Caller,
    hash: KeyHash,
}

impl Credentials {
    /// The caller, as notes name it.
    pub(super) fn actor(&self) -> Actor {
        Actor::from(&self.caller)
    }
}

impl Authenticator {
    pub(super) fn new(store: Store, calls_per_second: NonZeroU32) -> Self {
        Self {
            store,
            calls_per_second,
            known: Mutex::default(),
            strangers: Mutex::new(Strangers { rate: Rate::new(Instant::now()), refused: HashMap::new() }),
            lookups: Semaphore::new(STRANGERS_AT_ONCE),
        }
    }

    /// The caller behind a call's metadata. The call is counted.
    ///
    /// # Errors
    /// `KEY_MISSING` where there is no key or it does not count; `RATE_LIMITED`; `STORE_UNAVAILABLE`.
    pub(super) async fn caller(&self, metadata: &MetadataMap) -> Result<Credentials, Problem> {
        let credentials = self.credentials(metadata).await?;
        self.count(&credentials).map_err(|wait| {
            let rate = self.rate_of(&credentials.caller);
            let text = format!("this key may make {rate} calls a second");
            Problem::new(Reason::RateLimited, text)
                .with("calls_per_second", rate.to_string())
                .retry_after(wait)
        })?;
        Ok(credentials)
    }

    /// The same without counting the call.
    ///
    /// # Errors
    /// As [`Authenticator::caller`].
    pub(super) async fn credentials(&self, metadata: &MetadataMap) -> Result<Credentials, Problem> {
        let header = metadata.get("authorization").ok_or_else(missing)?;
        let key = header.to_str().ok().and_then(bearer).ok_or_else(missing)?;
        let hash = key_hash(key.as_bytes());
        let caller = self.find(&hash).await?;
        Ok(Credentials { caller, hash })
    }

    /// Whether the credentials still count.
    ///
    /// # Errors
    /// As [`Authenticator::credentials`].
    pub(super) async fn still_counts(&self, credentials: &Credentials) -> Result<(), Problem> {
        self.find(&credentials.hash).await.map(|_| ())
    }

    /// Waits until the key may make one more call, and counts it: the item of a stream is slowed down, not refused.
    pub(super) async fn pace(&self, credentials: &Credentials) {
        while let Err(wait) = self.count(credentials) {
            tokio::time::sleep(wait).await;
        }
    }

    fn count(&self, credentials: &Credentials) -> Result<(), Duration> {
        let rate = self.rate_of(&credentials.caller);
        let mut known = self.known();
        known.get_mut(&credentials.hash).map_or(Ok(()), |known| known.calls.take(Instant::now(), rate))
    }

    fn rate_of(&self, caller: &Caller) -> NonZeroU32 {
        caller.calls_per_second.unwrap_or(self.calls_per_second)
    }

    async fn find(&self, hash: &KeyHash) -> Result<Caller, Problem> {
        let now = self.store.clock().now();
        let known = self.known().get(hash).cloned();
        let is_known = known.as_ref().is_some_and(|known| known.since.elapsed() < KNOWN);
        if let Some(Known { caller, since, calls: _ }) = known
            && since.elapsed() < REMEMBER
            && caller.expire_time.is_none_or(|end| now < end)
        {
            return Ok(caller);
        }
        let _turn = if is_known {
            None
        } else {
            self.admit_stranger(hash)?;
            // It is never closed.
            self.lookups.acquire().await.ok()
        };
        let Some(key) = keys::find(&self.store, hash).await? else {
            self.known().remove(hash);
            self.refuse(hash);
            return Err(missing());
        };
        let Key { caller, last_use_time, create_time: _, revoke_time: _ } = key;
        if last_use_time.is_none_or(|last| now - last >= USE_PRECISION) {
            tokio::spawn(record_use(self.store.clone(), *hash));
        }
        self.remember(hash, &caller);
        Ok(caller)
    }

    /// Lets a key be looked up that was not seen of late; one that was just refused is refused again.
    fn admit_stranger(&self, hash: &KeyHash) -> Result<(), Problem> {
        let mut strangers = self.strangers();
        if strangers.refused.get(hash).is_some_and(|then| then.elapsed() < REMEMBER) {
            return Err(missing());
        }
        strangers.rate.take(Instant::now(), STRANGERS).map_err(|wait| {
            let text = "too many calls come with keys that are not known here";
            Problem::new(Reason::RateLimited, text).retry_after(wait)
        })
    }

    fn refuse(&self, hash: &KeyHash) {
        let refused = &mut self.strangers().refused;
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(*hash, Instant::now());
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, hash: &KeyHash, caller: &Caller) {
        let now = Instant::now();
        let mut known = self.known();
        if known.len() >= MAX_REMEMBERED && !known.contains_key(hash) {
            known.retain(|_, known| known.since.elapsed() < REMEMBER);
            if known.len() >= MAX_REMEMBERED {
                known.clear();
            }
        }
        let calls = known.get(hash).map_or_else(|| Rate::new(now), |known| known.calls);
        known.insert(*hash, Known { caller: caller.clone(), since: now, calls });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<KeyHash, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the use of a key. A database that cannot be written now is no reason to refuse the call.
async fn record_use(store: Store, hash: KeyHash) {
    if let Err(error) = keys::record_use(&store, &hash).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "the use of a key was not noted");
    }
}

/// The key, if the header holds what can be one.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && is_key(key)).then_some(key)
}

fn missing() -> Problem {
    Problem::new(
        Reason::KeyMissing,
        "a valid access key is required: metadata `authorization: Bearer <key>`, made by `postroom key create`",
    )
}
