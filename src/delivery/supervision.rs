//! Supervision of a worker: what it had in hand when it failed is not lost, and its session is given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::in_hand::InHand;
use super::worker::{AFTER_TROUBLE, End, Worker};
use super::{Context, history};
use crate::store::connections;
use crate::store::queue::Lane;

/// Wait between two tries to give a session back.
const RELEASE_RETRY: Duration = Duration::from_secs(1);

/// Runs a worker to its end. If it panics, the letter at which it did is counted and set aside for a while, and its
/// other letters are handed back.
pub(super) async fn supervise(worker: Worker) -> (Lane, End) {
    let (context, lane) = (Arc::clone(&worker.context), worker.lane.clone());
    let counter = Arc::clone(&worker.counter);
    let (in_hand, holder) = (InHand::default(), Uuid::now_v7());
    // Ends with this supervisor: after the hard stop nothing is written to any server.
    let running = AbortOnDropHandle::new(tokio::spawn(worker.run(in_hand.clone(), holder)));
    let end = match running.await {
        Ok(end) => end,
        Err(error) => {
            tracing::error!(%error, site = %lane.site, account = lane.account, "a worker failed");
            let mut claims = in_hand.take_all();
            if let Some(claim) = claims.pop_front() {
                let outcome = history::after_panic(claim, context.store.clock().now());
                context.record(&lane, Some(outcome), None).await;
            }
            context.hand_back(&lane, claims, AFTER_TROUBLE).await;
            End::Done
        }
    };
    // What the last worker leaves at the counter is free for everybody.
    let left = context.store.handover().leave(&lane, &counter);
    context.hand_back(&lane, left.into(), Duration::ZERO).await;
    if end != End::NoConnection {
        release(&context, &lane, holder).await;
    }
    (lane, end)
}

/// Gives the worker's session back, however long the store does not answer: else it would count as open as long as this
/// process lives. At the soft stop the replica's signing off does it.
async fn release(context: &Context, lane: &Lane, holder: Uuid) {
    while let Err(error) = connections::release(&context.store, lane, holder).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a session waits to be given back");
        if context.stop.run_until_cancelled(sleep(RELEASE_RETRY)).await.is_none() {
            return;
        }
    }
}
