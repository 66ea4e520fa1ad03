//! Who calls: the key in the metadata, `authorization: Bearer <key>`, and whether it calls too often.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

use super::rate::Rate;
use super::strangers::{KeyHash, Strangers, missing};
use crate::domain::access::{Caller, is_key, key_hash};
use crate::domain::audit::Actor;
use crate::domain::error::{Problem, Reason};
use crate::metrics::Shed;
use crate::store::Store;
use crate::store::keys::{self, Key};

/// A key that was found good is asked for again after so long; a revoked one is dead within 5 s (API 9).
const REMEMBER: Duration = Duration::from_secs(2);
/// Keys remembered at once.
const MAX_REMEMBERED: usize = 10_000;
/// How exact the time of the last use is.
const USE_PRECISION: Duration = Duration::from_mins(1);

/// A stream asks so often whether its key still counts. With the time for which a good key is remembered, and the second
/// within which this is noticed, a revoked one is dead within 5 s.
pub(super) const KEY_CHECK: Duration = Duration::from_secs(1);

/// Finds out who calls.
pub(super) struct Authenticator {
    store: Store,
    /// Calls a second of a key that sets no limit of its own.
    calls_per_second: NonZeroU32,
    known: Mutex<HashMap<KeyHash, Known>>,
    strangers: Strangers,
}

/// A key that was found good.
#[derive(Clone)]
struct Known {
    caller: Caller,
    /// When it was asked for.
    since: Instant,
    calls: Rate,
    /// When its use was last noted from here.
    noting: Option<Instant>,
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
        Self { store, calls_per_second, known: Mutex::default(), strangers: Strangers::default() }
    }

    /// The caller behind a call's metadata. The call is counted.
    ///
    /// # Errors
    /// `KEY_MISSING` where there is no key or it does not count; `RATE_LIMITED`; `STORE_UNAVAILABLE`.
    pub(super) async fn caller(&self, metadata: &MetadataMap) -> Result<Credentials, Problem> {
        let header = metadata.get("authorization").and_then(|header| header.to_str().ok());
        let credentials = self.credentials(header).await?;
        self.count(&credentials).map_err(|wait| {
            self.store.metrics().calls.shed(Shed::KeyRate);
            let rate = self.rate_of(&credentials.caller);
            let text = format!("this key may make {rate} calls a second");
            Problem::new(Reason::RateLimited, text)
                .with("calls_per_second", rate.to_string())
                .retry_after(wait)
        })?;
        Ok(credentials)
    }

    /// The caller behind the header `authorization`, without counting the call.
    ///
    /// # Errors
    /// As [`Authenticator::caller`].
    pub(super) async fn credentials(&self, header: Option<&str>) -> Result<Credentials, Problem> {
        let key = header.and_then(bearer).ok_or_else(missing)?;
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
        if let Some(caller) = self.remembered(hash) {
            return Ok(caller);
        }
        let is_known = self.known().contains_key(hash);
        let _turn = if is_known { None } else { self.strangers.admit(&self.store, hash).await? };
        // Others with the same key may have been before.
        if let Some(caller) = self.remembered(hash) {
            return Ok(caller);
        }
        // What is found out is as old as the question.
        let asked = Instant::now();
        let Some(key) = keys::find(&self.store, hash).await? else {
            self.known().remove(hash);
            self.strangers.refuse(hash);
            return Err(missing());
        };
        let Key { caller, last_use_time, create_time: _, revoke_time: _ } = key;
        let is_due = last_use_time.is_none_or(|last| self.store.clock().now() - last >= USE_PRECISION);
        if self.remember(hash, &caller, asked, is_due) {
            tokio::spawn(record_use(self.store.clone(), *hash));
        }
        Ok(caller)
    }

    /// The caller of a key that was found good a moment ago.
    fn remembered(&self, hash: &KeyHash) -> Option<Caller> {
        let now = self.store.clock().now();
        let known = self.known();
        let Known { caller, since, calls: _, noting: _ } = known.get(hash)?;
        let counts = since.elapsed() < REMEMBER && caller.expire_time.is_none_or(|end| now < end);
        counts.then(|| caller.clone())
    }

    /// Remembers a good key; whether its use is to be noted, and nobody is at it.
    fn remember(&self, hash: &KeyHash, caller: &Caller, since: Instant, is_use_due: bool) -> bool {
        let mut known = self.known();
        if known.len() >= MAX_REMEMBERED && !known.contains_key(hash) {
            known.retain(|_, known| known.since.elapsed() < REMEMBER);
            if known.len() >= MAX_REMEMBERED {
                known.clear();
            }
        }
        let before = known.get(hash);
        let calls = before.map_or_else(|| Rate::new(since), |known| known.calls);
        let noting = before.and_then(|known| known.noting);
        let is_noted = noting.is_some_and(|then| then.elapsed() < USE_PRECISION);
        let notes = is_use_due && !is_noted;
        let noting = if notes { Some(since) } else { noting };
        known.insert(*hash, Known { caller: caller.clone(), since, calls, noting });
        notes
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
