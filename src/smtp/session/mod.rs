//! One SMTP session: opened once, used for letter after letter, closed.

mod announced;
mod deliver;
pub(super) mod dialogue;
mod gate;
mod ledger;
mod letter;
mod login;
pub(super) mod opening;
pub(super) mod progress;
mod transaction;

use std::time::Duration;

pub use gate::{Gate, Ungated};
pub use letter::Letter;

use self::announced::Announced;
use self::dialogue::{Dialogue, Shown};
use self::opening::Opened;
use self::progress::Progress;
use super::capabilities::Capabilities;
use super::connector::{Connector, Target};
use super::deadlines::Deadlines;
use super::failure::Failure;
use super::transcript::Transcript;
use crate::domain::log::EntryKind;
use crate::metrics::OpenSession;

/// How long a server gets to answer QUIT; nothing depends on it.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// An open session.
///
/// Dropping a [`deliver`](Session::deliver) that is not over leaves the session unusable: nobody knows then which reply
/// belongs to what.
pub struct Session {
    pub(super) dialogue: Dialogue,
    pub(super) state: State,
    capabilities: Capabilities,
    lines: Vec<String>,
    /// Letters begun on this session.
    letters: u64,
    lost_while_idle: bool,
    /// What is to be said with the dot of the next letter.
    next: Option<Vec<u8>>,
    /// What was said with the dot of the last one.
    announced: Option<Announced>,
    /// Whether the server took that badly.
    deaf: bool,
    /// What is written next; kept, so that a letter costs no allocation of its size.
    out: Vec<u8>,
    _counted: OpenSession,
}

/// What is known of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waiting for a command, no transaction open.
    Ready,
    /// Waiting for a command; what is left of a transaction must be cleared by RSET first.
    Dirty,
    /// In the middle of something, or something was given up in the middle.
    Busy,
    /// Closed.
    Closed,
}

impl Session {
    /// Connects, greets, protects and logs in. `timeout` is for each of these steps.
    ///
    /// # Errors
    /// The step that failed, with the server's words; nothing is left open.
    pub async fn open(
        connector: &Connector,
        target: &Target,
        timeout: Duration,
        transcript: &Transcript,
    ) -> Result<Self, Failure> {
        Self::open_within(connector, target, Deadlines::new(timeout, connector.floors), transcript).await
    }

    /// As [`open`](Session::open), with every deadline given.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_within(
        connector: &Connector,
        target: &Target,
        deadlines: Deadlines,
        transcript: &Transcript,
    ) -> Result<Self, Failure> {
        let mut progress = Progress::new();
        opening::open(connector, target, deadlines, &mut progress, transcript).await.map(Self::from)
    }

    /// Whether a letter can be delivered: the state is known, and the server has not been heard unasked.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self.state, State::Ready | State::Dirty)
            && (self.announced.is_some() || self.dialogue.wire.buffered().is_empty())
    }

    /// Looks whether the server has closed an idle session, or said something on it, or waits for the content of a letter
    /// that did not come; then a new one is needed.
    pub fn is_stale(&mut self) -> bool {
        let is_disturbed = match &self.announced {
            Some(announced) => announced.is_over(),
            None => self.dialogue.wire.is_disturbed(),
        };
        !self.is_usable() || is_disturbed
    }

    /// Whether the last [`deliver`](Session::deliver) found that the server had given up the session since the letter
    /// before, or waits for another letter. Nothing of the letter was taken, and its results are no attempt: deliver it
    /// again on a new session.
    #[must_use]
    pub fn lost_while_idle(&self) -> bool {
        self.lost_while_idle
    }

    /// What the server offered in its answer to EHLO, line by line, printable.
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        &self.lines
    }

    /// Says QUIT if that makes sense, and closes; takes at most two seconds.
    pub async fn quit(mut self, transcript: &Transcript) {
        if matches!(self.state, State::Ready | State::Dirty) && self.announced.is_none() {
            self.dialogue.deadlines.reply = QUIT_TIMEOUT.min(self.dialogue.deadlines.reply);
            // Where the server closed or spoke meanwhile, this hears it and says nothing.
            if let Err(broken) = self.dialogue.command("QUIT", Shown::AsSaid, transcript).await {
                transcript.record(EntryKind::Connection, format!("no answer to QUIT: {}", broken.words()));
            }
        }
        self.dialogue.close(transcript).await;
    }
}

impl From<Opened> for Session {
    fn from(opened: Opened) -> Self {
        let Opened { dialogue, capabilities, lines, counted } = opened;
        Self {
            dialogue,
            state: State::Ready,
            capabilities,
            lines,
            letters: 0,
            lost_while_idle: false,
            next: None,
            announced: None,
            deaf: false,
            out: Vec::new(),
            _counted: counted,
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("letters", &self.letters)
            .finish_non_exhaustive()
    }
}
