//! The session of a worker, kept from letter to letter.

use std::sync::Arc;

use uuid::Uuid;

use super::crew::{HoldsSession, Signals};
use super::sender::Sender;
use super::{Context, checks};
use crate::domain::log::{Chunk, LogId, LogLevel};
use crate::domain::outcome::RecipientResult;
use crate::smtp::{Failure, Gate, Letter, Session, Transcript};
use crate::store::accounts;
use crate::store::queue::Lane;

/// A session, or none yet.
pub(super) struct Connection {
    signals: Arc<Signals>,
    /// Names the session in transcripts.
    id: Uuid,
    /// The session and the version of the account it was opened for.
    open: Option<Open>,
    /// Letters delivered over it.
    letters: u32,
}

/// An open session.
struct Open {
    session: Session,
    /// The versions of account and settings it was opened for.
    versions: (i64, i64),
    /// Where its end is written down, and how much of it; `None` where nothing is kept.
    kept: Option<LogLevel>,
    log: LogId,
    _counted: HoldsSession,
}

impl Connection {
    /// No session yet; `signals` are told of each.
    pub(super) fn new(signals: Arc<Signals>) -> Self {
        Self { signals, id: Uuid::nil(), open: None, letters: 0 }
    }

    /// Whether another worker of the account has a session open.
    pub(super) fn has_company(&self) -> bool {
        self.open.is_none() && self.signals.has_session()
    }

    /// Names the session in transcripts.
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }

    /// Whether a session is open.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the session carries one more letter behind the next one.
    pub(super) const fn carries_another(&self, sender: &Sender) -> bool {
        self.letters + 1 < sender.settings.max_messages_per_batch
    }

    /// Whether the server waits for a letter that it has heard of.
    pub(super) fn has_announced(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.session.has_announced())
    }

    /// Lets go of a session that is not fit for the next letter of this account: it broke, account or settings were
    /// changed, or it has carried as many letters as are sent in one go.
    pub(super) async fn prepare(&mut self, context: &Context, lane: &Lane, sender: &Sender) {
        if let Some(Open { session, versions, .. }) = &mut self.open
            && *versions == sender.versions()
            && self.letters < sender.settings.max_messages_per_batch
            && !session.is_stale()
        {
            return;
        }
        self.close(context, lane).await;
        self.id = Uuid::now_v7();
    }

    /// Delivers a letter, over the session that is open or a new one, and announces the next one, which may have so many
    /// recipients. Results as of `Session::deliver_through`.
    ///
    /// # Errors
    /// Why no session could be opened.
    pub(super) async fn deliver(
        &mut self,
        (context, lane): (&Context, &Lane),
        sender: &Sender,
        gate: &impl Gate,
        letter: &Letter<'_>,
        next: Option<&(Letter<'_>, usize)>,
        transcript: &Transcript,
    ) -> Result<Vec<RecipientResult>, Failure> {
        let mut reused = self.open.is_some();
        loop {
            let Open { session, .. } = if let Some(open) = &mut self.open {
                open
            } else {
                let session = self.connect(context, sender, transcript).await?;
                self.open.insert(Open {
                    session,
                    versions: sender.versions(),
                    kept: sender.kept(),
                    log: sender.log(),
                    _counted: self.signals.holds_session(),
                })
            };
            if self.letters > 0 {
                context.store.metrics().smtp.reused.inc();
            }
            if let Some((next, max_recipients)) = next
                && !context.deaf.knows(lane)
            {
                session.announce(next, *max_recipients);
            }
            let results = session.deliver_through(gate, letter, transcript).await;
            self.letters += 1;
            if session.is_deaf_to_announcements() {
                context.deaf.note(lane);
            }
            if !(reused && session.lost_while_idle()) {
                return Ok(results);
            }
            // The server gave up the idle session: at once on a new one, no attempt counted (CASES 26).
            self.open = None;
            reused = false;
        }
    }

    async fn connect(
        &mut self,
        context: &Context,
        sender: &Sender,
        transcript: &Transcript,
    ) -> Result<Session, Failure> {
        self.letters = 0;
        let timeout = sender.settings.connection_timeout;
        let opened = Session::open(&context.connector, &sender.target, timeout, transcript).await;
        checks::note(&context.store, &sender.account, opened.as_ref()).await;
        opened
    }

    /// Ends the session, politely where its state is known. What is said then belongs to the session and to no letter.
    pub(super) async fn close(&mut self, context: &Context, lane: &Lane) {
        let Some(Open { session, versions: (version, _), kept, log, _counted }) = self.open.take() else {
            return;
        };
        let transcript = Transcript::new(kept.unwrap_or_default(), context.store.clock().clone());
        session.quit(&transcript).await;
        let entries = transcript.take();
        if kept.is_none() || entries.is_empty() {
            return;
        }
        // A change of the account emptied its logs, its end took them away: what ends here is of the time before.
        match accounts::find(&context.store, &lane.site, lane.account).await {
            Ok(Some(account)) if account.version == version => {
                let site = lane.site.clone();
                let chunk = Chunk { site, log, session: Some(self.id), message: None, entries };
                context.record(lane, None, Some(chunk)).await;
            }
            Ok(_) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the end of a session cannot be recorded");
            }
        }
    }
}
