//! Delivery: letters that are due are claimed, sent and recorded.
//!
//! A dispatcher starts workers for accounts that have due mail (`dispatch`); each worker claims batches of its account
//! and sends them over one session (`worker`, `attempt`); what it learns goes to one recorder, which writes outcomes
//! and transcripts in batches (`record`). No database transaction is open while anything is sent.

mod announcing;
mod attempt;
mod checks;
mod clean;
mod connection;
mod counting;
mod crew;
mod dispatch;
mod history;
mod in_hand;
mod keys;
mod leases;
mod record;
mod replica;
mod rules;
mod sender;
mod supervision;
mod supply;
mod trouble;
mod turnstile;
mod unopened;
mod waiting;
mod worker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::announcing::Deaf;
pub use self::keys::watch_keys;
use self::leases::Leases;
use self::record::Record;
pub use self::replica::Pulse;
use crate::domain::log::Chunk;
use crate::domain::parking::Backoff;
use crate::shutdown::Shutdown;
use crate::smtp::Connector;
use crate::store::Store;
use crate::store::queue::{self, Claim, Lane, Outcome};

/// Records that may wait for the recorder; when it is full, senders wait for the database.
const RECORDS_IN_FLIGHT: usize = 256;

/// What everybody in here works with.
struct Context {
    store: Store,
    connector: Arc<Connector>,
    replica: Uuid,
    records: mpsc::Sender<Record>,
    leases: Arc<Leases>,
    backoff: Backoff,
    /// Whose servers hear no announcements.
    deaf: Deaf,
    /// Whether the store can be written.
    writable: watch::Receiver<bool>,
    /// The soft stop.
    stop: CancellationToken,
}

/// Runs delivery until the soft stop: then nothing is claimed any more, letters under way are finished, others handed
/// back, and what was learnt is recorded. At the hard stop everything is dropped; leases make it good.
///
/// `pulse` is the heartbeat under which this replica holds its leases; it must beat on until this returns.
/// `backoff` tells how often parked accounts are probed.
pub async fn run(
    store: Store,
    connector: Arc<Connector>,
    backoff: Backoff,
    pulse: &Pulse,
    shutdown: &Shutdown,
) {
    let (records, inbox) = mpsc::channel(RECORDS_IN_FLIGHT);
    let leases = Arc::<Leases>::default();
    let replica = pulse.replica();
    let context = Arc::new(Context {
        store: store.clone(),
        connector,
        replica,
        records,
        leases: Arc::clone(&leases),
        backoff,
        deaf: Deaf::default(),
        writable: pulse.writable(),
        stop: shutdown.soft(),
    });
    let tasks = TaskTracker::new();
    let housekeeping = store.clone();
    let recorder = tasks.spawn(record::run(store, leases, inbox));
    let (stop, mut heard) = (shutdown.soft(), pulse.writable());
    let dispatcher = tasks.spawn(async move {
        // Before its first heartbeat a replica can claim nothing.
        let first = stop.run_until_cancelled(heard.wait_for(|heard| *heard)).await;
        if first.is_some_and(|heard| heard.is_ok()) {
            dispatch::run(context, stop).await;
        }
    });
    let housekeeper = tasks.spawn(clean::run(housekeeping, backoff.sweep(), shutdown.soft()));
    tasks.close();
    if shutdown.hard().run_until_cancelled(tasks.wait()).await.is_none() {
        tracing::warn!("delivery is cut off; its letters are free again when their leases end");
        dispatcher.abort();
        housekeeper.abort();
        recorder.abort();
    }
}

impl Context {
    /// Hands something to the recorder; waits while it is behind.
    async fn record(&self, lane: &Lane, outcome: Option<Outcome>, chunk: Option<Chunk>) {
        if self.records.send(Record { site: lane.site.clone(), outcome, chunk }).await.is_err() {
            // Only after the hard stop; the lease makes it good.
            tracing::warn!("an outcome came too late to be recorded");
        }
    }

    /// Whether what becomes of letters can be recorded: else nothing is claimed, and nothing begun.
    fn is_writable(&self) -> bool {
        *self.writable.borrow()
    }

    /// Gives claims back untried and uncounted; they are due again after `wait`. They are kept until that can be written, or
    /// this replica's end gives them back.
    async fn hand_back(&self, lane: &Lane, claims: VecDeque<Claim>, wait: Duration) {
        let letters: Vec<_> = claims.iter().map(|claim| (claim.message, claim.attempt)).collect();
        if letters.is_empty() {
            return;
        }
        let mut writable = self.writable.clone();
        // An error is the end, too.
        let _ = self.stop.run_until_cancelled(writable.wait_for(|writable| *writable)).await;
        // Before: the next claim of it, maybe at once and by this process, has the same number.
        self.leases.let_go(letters.iter().copied());
        if let Err(error) = queue::hand_back(&self.store, &lane.site, self.replica, &letters, wait).await {
            let count = letters.len();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                count,
                "letters cannot be handed back yet"
            );
            self.leases.doubt();
        }
    }
}
