//! A worker: claims due letters of one account and sends them one after the other over one session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::{self, Then};
use super::connection::Connection;
use super::crew::Signals;
use super::in_hand::InHand;
use super::sender::Sender;
use super::supply::Found;
use super::unopened::Unopened;
use super::{Context, history};
use crate::store::handover::Counter;
use crate::store::parking::Trouble;
use crate::store::queue::{self, Body, Claim, Lane, Ready};
use crate::store::{StoreError, connections, lanes, parking};

/// Letters claimed at once: few, so that several workers share a backlog, and a stop hands back little.
pub(super) const BATCH: u32 = 16;
/// How long a session is kept open for the next letter; servers close idle ones after minutes.
const LINGER: Duration = Duration::from_secs(5);
/// A worker that finds nothing looks so often whether another one has parked the account.
const PARKED_UNNOTICED: Duration = Duration::from_secs(1);
/// While other accounts wait for a worker, nobody works longer than this.
const TURN: Duration = Duration::from_secs(10);
/// A worker that could not read what it needs leaves its letters alone for so long.
pub(super) const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// A worker of one account.
pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) lane: Lane,
    pub(super) signals: Arc<Signals>,
    /// Where to call for another worker.
    pub(super) calls: mpsc::Sender<Lane>,
    /// Where letters lie that this process has just taken.
    pub(super) counter: Arc<Counter>,
    /// Whether other accounts wait for a worker: then nobody lingers.
    pub(super) crowded: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There was nothing more to do, or it was time to stop.
    Done,
    /// All sessions that the account may have are held.
    NoConnection,
    /// The account is parked, and it is not yet time for a probe.
    Parked,
    /// The server takes no further session of the account.
    Crowded,
}

/// Whether a worker goes on after the claims in hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// So many letters may be claimed.
    Claim(u32),
    /// One may be claimed, when there is a slot again.
    Paused,
    /// No: the account is at fault, or cannot be read.
    End,
    /// No: the server takes no further session.
    Crowded,
}

