//! Commands out, replies in: what is said and heard goes into the transcript, and nothing is said while the server talks.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::log::EntryKind;
use crate::domain::reply::Reply;
use crate::smtp::deadlines::Deadlines;
use crate::smtp::redact::Redactor;
use crate::smtp::reply::{RawReply, shown};
use crate::smtp::transcript::Transcript;
use crate::smtp::wire::{Broken, Wire, record_count};

/// The reply code with which a server ends the session at any step (RFC 5321 3.8).
pub(in crate::smtp) const CLOSING: u16 = 421;

/// A reply that took so long is worth a line of its own; entries have times, for the others.
const SLOW: Duration = Duration::from_secs(1);

/// A connection on which commands are said one at a time.
pub(in crate::smtp) struct Dialogue {
    pub(in crate::smtp) wire: Wire,
    pub(in crate::smtp) deadlines: Deadlines,
    pub(in crate::smtp) redactor: Redactor,
}

/// What we said, as the transcript shows it.
#[derive(Clone, Copy)]
pub(in crate::smtp) enum Shown<'a> {
    /// As it was.
    AsSaid,
    /// It held a secret: this instead, and not even its length.
    Instead(&'a str),
}

impl Dialogue {
    /// Says one command and hears the reply.
    pub(in crate::smtp) async fn command(
        &mut self,
        line: &str,
        shown: Shown<'_>,
        log: &Transcript,
    ) -> Result<RawReply, Broken> {
        if self.wire.is_disturbed() {
            return Err(self.unasked(log).await);
        }
        let bytes = [line.as_bytes(), b"\r\n"].concat();
        match shown {
            Shown::AsSaid => {
                log.record(EntryKind::Client, line);
                record_count(log, "wrote", bytes.len());
            }
            Shown::Instead(text) => log.record(EntryKind::Client, text),
        }
        self.wire.write(&bytes, Instant::now() + self.deadlines.reply).await?;
        match shown {
            Shown::AsSaid => self.reply(self.deadlines.reply, log).await,
            // A server may repeat the secret, and the size of what is read would tell its length.
            Shown::Instead(_) => self.reply(self.deadlines.reply, &log.without_data()).await,
        }
    }

    /// Hears one reply.
    pub(in crate::smtp) async fn reply(
        &mut self,
        within: Duration,
        log: &Transcript,
    ) -> Result<RawReply, Broken> {
        self.hear("the reply", SLOW, within, log).await
    }

    /// Hears one reply, and tells how long it took; `what` names it.
    pub(in crate::smtp) async fn timed_reply(
        &mut self,
        what: &str,
        within: Duration,
        log: &Transcript,
    ) -> Result<RawReply, Broken> {
        self.hear(what, Duration::ZERO, within, log).await
    }

    /// Hears one reply, and tells how long it took where that was `telling` or more.
    async fn hear(
        &mut self,
        what: &str,
        telling: Duration,
        within: Duration,
        log: &Transcript,
    ) -> Result<RawReply, Broken> {
        let start = Instant::now();
        let heard = self.wire.read_reply(start + within, log).await;
        let took = start.elapsed();
        if log.keeps(EntryKind::Server) {
            let lines = match &heard {
                Ok(reply) => reply.lines.as_slice(),
                Err(broken) => broken.lines(),
            };
            for line in shown(lines, &self.redactor) {
                log.record(EntryKind::Server, line);
            }
        }
        if heard.is_ok() && took >= telling && log.keeps(EntryKind::Connection) {
            log.record(EntryKind::Connection, format!("{what} took {} ms", took.as_millis()));
        }
        heard
    }

    /// What the server said or did without being asked: heard as far as it is there already, and no further.
    pub(in crate::smtp) async fn unasked(&mut self, log: &Transcript) -> Broken {
        match self.reply(Duration::ZERO, log).await {
            Err(gone) if gone.is_gone() => gone,
            Ok(reply) => Broken::Unasked(Some(reply)),
            Err(_) => Broken::Unasked(None),
        }
    }

    /// A reply as it is stored.
    pub(in crate::smtp) fn stored(&self, reply: &RawReply) -> Reply {
        reply.to_reply(&self.redactor)
    }

    /// What is stored where no reply came: what happened, and what the server said instead of one.
    pub(in crate::smtp) fn absent(&self, broken: &Broken) -> Reply {
        if let Broken::Unasked(Some(reply)) = broken {
            return Reply::absent(format!("{}: {}", broken.words(), self.stored(reply)));
        }
        match shown(broken.lines(), &self.redactor).pop() {
            Some(mut shown) => {
                shown.truncate(shown.floor_char_boundary(MAX_QUOTED_BYTES));
                Reply::absent(format!("{}: {shown}", broken.words()))
            }
            None => Reply::absent(broken.words()),
        }
    }

    /// Closes in order.
    pub(in crate::smtp) async fn close(&mut self, log: &Transcript) {
        if !self.wire.is_closed() {
            self.wire.close().await;
            log.record(EntryKind::Connection, "closed");
        }
    }
}

/// What is quoted of something that is no reply, in bytes.
const MAX_QUOTED_BYTES: usize = 200;
