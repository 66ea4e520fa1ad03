//! Which letter is announced with the dot of the one before: it will almost surely be the next one over the same session.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::history;
use super::in_hand::InHand;
use super::sender::Sender;
use super::worker::Worker;
use crate::store::queue::{Claim, Lane};

/// So long nothing is announced to a server that did not hear it, took offence, or may have.
const DEAF_FOR: Duration = Duration::from_hours(1);
/// Accounts that are remembered at once.
const MOST: usize = 10_000;

/// The accounts whose servers hear no announcements, and since when that is known.
#[derive(Default)]
pub(super) struct Deaf(Mutex<HashMap<Lane, Instant>>);

impl Deaf {
    /// Notes one.
    pub(super) fn note(&self, lane: &Lane) {
        let mut deaf = self.lock();
        if deaf.len() >= MOST {
            deaf.clear();
        }
        deaf.insert(lane.clone(), Instant::now());
    }

    /// Whether this is one.
    pub(super) fn knows(&self, lane: &Lane) -> bool {
        self.lock().get(lane).is_some_and(|since| since.elapsed() < DEAF_FOR)
    }

    /// The map is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// The letter behind the one in front, if nothing that is known now keeps it from going at once over the same session. When
    /// its turn comes it is looked at like any other.
    pub(super) fn to_announce(
        &self,
        sender: &Sender,
        in_hand: &InHand,
        connection: &Connection,
    ) -> Option<Claim> {
        let goes_on = sender.pace().is_free()
            && !sender.is_in_trouble()
            && !self.stop.is_cancelled()
            && connection.carries_another(sender);
        if !goes_on {
            return None;
        }
        let claim = in_hand.second()?;
        let is_overtaken = claim.mailing && self.signals.has_other_mail();
        if is_overtaken || claim.after_interruption || claim.ready.is_none() || !sender.fits(&claim) {
            return None;
        }
        history::settled(claim, self.context.store.clock().now()).ok()
    }
}
