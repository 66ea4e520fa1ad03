//! The dispatcher: sees to it that an account with due mail has workers, and never too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::crew::Signals;
use super::leases::Review;
use super::supervision;
use super::waiting::Waiting;
use super::worker::{End, Worker};
use crate::domain::limits::MAX_CONNECTIONS;
use crate::store::queue::{self, DueLane, DueMail, Lane};

/// Time between two looks at the table, which tells of retries, of letters of other replicas and of freed leases.
const POLL: Duration = Duration::from_secs(1);
/// and so many times what the last one took, while somebody holds an old snapshot and it walks past all that left the table;
const TIMES: u32 = 20;
/// but at most: retries wait for it.
const AT_MOST: Duration = Duration::from_secs(10);
/// Sessions of this process at once.
const MAX_WORKERS: usize = 256;
/// Sessions of one site at once: whatever its servers do, other sites have the rest.
const MAX_WORKERS_PER_SITE: usize = MAX_WORKERS / 2;
/// Second and further sessions of an account are opened only while fewer than this are open.
const HELP_BELOW: usize = MAX_WORKERS * 3 / 4;
/// Calls for help that may wait; a worker that finds no room goes on alone and calls again at its next full batch.
const CALLS: usize = 64;
/// An account that is parked, or all of whose sessions are held, by other replicas perhaps, is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// An account whose server takes no further session gets none for so long.
const WITHOUT_HELP: Duration = Duration::from_mins(1);

/// The running workers of one account.
#[derive(Default)]
struct Crew {
    workers: usize,
    signals: Arc<Signals>,
}

struct Dispatcher {
    context: Arc<Context>,
    stop: CancellationToken,
    crews: HashMap<Lane, Crew>,
    running: JoinSet<(Lane, End)>,
    calls: mpsc::Sender<Lane>,
    waiting: Waiting,
    crowded: watch::Sender<bool>,
    /// Accounts all of whose sessions are held or that are parked, and since when that is known.
    left_alone: HashMap<Lane, Instant>,
    /// Accounts whose server takes no further session, and since when that is known.
    without_help: HashMap<Lane, Instant>,
    review: Review,
    /// When the table is looked at next, at the earliest.
    next_look: Instant,
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
        waiting: Waiting::default(),
        crowded: watch::Sender::new(false),
        left_alone: HashMap::new(),
        without_help: HashMap::new(),
        review: Review::new(),
        next_look: Instant::now(),
    };
    let mut polls = interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            due = context.store.changes().next_due() => {
                for (lane, mail) in due.lanes {
                    dispatcher.wake(DueLane { lane, mail });
                }
                due.passed_on.iter().for_each(|lane| dispatcher.take_over(lane));
            }
            Some(lane) = called.recv() => dispatcher.reinforce(lane),
            Some(ended) = dispatcher.running.join_next() => dispatcher.leave(ended),
            _ = polls.tick() => dispatcher.poll().await,
        }
        dispatcher.fill();
    }
    while let Some(ended) = dispatcher.running.join_next().await {
        dispatcher.leave(ended);
    }
}

impl Dispatcher {
    async fn poll(&mut self) {
        self.left_alone.retain(|_, since| since.elapsed() < LEFT_ALONE);
        self.without_help.retain(|_, since| since.elapsed() < WITHOUT_HELP);
        if !self.context.is_writable() {
            return;
        }
        self.review.look(&self.context).await;
        let began = Instant::now();
        if began < self.next_look {
            return;
        }
        let found = queue::due_lanes(&self.context.store).await;
        self.next_look = Instant::now() + began.elapsed().saturating_mul(TIMES).min(AT_MOST);
        match found {
            Ok(lanes) => {
                for due in lanes {
                    self.wake(due);
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "due mail cannot be looked for");
            }
        }
    }

    /// Wakes an idle worker of the account, or has it wait for its first one. Other mail that would wait for mailings gets
    /// a worker of its own.
    fn wake(&mut self, due: DueLane) {
        let DueLane { lane, mail } = due;
        match self.crews.get(&lane) {
            Some(crew) => {
                if crew.signals.tell(mail) {
                    self.reinforce(lane);
                }
            }
            // Or it is parked: then nobody holds a session, and nobody minds.
            None if self.left_alone.contains_key(&lane) => self.context.store.changes().pass_on(lane),
            None => self.waiting.add(lane),
        }
    }

    /// Wakes an idle worker of the account for mail that another replica has no session for. Who has none either does
    /// nothing: it would only be passed on again.
    fn take_over(&self, lane: &Lane) {
        if let Some(crew) = self.crews.get(lane) {
            // Other mail it may be; another worker would find no session.
            let _ = crew.signals.tell(DueMail { other_mail: true, in_table: true });
        }
    }

    /// Starts another worker for an account whose workers have more than they can do at once, if there is room.
    fn reinforce(&mut self, lane: Lane) {
        let workers = self.crews.get(&lane).map_or(0, |crew| crew.workers);
        let is_room = self.context.is_writable()
            && self.running.len() < HELP_BELOW
            && !self.waiting.has_turn(MAX_WORKERS_PER_SITE)
            && self.waiting.working(&lane.site) < MAX_WORKERS_PER_SITE
            && workers < usize::try_from(MAX_CONNECTIONS).unwrap_or(usize::MAX)
            && !self.left_alone.contains_key(&lane)
            && self.without_help.get(&lane).is_none_or(|since| since.elapsed() > WITHOUT_HELP);
        if is_room {
            self.waiting.begins(&lane.site);
            self.start(lane);
        }
    }

    /// Gives those who wait a worker, as far as there is room, and what it does can be recorded.
    fn fill(&mut self) {
        while self.context.is_writable()
            && self.running.len() < MAX_WORKERS
            && let Some(lane) = self.waiting.next(MAX_WORKERS_PER_SITE)
        {
            self.start(lane);
        }
        self.crowded.send_if_modified(|crowded| {
            let is_crowded = self.waiting.has_turn(MAX_WORKERS_PER_SITE);
            std::mem::replace(crowded, is_crowded) != is_crowded
        });
    }

    fn start(&mut self, lane: Lane) {
        let crew = self.crews.entry(lane.clone()).or_default();
        crew.workers += 1;
        let worker = Worker {
            context: Arc::clone(&self.context),
            counter: self.context.store.handover().serve(&lane, self.context.replica),
            lane,
            signals: Arc::clone(&crew.signals),
            calls: self.calls.clone(),
            crowded: self.crowded.subscribe(),
            stop: self.stop.clone(),
        };
        self.running.spawn(supervision::supervise(worker));
    }

    fn leave(&mut self, ended: Result<(Lane, End), JoinError>) {
        let (lane, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Supervision itself does not panic; if it did, the crew stays counted too high rather than be lost.
                tracing::error!(%error, "a supervisor failed");
                return;
            }
        };
        self.waiting.ends(&lane.site);
        match end {
            End::Done => {}
            End::NoConnection | End::Parked => {
                self.left_alone.insert(lane.clone(), Instant::now());
            }
            End::Crowded => {
                self.without_help.insert(lane.clone(), Instant::now());
            }
        }
        if let Some(crew) = self.crews.get_mut(&lane) {
            crew.workers -= 1;
            if crew.workers == 0 {
                self.crews.remove(&lane);
                if end == End::NoConnection {
                    self.context.store.changes().pass_on(lane);
                }
            }
        }
    }
}
