//! A worker: claims due letters of one account and sends them one after the other over one session.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Connection, Sender};
use super::{Context, history};
use crate::store::queue::{self, Claim, Lane, Wanted};

/// Letters claimed at once: few, so that several workers share a backlog, and a stop hands back little.
const BATCH: u32 = 16;
/// How long a session is kept open for the next letter; servers close idle ones after minutes.
const LINGER: Duration = Duration::from_secs(5);
/// A worker that could not read what it needs leaves its letters alone for so long.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// A worker of one account.
pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) lane: Lane,
    /// Mail of this account became due.
    pub(super) due: Arc<Notify>,
    /// Where to call for another worker.
    pub(super) calls: mpsc::Sender<Lane>,
    pub(super) stop: CancellationToken,
}

/// The claims a worker has in hand, the one it works on in front.
type InHand = Arc<Mutex<VecDeque<Claim>>>;

/// Runs a worker to its end. If it panics, the letter at which it did is counted and set aside for a while, and its
/// other letters are handed back.
pub(super) async fn supervise(worker: Worker) -> Lane {
    let (context, lane) = (Arc::clone(&worker.context), worker.lane.clone());
    let in_hand = InHand::default();
    let running = tokio::spawn(worker.run(Arc::clone(&in_hand)));
    if let Err(error) = running.await {
        tracing::error!(%error, site = %lane.site, account = lane.account, "a worker failed");
        let mut claims = std::mem::take(&mut *lock(&in_hand));
        if let Some(claim) = claims.pop_front() {
            let outcome = history::after_panic(claim, context.store.clock().now());
            context.record(&lane, Some(outcome), None).await;
        }
        context.hand_back(&lane, claims, AFTER_TROUBLE).await;
    }
    lane
}

impl Worker {
    async fn run(self, in_hand: InHand) {
        let mut connection = Connection::default();
        while let Some(claims) = self.claim().await {
            if claims.is_empty() {
                let woken = self.stop.run_until_cancelled(self.due.notified());
                match timeout(LINGER, woken).await {
                    Ok(Some(())) => continue,
                    Ok(None) | Err(_) => break,
                }
            }
            if claims.len() == usize::try_from(BATCH).unwrap_or(usize::MAX) {
                // No room means that the dispatcher is busy; the next full batch calls again.
                let _ = self.calls.try_send(self.lane.clone());
            }
            *lock(&in_hand) = claims.into();
            self.work(&in_hand, &mut connection).await;
        }
        connection.close().await;
    }

    /// The next letters; `None` when it is time to stop.
    async fn claim(&self) -> Option<Vec<Claim>> {
        if self.stop.is_cancelled() {
            return None;
        }
        let Context { store, replica, .. } = &*self.context;
        match queue::claim(store, &self.lane, *replica, Wanted::Any, BATCH).await {
            Ok(claims) => {
                self.context.leases.took(&claims);
                Some(claims)
            }
            Err(error) => {
                self.context.leases.doubt();
                tracing::warn!(error = &error as &dyn std::error::Error, "mail cannot be claimed");
                None
            }
        }
    }

    /// Sends the claims in hand. At a stop, or when the account cannot be read, hands them back.
    async fn work(&self, in_hand: &InHand, connection: &mut Connection) {
        let sender = match Sender::load(&self.context.store, &self.lane).await {
            Ok(sender) => sender,
            Err(error) => {
                let (site, account) = (&self.lane.site, self.lane.account);
                tracing::error!(error = &error as &dyn std::error::Error, %site, account, "an account cannot be read");
                let claims = std::mem::take(&mut *lock(in_hand));
                return self.context.hand_back(&self.lane, claims, AFTER_TROUBLE).await;
            }
        };
        while let Some(claim) = front(in_hand) {
            if self.stop.is_cancelled() {
                let claims = std::mem::take(&mut *lock(in_hand));
                return self.context.hand_back(&self.lane, claims, Duration::ZERO).await;
            }
            let Context { store, replica, .. } = &*self.context;
            match queue::body(store, &self.lane.site, *replica, claim.message, claim.attempt).await {
                // Deleted since it was claimed, its place in the queue with it.
                Ok(None) => self.context.leases.let_go([claim.message]),
                Ok(Some(body)) => {
                    let claim = Claim { cancelled: claim.cancelled || body.cancelled, ..claim };
                    match history::settled(claim, store.clock().now()) {
                        Ok(claim) => {
                            attempt::run(
                                &self.context,
                                &self.lane,
                                &sender,
                                claim,
                                &body.content,
                                connection,
                            )
                            .await;
                        }
                        Err(outcome) => self.context.record(&self.lane, Some(outcome), None).await,
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a letter cannot be read");
                    self.context.hand_back(&self.lane, [claim].into(), AFTER_TROUBLE).await;
                }
            }
            lock(in_hand).pop_front();
        }
    }
}

fn front(in_hand: &InHand) -> Option<Claim> {
    lock(in_hand).front().cloned()
}

/// The list is whole after every statement, so a panic does not spoil it.
fn lock(in_hand: &InHand) -> MutexGuard<'_, VecDeque<Claim>> {
    in_hand.lock().unwrap_or_else(PoisonError::into_inner)
}
