//! The claims that a worker has in hand, the one it works on in front; its supervisor has them, too, should it fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::queue::Claim;

/// Claims in the order in which they are sent.
#[derive(Clone, Default)]
pub(super) struct InHand(Arc<Mutex<VecDeque<Claim>>>);

impl InHand {
    /// Takes new claims into an empty hand.
    pub(super) fn put(&self, claims: Vec<Claim>) {
        *self.lock() = claims.into();
    }

    /// The claim in front.
    pub(super) fn front(&self) -> Option<Claim> {
        self.lock().front().cloned()
    }

    /// The claim behind the one in front.
    pub(super) fn second(&self) -> Option<Claim> {
        self.lock().get(1).cloned()
    }

    /// The claim in front is done with.
    pub(super) fn drop_front(&self) {
        self.lock().pop_front();
    }

    /// Puts claims in front of the others, in their order.
    pub(super) fn put_first(&self, claims: Vec<Claim>) {
        let mut in_hand = self.lock();
        for claim in claims.into_iter().rev() {
            in_hand.push_front(claim);
        }
    }

    /// Whether one of them is part of a mailing.
    pub(super) fn has_mailings(&self) -> bool {
        self.lock().iter().any(|claim| claim.mailing)
    }

    /// Empties the hand.
    pub(super) fn take_all(&self) -> VecDeque<Claim> {
        std::mem::take(&mut *self.lock())
    }

    /// The list is whole after every statement, so a panic does not spoil it.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
