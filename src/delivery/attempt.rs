//! One attempt for one letter: over the session that is open, or a new one; its transcript flows while it runs.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::history::{self, Span};
use super::record::Record;
use super::{Context, checks};
use crate::domain::account::Account;
use crate::domain::address::Address;
use crate::domain::log::{Chunk, Entry, LogId};
use crate::domain::message::{Policy, RecipientState};
use crate::domain::outcome::{Again, Class, RecipientResult, Scope, Step, Verdict};
use crate::domain::reply::Reply;
use crate::domain::settings::StoredSettings;
use crate::smtp::{Letter, Session, Target, Transcript};
use crate::store::queue::{Claim, Lane};
use crate::store::{Store, StoreError, accounts, passwords, settings};

/// A running attempt shows its transcript at least so often (DESIGN 7).
const FLUSH: Duration = Duration::from_millis(100);

/// All that sending through an account takes, as it was when it was read.
pub(super) struct Sender {
    account: Account,
    target: Target,
    settings: StoredSettings,
}

impl Sender {
    /// Reads account, password and settings.
    pub(super) async fn load(store: &Store, lane: &Lane) -> Result<Self, StoreError> {
        let Lane { site, account } = lane;
        let account =
            accounts::find(store, site, *account).await?.ok_or(StoreError::Corrupt("account of a letter"))?;
        let auth = passwords::open(store, site, account.id)
            .await?
            .ok_or(StoreError::Corrupt("account of a letter"))?;
        let settings = settings::find(store, site).await?.ok_or(StoreError::Corrupt("settings of a site"))?;
        let target = Target { server: account.profile.server.clone(), auth };
        Ok(Self { account, target, settings: settings.stored })
    }

    /// What of the transcript is to be stored now; `None` where there is nothing.
    fn entries(&self, transcript: &Transcript) -> Option<Vec<Entry>> {
        let entries = transcript.take();
        (self.settings.save_logs() && !entries.is_empty()).then_some(entries)
    }
}

/// The session of a worker, kept from letter to letter.
#[derive(Default)]
pub(super) struct Connection {
    /// Names the session in transcripts.
    id: Uuid,
    /// The session and the version of the account it was opened for.
    open: Option<(Session, i64)>,
}

impl Connection {
    /// Lets go of a session that is not fit for the next letter of this account.
    async fn prepare(&mut self, sender: &Sender) {
        if let Some((session, version)) = &mut self.open
            && *version == sender.account.version
            && !session.is_stale()
        {
            return;
        }
        self.close().await;
        self.id = Uuid::now_v7();
    }

    /// Opens a session if none is open.
    async fn open(
        &mut self,
        context: &Context,
        sender: &Sender,
        transcript: &Transcript,
    ) -> Result<&mut Session, RecipientResult> {
        if self.open.is_none() {
            let timeout = sender.settings.connection_timeout();
            let opened = Session::open(&context.connector, &sender.target, timeout, transcript).await;
            checks::note(&context.store, &sender.account, opened.as_ref()).await;
            let session = opened.map_err(|failure| RecipientResult {
                class: Class::Retry,
                step: failure.step,
                reply: failure.reply,
            })?;
            self.open = Some((session, sender.account.version));
        }
        match &mut self.open {
            Some((session, _)) => Ok(session),
            None => Err(unreached("no session")),
        }
    }

    async fn deliver(
        &mut self,
        context: &Context,
        sender: &Sender,
        letter: &Letter<'_>,
        transcript: &Transcript,
    ) -> Vec<RecipientResult> {
        let mut reused = self.open.is_some();
        loop {
            let session = match self.open(context, sender, transcript).await {
                Ok(session) => session,
                Err(result) => return vec![result; letter.recipients.len()],
            };
            let results = session.deliver(letter, transcript).await;
            if !(reused && session.lost_while_idle()) {
                return results;
            }
            // The server gave up the idle session: at once on a new one, no attempt counted (CASES 26).
            self.open = None;
            reused = false;
        }
    }

    /// Ends the session, politely where its state is known.
    pub(super) async fn close(&mut self) {
        if let Some((session, _)) = self.open.take()
            && session.is_usable()
        {
            session.quit().await;
        }
    }
}

/// Makes an attempt and hands its outcome to the recorder.
pub(super) async fn run(
    context: &Context,
    lane: &Lane,
    sender: &Sender,
    claim: Claim,
    body: &[u8],
    connection: &mut Connection,
) {
    connection.prepare(sender).await;
    let clock = context.store.clock();
    let transcript = Transcript::new(sender.settings.log_level(), clock.clone());
    let (session, message, attempt) = (connection.id, claim.message, claim.attempt);
    let chunk = |entries| Chunk {
        site: lane.site.clone(),
        log: LogId::send(sender.account.profile.ownership.origin, lane.account),
        session,
        message: Some((message, attempt)),
        entries,
    };
    let start = clock.now();
    let results = {
        let mut sending = pin!(send(context, sender, &claim, body, connection, &transcript));
        let mut flushes = interval(FLUSH);
        flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        flushes.reset();
        loop {
            tokio::select! {
                biased;
                results = &mut sending => break results,
                _ = flushes.tick() => {
                    // Never waits: with no room in the channel the entries stay until the next time.
                    if let Ok(permit) = context.records.try_reserve()
                        && let Some(entries) = sender.entries(&transcript)
                    {
                        let site = lane.site.clone();
                        permit.send(Record { site, outcome: None, chunk: Some(chunk(entries)) });
                    }
                }
            }
        }
    };
    let span = Span { start, end: clock.now() };
    let chunk = sender.entries(&transcript).map(chunk);
    let intervals = sender.settings.retry_intervals();
    let policy = Policy {
        retry_intervals: &intervals,
        on_uncertain: sender.settings.on_uncertain(),
        expire_time: claim.expire_time,
        jitter: rand::random(),
    };
    let pending = claim
        .recipients
        .iter()
        .enumerate()
        .filter(|(_, r)| r.state == RecipientState::Pending)
        .map(|(n, _)| n);
    let verdict = |result| Verdict { result, scope: Scope::Recipient, again: Again::ByInterval };
    let verdicts = pending.zip(results.into_iter().map(verdict)).collect();
    let outcome = history::of_attempt(claim, verdicts, span, &policy);
    context.record(lane, Some(outcome), chunk).await;
}

/// Sends to the recipients that are pending; one result for each.
async fn send(
    context: &Context,
    sender: &Sender,
    claim: &Claim,
    body: &[u8],
    connection: &mut Connection,
    transcript: &Transcript,
) -> Vec<RecipientResult> {
    let pending = claim.recipients.iter().filter(|r| r.state == RecipientState::Pending);
    let recipients: Result<Vec<Address>, _> = pending.map(|r| Address::parse(&r.address)).collect();
    let envelope = Address::parse(&claim.envelope_sender).and_then(|from| Ok((from, recipients?)));
    let (from, recipients) = match envelope {
        Ok(envelope) => envelope,
        Err(error) => return vec![unreached(&error.to_string()); claim.recipients.len()],
    };
    let letter = Letter {
        sender: &from,
        recipients: &recipients,
        content: body,
        eight_bit: claim.eight_bit,
        utf8_headers: claim.utf8_headers,
        is_private: claim.is_own,
    };
    connection.deliver(context, sender, &letter, transcript).await
}

/// The result of something that the types do not rule out although it does not happen.
fn unreached(what: &str) -> RecipientResult {
    RecipientResult { class: Class::Retry, step: Step::Envelope, reply: Reply::absent(what) }
}
