//! The envelope of the next letter, said with the dot of the one before (RFC 2920 3.1): a letter takes one turn then instead of
//! two, and a distant server takes twice as many.
//!
//! Nothing is at stake: until its own dot nobody has taken the next letter. If it does not come after all, the server, who
//! waits for its content, is left.

use std::time::Duration;

use tokio::time::Instant;

use super::letter::Admitted;
use super::{Letter, Session};

/// A letter that was announced comes within so long, or the session is given up: servers wait for minutes.
const COMES_WITHIN: Duration = Duration::from_secs(30);
/// How long the first answer to what was announced may take. Without one it is as if nothing had been announced.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// An envelope that the server has heard already.
pub(super) struct Announced {
    /// The commands, as they were said.
    pub(super) envelope: Vec<u8>,
    /// When the letter before was done with.
    since: Instant,
}

impl Announced {
    pub(super) fn new(envelope: Vec<u8>) -> Self {
        Self { envelope, since: Instant::now() }
    }

    /// The letter before is done with now.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Whether its letter did not come in time.
    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() > COMES_WITHIN
    }
}

impl Session {
    /// Announces the letter that comes after the next one that is delivered: its envelope is said with the last dot of that
    /// one, where the server offers PIPELINING and one transaction with so many recipients is enough. Then it should come at
    /// once; another letter, or one that comes later, finds the session [lost](Session::lost_while_idle) or
    /// [stale](Session::is_stale).
    pub fn announce(&mut self, letter: &Letter<'_>, max_recipients: usize) {
        self.next = self.envelope(letter, max_recipients);
    }

    /// The commands before its content, as one group.
    fn envelope(&self, letter: &Letter<'_>, max_recipients: usize) -> Option<Vec<u8>> {
        let offered = &self.capabilities;
        let count = letter.recipients.len();
        if !offered.pipelining || count == 0 || count > max_recipients {
            return None;
        }
        let admitted = Admitted::new(letter, offered).ok()?;
        if letter.recipients.iter().any(|recipient| Admitted::unnameable(recipient, offered).is_some()) {
            return None;
        }
        let mut envelope = Vec::new();
        admitted.group(&(0..count).collect::<Vec<_>>(), offered, &mut envelope);
        Some(envelope)
    }

    /// Whether a letter was announced that did not come yet. Another one would find the session lost.
    #[must_use]
    pub fn has_announced(&self) -> bool {
        self.announced.is_some()
    }

    /// Whether the server did not answer what was announced to it, or took offence at it: announce nothing more to it.
    #[must_use]
    pub fn is_deaf_to_announcements(&self) -> bool {
        self.deaf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_waited_for_a_while() {
        let mut announced = Announced::new(Vec::new());
        assert!(!announced.is_over());
        announced.since = Instant::now() - COMES_WITHIN - Duration::from_millis(1);
        assert!(announced.is_over());
        announced.begin();
        assert!(!announced.is_over());
    }
}
