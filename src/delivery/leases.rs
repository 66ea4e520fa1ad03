//! What this process has leased, so that a lease that nobody works on is noticed and given back.
//!
//! Such leases come from a claim whose answer was lost, or from letters that could not be handed back: the heartbeat
//! keeps them alive although no worker knows of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Context;
use crate::store::queue::{self, Claim};
use crate::store::replicas::{self, Leased};

/// Time between two looks; a claim whose answer takes longer than this has failed.
const LOOK: Duration = Duration::from_secs(10);

/// A letter, and the attempt that was claimed for it.
pub(super) type InHand = (Uuid, i32);

/// The letters that workers or the recorder of this process have in hand.
#[derive(Default)]
pub(super) struct Leases {
    in_hand: Mutex<HashSet<InHand>>,
    in_doubt: AtomicBool,
}

impl Leases {
    /// These letters were claimed.
    pub(super) fn took(&self, claims: &[Claim]) {
        self.in_hand().extend(claims.iter().map(|claim| (claim.message, claim.attempt)));
    }

    /// These letters were recorded or handed back.
    pub(super) fn let_go(&self, letters: impl IntoIterator<Item = InHand>) {
        let mut in_hand = self.in_hand();
        for letter in letters {
            in_hand.remove(&letter);
        }
    }

    /// Something went wrong after which there may be leases that nobody works on.
    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    fn in_hand(&self) -> MutexGuard<'_, HashSet<InHand>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for leases that nobody works on, while there is doubt.
pub(super) struct Review {
    last: Instant,
    suspects: HashSet<Leased>,
}

impl Review {
    pub(super) fn new() -> Self {
        Self { last: Instant::now(), suspects: HashSet::new() }
    }

    /// Gives back what nobody worked on at this look and at the one before.
    pub(super) async fn look(&mut self, context: &Context) {
        if context.store.handover().take_doubt() {
            context.leases.doubt();
        }
        if !context.leases.in_doubt.load(Ordering::Relaxed) || self.last.elapsed() < LOOK {
            return;
        }
        self.last = Instant::now();
        let leased = match replicas::leased_by(&context.store, context.replica).await {
            Ok(leased) => leased,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "leases cannot be looked at");
                return;
            }
        };
        // The counters first: from there letters come into hands, and not back.
        let lying = context.store.handover().lying();
        let forgotten: HashSet<Leased> = {
            let in_hand = context.leases.in_hand();
            let is_known = |letter: &InHand| lying.contains(letter) || in_hand.contains(letter);
            leased.into_iter().filter(|lease| !is_known(&(lease.message, lease.attempt))).collect()
        };
        if forgotten.is_empty() {
            context.leases.in_doubt.store(false, Ordering::Relaxed);
        }
        for lease in forgotten.intersection(&self.suspects) {
            tracing::warn!(site = %lease.site, message = %lease.message, "a lease that nobody works on is given back");
            let letters = [(lease.message, lease.attempt)];
            let given =
                queue::hand_back(&context.store, &lease.site, context.replica, &letters, Duration::ZERO);
            if let Err(error) = given.await {
                tracing::warn!(error = &error as &dyn std::error::Error, "a lease cannot be given back");
            }
        }
        self.suspects = forgotten;
    }
}