impl Worker {
    /// Works until there is nothing more to do. `holder` names the session it takes.
    pub(super) async fn run(mut self, in_hand: InHand, holder: Uuid) -> End {
        let Some(mut sender) = self.load().await else { return End::Done };
        let Context { store, replica, .. } = &*self.context;
        let slot = match connections::take(store, &self.lane, *replica, holder, sender.max_connections())
            .await
        {
            Ok(Some(slot)) => slot,
            Ok(None) => return End::NoConnection,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a session's slot cannot be taken");
                return End::Done;
            }
        };
        let began = Instant::now();
        let mut connection = Connection::new(Arc::clone(&self.signals));
        let mut end = End::Done;
        let mut limit = if sender.pace().is_free() { BATCH } else { 1 };
        // Whether there may be mail in the table that nobody told of.
        let mut look = true;
        while let Some(Found { claims, more, claimed }) = self.next(&sender, holder, limit, look).await {
            look = claimed && !claims.is_empty();
            let probing = sender.account.parking.is_some();
            if claims.is_empty() {
                if probing {
                    // Its mail is leased by others, or gone.
                    self.put_probe_off(self.context.backoff.first).await;
                    break;
                }
                if sender.age() > PARKED_UNNOTICED {
                    // Woken, and yet there is nothing to claim: another worker may have parked the account meanwhile, and
                    // then only a probe finds anything.
                    let Some(loaded) = self.load().await else { break };
                    sender = loaded;
                    if sender.account.parking.is_some() || !self.holds(holder).await {
                        break;
                    }
                }
                if !self.linger().await {
                    break;
                }
                continue;
            }
            if !claims.iter().all(|claim| sender.fits(claim)) {
                let Some(loaded) = self.load().await else {
                    self.context.hand_back(&self.lane, claims.into(), AFTER_TROUBLE).await;
                    break;
                };
                sender = loaded;
            }
            if i64::from(slot) > i64::from(sender.max_connections()) {
                // The account may have fewer sessions than when this one began.
                self.context.hand_back(&self.lane, claims.into(), Duration::ZERO).await;
                break;
            }
            let is_backlog = more || claims.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
            in_hand.put(claims);
            match self.work(&in_hand, holder, &mut sender, &mut connection, is_backlog).await {
                Next::Claim(next) => {
                    limit = next.clamp(1, BATCH);
                    if connection.has_announced() {
                        // What was announced did not come: it was cancelled, say. The server waits for it.
                        connection.close(&self.context, &self.lane).await;
                    }
                    self.mind_counter(&sender, &connection);
                    if probing && sender.account.parking.is_some() {
                        // There was nothing to send: the next letter tells.
                        self.put_probe_off(Duration::ZERO).await;
                    }
                }
                Next::Paused => {
                    limit = 1;
                    look = true;
                    if probing && sender.account.parking.is_some() {
                        self.put_probe_off(self.context.backoff.first).await;
                        break;
                    }
                }
                Next::End => break,
                Next::Crowded => {
                    end = End::Crowded;
                    break;
                }
            }
            if began.elapsed() > TURN && *self.crowded.borrow() {
                break;
            }
        }
        connection.close(&self.context, &self.lane).await;
        // What could not be begun, since it could not have been recorded.
        self.hand_back_all(&in_hand, Duration::ZERO).await;
        if sender.account.parking.is_some() { End::Parked } else { end }
    }

    /// Whether this worker's session still counts as its own: after a silence of this replica others may have it.
    async fn holds(&self, holder: Uuid) -> bool {
        match connections::holds(&self.context.store, &self.lane, holder).await {
            Ok(holds) => holds,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a session's slot cannot be looked for"
                );
                false
            }
        }
    }

    /// Reads what sending takes; `None` where it cannot be read or the account is gone. An account whose password cannot be
    /// opened is parked.
    async fn load(&self) -> Option<Sender> {
        let Context { store, .. } = &*self.context;
        let error = match Sender::load(store, &self.lane).await {
            Ok(sender) => return sender,
            Err(error) => error,
        };
        let (site, account) = (&self.lane.site, self.lane.account);
        tracing::error!(error = &error as &dyn std::error::Error, %site, account, "an account cannot be read");
        if let StoreError::Vault(_) = &error
            && let Err(error) = self.park_unopened().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "an account cannot be parked");
        }
        None
    }

    /// Parks the account, whose password does not open. Where it is parked already, this is a probe that failed, or no news.
    async fn park_unopened(&self) -> Result<(), StoreError> {
        let Context { store, backoff, .. } = &*self.context;
        let Some(unopened) = Unopened::find(&self.context, &self.lane).await? else { return Ok(()) };
        let probing = parking::begin_probe(store, &self.lane, *backoff).await?;
        self.note(&unopened.trouble, probing).await;
        unopened.tell(&self.context, &self.lane, probing).await
    }

    /// Waits a while for mail; whether there may be some.
    async fn linger(&mut self) -> bool {
        let woken = async {
            tokio::select! {
                () = self.stop.cancelled() => false,
                _ = self.crowded.wait_for(|crowded| *crowded) => false,
                () = self.signals.idle() => true,
            }
        };
        timeout(LINGER, woken).await.unwrap_or(false)
    }

    /// Has letters that this process takes handed over while they can go at once: what they need is known, and a session is
    /// open.
    fn mind_counter(&self, sender: &Sender, connection: &Connection) {
        let is_ready = connection.is_open()
            && sender.pace().is_free()
            && !sender.is_in_trouble()
            && !self.stop.is_cancelled();
        if is_ready {
            self.counter.open(sender.versions());
        } else {
            self.counter.close();
        }
    }

    /// Sends the claims in hand. At a stop, or when the account is at fault or out of slots, hands them back.
    async fn work(
        &self,
        in_hand: &InHand,
        holder: Uuid,
        sender: &mut Sender,
        connection: &mut Connection,
        mut is_backlog: bool,
    ) -> Next {
        let mut left = u32::MAX;
        let has_mailings = in_hand.has_mailings();
        let _working = has_mailings.then(|| self.signals.works_on_mailings());
        while let Some(claim) = self.front(in_hand, holder, left, connection).await {
            if self.stop.is_cancelled() {
                self.hand_back_all(in_hand, Duration::ZERO).await;
                return Next::End;
            }
            if !self.context.is_writable() {
                return Next::End;
            }
            let next = self.to_announce(sender, in_hand, connection);
            let then = self.send(sender, claim, next.as_ref(), connection).await;
            in_hand.drop_front();
            match then {
                Then::GoOn { left: more } => left = more,
                Then::Skip => continue,
                Then::Crowded(claim) => {
                    in_hand.put_first(vec![claim]);
                    self.hand_back_all(in_hand, Duration::ZERO).await;
                    return Next::Crowded;
                }
                Then::Wait(untried) => {
                    in_hand.put_first(untried.into_iter().collect());
                    self.hand_back_all(in_hand, Duration::ZERO).await;
                    if sender.is_in_trouble() && connection.is_open() {
                        // No slot, but a session: so much is known.
                        self.end_trouble(sender).await;
                    }
                    return Next::Paused;
                }
                Then::Trouble(trouble) => {
                    self.note(&trouble, sender.account.parking.is_some()).await;
                    self.hand_back_all(in_hand, Duration::ZERO).await;
                    return Next::End;
                }
            }
            if sender.is_in_trouble() && connection.is_open() {
                self.end_trouble(sender).await;
            }
            if is_backlog && connection.is_open() {
                is_backlog = false;
                // Only now that a session is open: nobody else needs to find out whether the server is there. No room
                // means that the dispatcher is busy; the next full batch calls again.
                let _ = self.calls.try_send(self.lane.clone());
            }
        }
        Next::Claim(left)
    }

    /// Notes what is wrong with the account.
    async fn note(&self, trouble: &Trouble, probing: bool) {
        let Context { store, backoff, .. } = &*self.context;
        let note = parking::note(store, &self.lane, trouble, probing, *backoff, rand::random());
        if let Err(error) = store.unless_given_up(note).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "an account cannot be parked");
        }
    }

    /// A probe that tried nothing is made up for so much later.
    async fn put_probe_off(&self, wait: Duration) {
        if let Err(error) = parking::put_probe_off(&self.context.store, &self.lane, wait).await {
            // Then it comes with the next one.
            tracing::warn!(error = &error as &dyn std::error::Error, "a probe cannot be put off");
        }
    }

    /// Sends one letter, and announces the next one.
    async fn send(
        &self,
        sender: &mut Sender,
        claim: Claim,
        next: Option<&Claim>,
        connection: &mut Connection,
    ) -> Then {
        let Context { store, replica, .. } = &*self.context;
        if let Some(ready) = claim.ready.clone().filter(Ready::is_fresh)
            && sender.fits(&claim)
        {
            return match history::settled(claim, store.clock().now()) {
                Ok(claim) => {
                    let content = &ready.content;
                    attempt::run(&self.context, &self.lane, sender, claim, content, next, connection).await
                }
                Err(outcome) => {
                    self.context.record(&self.lane, Some(outcome), None).await;
                    Then::Skip
                }
            };
        }
        let body = match queue::body(store, &self.lane, *replica, claim.message, claim.attempt).await {
            Ok(Some(body)) => body,
            // Deleted since it was claimed, its place in the queue with it.
            Ok(None) => {
                self.context.leases.let_go([(claim.message, claim.attempt)]);
                return Then::Skip;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a letter cannot be read");
                self.context.hand_back(&self.lane, [claim].into(), AFTER_TROUBLE).await;
                return Then::Skip;
            }
        };
        let Body { content, cancelled, may_send, account_version, settings_version } = body;
        let claim =
            Claim { cancelled: claim.cancelled || cancelled, account_version, settings_version, ..claim };
        // Cancelled or too late: it ends, whether or not it may be sent.
        let claim = match history::settled(claim, store.clock().now()) {
            Ok(claim) => claim,
            Err(outcome) => {
                self.context.record(&self.lane, Some(outcome), None).await;
                return Then::Skip;
            }
        };
        if !may_send {
            // Its account or its site was switched off since, and it waits; or deleted, and who does that ends it.
            self.context.hand_back(&self.lane, [claim].into(), Duration::ZERO).await;
            return Then::Skip;
        }
        if !sender.fits(&claim) {
            // Changed while other letters were sent: what counts now counts for this one.
            let Some(loaded) = self.load().await else {
                self.context.hand_back(&self.lane, [claim].into(), AFTER_TROUBLE).await;
                return Then::Skip;
            };
            *sender = loaded;
        }
        attempt::run(&self.context, &self.lane, sender, claim, &content, next, connection).await
    }

    /// The account works: it is no longer parked.
    async fn end_trouble(&self, sender: &mut Sender) {
        let store = &self.context.store;
        match store.unless_given_up(lanes::resume_now(store, &self.lane.site, self.lane.account)).await {
            Ok(()) => {
                sender.account.parking = None;
                sender.account.failures = 0;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an account cannot be resumed");
            }
        }
    }

    async fn hand_back_all(&self, in_hand: &InHand, wait: Duration) {
        self.context.hand_back(&self.lane, in_hand.take_all(), wait).await;
    }
}
