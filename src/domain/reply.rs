//! What an SMTP server answered, in the words that are stored and shown.

use serde::{Deserialize, Serialize};

/// One reply of an SMTP server (RFC 5321 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Reply code, 100 to 999; 0 where the server sent none (silence, a closed connection, nonsense).
    pub code: u16,
    /// Enhanced status code such as `5.1.1` (RFC 3463), empty where the server gave none.
    pub enhanced_code: String,
    /// The server's words without the codes, lines joined by a line feed; printable, secrets masked.
    /// Where `code` is 0: what happened, in our own words.
    pub text: String,
}

impl Reply {
    /// A stand-in for a reply that never came; `what` says what happened instead.
    #[must_use]
    pub fn absent(what: impl Into<String>) -> Self {
        Self { code: 0, enhanced_code: String::new(), text: what.into() }
    }

    /// 2xx: done.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: not now.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: never.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl std::fmt::Display for Reply {
    /// The reply on one line, as a person would quote it: `535 5.7.8 Authentication failed`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.code != 0 {
            write!(f, "{} ", self.code)?;
        }
        if !self.enhanced_code.is_empty() {
            write!(f, "{} ", self.enhanced_code)?;
        }
        f.write_str(&self.text.replace('\n', " "))
    }
}
