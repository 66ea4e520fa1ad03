//! The heartbeat of this replica: it holds the leases, keeps the clock in step, and knows whether the store can be
//! written.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{Store, StoreError, replicas};

/// Time between two heartbeats: frequent enough that an outage of the store shows within 2 s.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A heartbeat that takes longer has failed.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two looks at the database's clock.
const SYNCHRONISE: Duration = Duration::from_secs(30);

/// The heartbeat of one replica. It beats until it is told to stop, then signs off.
#[derive(Debug)]
pub struct Pulse {
    replica: Uuid,
    writable: watch::Sender<bool>,
}

impl Pulse {
    /// A replica with an id of its own; it has not been heard yet.
    #[must_use]
    pub fn new() -> Self {
        Self { replica: Uuid::now_v7(), writable: watch::Sender::new(false) }
    }

    /// Its id.
    #[must_use]
    pub const fn replica(&self) -> Uuid {
        self.replica
    }

    /// Whether the store could be written at the last heartbeat.
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Beats until `stop`, then signs off, so that what is still leased is free at once.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut synchronised: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let stale = synchronised.is_none_or(|last| last.elapsed() >= SYNCHRONISE);
            if self.beat(store, stale).await && stale {
                synchronised = Some(Instant::now());
            }
        }
        if let Ok(Err(error)) = timeout(HEARTBEAT_TIMEOUT, replicas::sign_off(store, self.replica)).await {
            tracing::warn!(%error, "this replica could not sign off; its leases end by themselves");
        }
    }

    async fn beat(&self, store: &Store, synchronise: bool) -> bool {
        let beat = async {
            replicas::heartbeat(store, self.replica).await?;
            if synchronise { store.synchronise().await } else { Ok(()) }
        };
        let result: Result<Result<(), StoreError>, _> = timeout(HEARTBEAT_TIMEOUT, beat).await;
        let writable = matches!(result, Ok(Ok(())));
        store.metrics().database.beat(writable);
        let changed = self.writable.send_if_modified(|was| std::mem::replace(was, writable) != writable);
        if changed && writable {
            tracing::info!("the store can be written");
        }
        if changed && !writable {
            if let Ok(Err(error)) = result {
                tracing::error!(error = &error as &dyn std::error::Error, "the store cannot be written");
            } else {
                tracing::error!("the store does not answer");
            }
        }
        writable
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
