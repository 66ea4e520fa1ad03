//! The dispatcher: sees to it that an account with due mail has workers, and never too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::leases::Review;
use super::worker::{self, Worker};
use crate::store::queue::{self, Lane};

/// Time between two looks at the table, which tells of retries, of letters of other replicas and of freed leases.
const POLL: Duration = Duration::from_secs(1);
/// Sessions of one account at once.
const MAX_WORKERS_PER_LANE: usize = 5;
/// Sessions of this process at once.
const MAX_WORKERS: usize = 256;
/// Calls for help that may wait; a worker that finds no room goes on alone and calls again at its next full batch.
const CALLS: usize = 64;

/// The running workers of one account.
struct Crew {
    workers: usize,
    due: Arc<Notify>,
}

struct Dispatcher {
    context: Arc<Context>,
    stop: CancellationToken,
    crews: HashMap<Lane, Crew>,
    running: JoinSet<Lane>,
    calls: mpsc::Sender<Lane>,
    review: Review,
}

/// Dispatches until the soft stop, then waits for the workers to finish or hand back.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let (calls, mut called) = mpsc::channel(CALLS);
    let mut dispatcher = Dispatcher {
        context: Arc::clone(&context),
        stop: stop.clone(),
        crews: HashMap::new(),
        running: JoinSet::new(),
        calls,
        review: Review::new(),
    };
    let mut polls = interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            lanes = context.store.changes().next_due() => {
                for lane in lanes {
                    dispatcher.wake(lane);
                }
            }
            Some(lane) = called.recv() => dispatcher.reinforce(lane),
            Some(ended) = dispatcher.running.join_next() => dispatcher.leave(ended),
            _ = polls.tick() => dispatcher.poll().await,
        }
    }
    while let Some(ended) = dispatcher.running.join_next().await {
        dispatcher.leave(ended);
    }
}

impl Dispatcher {
    async fn poll(&mut self) {
        self.review.look(&self.context).await;
        match queue::due_lanes(&self.context.store).await {
            Ok(lanes) => lanes.into_iter().for_each(|due| self.wake(due.lane)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "due mail cannot be looked for");
            }
        }
    }

    /// Wakes an idle worker of the account, or starts its first one.
    fn wake(&mut self, lane: Lane) {
        match self.crews.get(&lane) {
            Some(crew) => crew.due.notify_one(),
            None => self.start(lane),
        }
    }

    /// Starts another worker for an account whose worker found more than it can do at once.
    fn reinforce(&mut self, lane: Lane) {
        let workers = self.crews.get(&lane).map_or(0, |crew| crew.workers);
        if workers < MAX_WORKERS_PER_LANE {
            self.start(lane);
        }
    }

    fn start(&mut self, lane: Lane) {
        if self.running.len() >= MAX_WORKERS {
            // The next poll tries again.
            return;
        }
        let crew = self.crews.entry(lane.clone()).or_insert_with(|| Crew { workers: 0, due: Arc::default() });
        crew.workers += 1;
        let worker = Worker {
            context: Arc::clone(&self.context),
            lane,
            due: Arc::clone(&crew.due),
            calls: self.calls.clone(),
            stop: self.stop.clone(),
        };
        self.running.spawn(worker::supervise(worker));
    }

    fn leave(&mut self, ended: Result<Lane, tokio::task::JoinError>) {
        let lane = match ended {
            Ok(lane) => lane,
            Err(error) => {
                // Supervision itself does not panic; if it did, the crew stays counted too high rather than be lost.
                tracing::error!(%error, "a supervisor failed");
                return;
            }
        };
        if let Some(crew) = self.crews.get_mut(&lane) {
            crew.workers -= 1;
            if crew.workers == 0 {
                self.crews.remove(&lane);
            }
        }
    }
}
