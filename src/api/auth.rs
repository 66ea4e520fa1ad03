//! Who calls: the key in the metadata, `authorization: Bearer <key>`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

use crate::domain::access::{Caller, key_hash};
use crate::domain::audit::Actor;
use crate::domain::error::{Problem, Reason};
use crate::store::{Store, keys};

/// A key that was found good is asked for again after so long; a revoked one is dead within 5 s (API 9).
const REMEMBER: Duration = Duration::from_secs(2);
/// Keys remembered at once.
const MAX_REMEMBERED: usize = 10_000;

/// A stream asks so often whether its key still counts. With the time for which a good key is remembered, and the second
/// within which this is noticed, a revoked one is dead within 5 s.
pub(super) const KEY_CHECK: Duration = Duration::from_secs(1);

type KeyHash = [u8; 32];

/// Finds out who calls.
pub(super) struct Authenticator {
    store: Store,
    remembered: Mutex<HashMap<KeyHash, (Caller, Instant)>>,
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
    pub(super) fn new(store: Store) -> Self {
        Self { store, remembered: Mutex::default() }
    }

    /// The caller behind a call's metadata.
    ///
    /// # Errors
    /// `KEY_MISSING` where there is no key or it does not count; `STORE_UNAVAILABLE`.
    pub(super) async fn caller(&self, metadata: &MetadataMap) -> Result<Credentials, Problem> {
        let header = metadata.get("authorization").ok_or_else(missing)?;
        let key = header.to_str().ok().and_then(bearer).ok_or_else(missing)?;
        let hash = key_hash(key.as_bytes());
        let caller = self.find(&hash).await?;
        Ok(Credentials { caller, hash })
    }

    /// Whether the credentials still count.
    ///
    /// # Errors
    /// As [`Authenticator::caller`].
    pub(super) async fn still_counts(&self, credentials: &Credentials) -> Result<(), Problem> {
        self.find(&credentials.hash).await.map(|_| ())
    }

    async fn find(&self, hash: &KeyHash) -> Result<Caller, Problem> {
        let now = self.store.clock().now();
        let remembered = self.remembered().get(hash).filter(|(_, since)| since.elapsed() < REMEMBER).cloned();
        if let Some((caller, _)) = remembered
            && caller.expire_time.is_none_or(|end| now < end)
        {
            return Ok(caller);
        }
        let caller = keys::find(&self.store, hash).await?.ok_or_else(missing)?;
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(*hash, (caller.clone(), Instant::now()));
        Ok(caller)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<KeyHash, (Caller, Instant)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn missing() -> Problem {
    Problem::new(
        Reason::KeyMissing,
        "a valid access key is required: metadata `authorization: Bearer <key>`, made by `postroom key create`",
    )
}
