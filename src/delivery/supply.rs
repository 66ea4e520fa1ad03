//! Where a worker's letters come from: the counter of its account, then the table.

use uuid::Uuid;

use super::Context;
use super::connection::Connection;
use super::in_hand::InHand;
use super::sender::Sender;
use super::worker::{BATCH, Worker};
use crate::store::parking;
use crate::store::queue::{self, Claim, Wanted};

/// Letters that a worker is to send.
pub(super) struct Found {
    pub(super) claims: Vec<Claim>,
    /// Whether more lie at the counter.
    pub(super) more: bool,
    /// Whether the table was asked.
    pub(super) claimed: bool,
}

impl Worker {
    /// The next letters, those at the counter first; `None` when it is time to stop, or nothing can be recorded. Unless there
    /// is reason to `look`, the table is asked only where somebody told of mail there.
    pub(super) async fn next(&self, sender: &Sender, holder: Uuid, limit: u32, look: bool) -> Option<Found> {
        if !self.context.is_writable() {
            return None;
        }
        if sender.account.parking.is_none() && !self.stop.is_cancelled() {
            let (handed, more) = self.counter.take(usize::try_from(limit).unwrap_or(usize::MAX));
            if !handed.is_empty() {
                if more {
                    self.signals.wake();
                }
                self.context.leases.took(&handed);
                return Some(Found { claims: handed, more, claimed: false });
            }
            if !look && !self.signals.take_in_table() {
                return Some(Found { claims: Vec::new(), more: false, claimed: false });
            }
        }
        let claims = self.claim(sender, holder, limit).await?;
        Some(Found { claims, more: false, claimed: true })
    }

    /// The next letters; `None` when it is time to stop. Of a parked account one, as a probe, when its time has come.
    async fn claim(&self, sender: &Sender, holder: Uuid, limit: u32) -> Option<Vec<Claim>> {
        if self.stop.is_cancelled() {
            return None;
        }
        let Context { store, backoff, .. } = &*self.context;
        if sender.account.parking.is_none() {
            return self.claim_wanted(holder, Wanted::Any, limit).await;
        }
        match parking::begin_probe(store, &self.lane, *backoff).await {
            Ok(true) => self.claim_wanted(holder, Wanted::Probe, 1).await,
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a parked account cannot be probed");
                None
            }
        }
    }

    async fn claim_wanted(&self, holder: Uuid, wanted: Wanted, limit: u32) -> Option<Vec<Claim>> {
        let Context { store, replica, leases, .. } = &*self.context;
        match queue::claim(store, &self.lane, *replica, Some(holder), wanted, limit).await {
            Ok(claims) => {
                leases.took(&claims);
                Some(claims)
            }
            Err(error) => {
                leases.doubt();
                tracing::warn!(error = &error as &dyn std::error::Error, "mail cannot be claimed");
                None
            }
        }
    }

    /// The letter to send next. Other mail overtakes the mailings in hand, but for one that the server has heard of already.
    pub(super) async fn front(
        &self,
        in_hand: &InHand,
        holder: Uuid,
        left: u32,
        connection: &Connection,
    ) -> Option<Claim> {
        let claim = in_hand.front()?;
        if connection.has_announced() || !(claim.mailing && self.signals.take_other_mail()) {
            return Some(claim);
        }
        let most = left.clamp(1, BATCH);
        let mut others = self.counter.take_other_mail(usize::try_from(most).unwrap_or(usize::MAX));
        if others.is_empty() {
            others = self.claim_wanted(holder, Wanted::OtherMail, most).await.unwrap_or_default();
        } else {
            self.context.leases.took(&others);
        }
        in_hand.put_first(others);
        in_hand.front()
    }
}
