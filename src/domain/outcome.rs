//! What an attempt came to: the step it reached, the class of its result for each recipient, and how far that reaches.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reply::Reply;

/// Where in a session something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The host's name is looked up and its addresses held against the egress policy.
    Resolve,
    /// TCP connection and the server's greeting.
    Connect,
    /// TLS handshake, by implicit TLS or STARTTLS.
    Tls,
    /// EHLO or HELO, and what the server offers.
    Hello,
    /// AUTH.
    Auth,
    /// MAIL FROM and RCPT TO.
    Envelope,
    /// The test letter of a check.
    TestLetter,
    /// DATA and the content, up to the dot.
    Content,
    /// The reply to the dot.
    Acceptance,
}

/// What became of one recipient in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The server took responsibility.
    Sent,
    /// Not now: try again later.
    Retry,
    /// Refused for good.
    Refused,
    /// Nobody knows whether the server took it (RFC 1047).
    Uncertain,
    /// His turn did not come: the pace or the account did not allow it.
    Untried,
}

/// How far a result reaches; the wider one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The recipient alone.
    Recipient,
    /// Every recipient of the letter.
    Message,
    /// Every letter of the account, which is parked.
    Account,
}

/// When a recipient who did not get the letter is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// By the site's retry intervals.
    ByInterval,
    /// So much later, as the server asks; it counts as a try.
    In(Duration),
    /// So much later; it does not count, since the letter could not help it.
    Uncounted(Duration),
}

/// The result for one recipient of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientResult {
    /// What became of him.
    pub class: Class,
    /// The step that decided it.
    pub step: Step,
    /// The server's words that decided it.
    pub reply: Reply,
}

/// A result and what the rules make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The result; its class may be another than the reply code alone would say.
    pub result: RecipientResult,
    /// How far it reaches.
    pub scope: Scope,
    /// When he is tried again, where he is.
    pub again: Again,
}
