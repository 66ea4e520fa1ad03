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
/// A database that has answered no heartbeat for so long is gone, whatever it may yet say: nobody is to wait for it longer.
const SILENCE: Duration = Duration::from_secs(4);
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

    /// Whether the store can be written: the last heartbeat was, and nothing was refused for want of room since.
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Beats until `stop`, then signs off, so that what is still leased is free at once.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut synchronised: Option<Instant> = None;
        let (mut watch, mut want) = (Watch::default(), store.want_of_room());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Not only at the next heartbeat: by then much would be sent that cannot be recorded. The store's own end
                // does not come before this one.
                Ok(()) = want.changed() => {
                    if want.borrow_and_update().is_some() {
                        self.tell(store, false, "something was refused: the disk is full, or it is read-only");
                    }
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let stale = synchronised.is_none_or(|last| last.elapsed() >= SYNCHRONISE);
            let beaten = self.beat(store, stale).await;
            if beaten == Beaten::Heard && stale {
                synchronised = Some(Instant::now());
            }
            let lost = watch.look(beaten, store.pulse_connections(), Instant::now());
            if lost.others {
                tracing::warn!("connections to the database that may lead nowhere are given up");
                store.renew().await;
            }
            if lost.pulse {
                store.renew_pulse().await;
            }
        }
        if let Ok(Err(error)) = timeout(HEARTBEAT_TIMEOUT, replicas::sign_off(store, self.replica)).await {
            tracing::warn!(%error, "this replica could not sign off; its leases end by themselves");
        }
    }

    async fn beat(&self, store: &Store, synchronise: bool) -> Beaten {
        let beat = async {
            replicas::heartbeat(store, self.replica).await?;
            if synchronise {
                store.synchronise().await?;
            }
            store.metrics().database.beat();
            store.has_room().await
        };
        let result: Result<Result<bool, StoreError>, _> = timeout(HEARTBEAT_TIMEOUT, beat).await;
        match result {
            Ok(Ok(has_room)) => {
                self.tell(store, has_room, "there is no room");
                Beaten::Heard
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                if self.tell(store, false, "the heartbeat failed") {
                    tracing::error!(error, "the heartbeat failed");
                }
                Beaten::Refused
            }
            Err(_) => {
                self.tell(store, false, "it does not answer");
                Beaten::Unanswered
            }
        }
    }

    /// Tells everybody whether the store can be written, and if not, why; whether that is news.
    fn tell(&self, store: &Store, writable: bool, why_not: &str) -> bool {
        store.metrics().database.writable(writable);
        store.handover().suspend(!writable);
        let changed = self.writable.send_if_modified(|was| std::mem::replace(was, writable) != writable);
        if changed && writable {
            tracing::info!("the store can be written");
        }
        if changed && !writable {
            tracing::error!(why_not, "the store cannot be written");
        }
        changed
    }
}

/// What became of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beaten {
    Heard,
    /// There was an answer, or the connection ended.
    Refused,
    Unanswered,
}

/// Tells when connections are to be given up. A machine that goes without a word ends none of them, and where an answer is
/// awaited nothing is sent that its successor could refuse.
#[derive(Debug, Default)]
struct Watch {
    /// Connections that the heartbeat had needed when it was last heard.
    connections: u64,
    /// Since when no heartbeat is answered.
    silent: Option<Instant>,
    /// Whether the connections of this silence were given up.
    given_up: bool,
}

/// Connections that are to be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    /// The heartbeat's own.
    pulse: bool,
    /// All others.
    others: bool,
}

impl Watch {
    /// Which of the connections made so far are to be given up. The others, when the heartbeat is heard over a new one, after
    /// which nobody knows where the older ones lead, or the silence lasts too long for those who wait. The heartbeat's own with
    /// the second one in a row that is not answered, and each after it; a stall that ends before keeps its connection.
    fn look(&mut self, beaten: Beaten, connections: u64, now: Instant) -> Lost {
        match beaten {
            Beaten::Heard => {
                let before = std::mem::replace(&mut self.connections, connections);
                (self.silent, self.given_up) = (None, false);
                Lost { pulse: false, others: before > 0 && before != connections }
            }
            Beaten::Refused => {
                self.silent = None;
                Lost::default()
            }
            Beaten::Unanswered => {
                let pulse = self.silent.is_some();
                let others = !self.given_up && now - *self.silent.get_or_insert(now) >= SILENCE;
                self.given_up |= others;
                Lost { pulse, others }
            }
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_given_up_after_a_new_one_and_in_a_long_silence() {
        use Beaten::{Heard, Refused, Unanswered};
        let start = Instant::now();
        // Second, what became of the heartbeat, connections it has needed, what is given up: its own, the others.
        let table = [
            (0, Unanswered, 0, false, false),
            (1, Heard, 1, false, false),
            (2, Heard, 1, false, false),
            // A stall: the same connection answers in the end.
            (3, Unanswered, 1, false, false),
            (4, Heard, 1, false, false),
            // Another one is needed.
            (7, Unanswered, 1, false, false),
            (8, Unanswered, 1, true, false),
            (9, Heard, 2, false, true),
            (10, Heard, 2, false, false),
            // It was refused and soon ends.
            (11, Refused, 2, false, false),
            (12, Heard, 3, false, true),
            // Nobody answers: once, and once more when somebody does.
            (20, Unanswered, 3, false, false),
            (23, Unanswered, 3, true, false),
            (24, Unanswered, 3, true, true),
            (30, Unanswered, 3, true, false),
            (40, Heard, 4, false, true),
            (41, Heard, 4, false, false),
        ];
        let mut watch = Watch::default();
        for (second, beaten, connections, pulse, others) in table {
            let now = start + Duration::from_secs(second);
            assert_eq!(watch.look(beaten, connections, now), Lost { pulse, others }, "second {second}");
        }
    }
}
