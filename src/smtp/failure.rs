//! Why a session could not be opened, in words a person can act on.

use std::fmt;

use crate::domain::outcome::Step;
use crate::domain::reply::Reply;

/// Whose fault it is, and so what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The server's or the network's, for now: try again later.
    Temporary,
    /// The account's: it cannot work until somebody changes it or the server.
    Permanent,
    /// The operator's policy forbids to connect there.
    NotAllowed,
}

/// Why a session could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// Whose fault it is.
    pub kind: FailureKind,
    /// The server's words; where it said nothing, code 0 and what happened.
    pub reply: Reply,
    /// What a person can do about it, one sentence.
    pub advice: Option<String>,
}

impl Failure {
    /// By the code of a reply that refused: 5xx is for good, all else may pass.
    pub(super) fn refused(step: Step, reply: Reply) -> Self {
        let kind = if reply.is_permanent() { FailureKind::Permanent } else { FailureKind::Temporary };
        Self { step, kind, reply, advice: None }
    }

    /// Something other than a reply, in our own words.
    pub(super) fn other(step: Step, kind: FailureKind, what: impl Into<String>) -> Self {
        Self { step, kind, reply: Reply::absent(what), advice: None }
    }

    pub(super) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Failure {
    /// One line: the step and the server's words, such as `login: 535 5.7.8 Authentication failed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", step_words(self.step), self.reply)
    }
}

impl std::error::Error for Failure {}

/// What a person calls the step.
pub(super) const fn step_words(step: Step) -> &'static str {
    match step {
        Step::Resolve => "name look-up",
        Step::Connect => "connection",
        Step::Tls => "TLS",
        Step::Hello => "EHLO",
        Step::Auth => "login",
        Step::Envelope => "envelope",
        Step::TestLetter => "test letter",
        Step::Content => "content",
        Step::Acceptance => "acceptance",
    }
}
