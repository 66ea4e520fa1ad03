//! Why a call cannot be served: one reason of the contract, its text, and what a program may want to know of it.

use std::time::Duration;

/// The reasons of the contract (API 8), each with its own status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The site is switched off.
    SiteDisabled,
    /// Accounts of users are switched off.
    UserAccountsDisabled,
    /// The From of a user's letter has no confirmed sender.
    SenderNotConfirmed,
    /// Not the code that was mailed.
    CodeWrong,
    /// The code no longer counts.
    CodeExpired,
    /// No account of the site may carry this From.
    NoMatchingAccount,
    /// The account was tried and did not pass.
    CheckFailed,
    /// A change needs the password in the same call.
    PasswordRequired,
    /// The operator's egress policy forbids the host or port.
    HostNotAllowed,
    /// The state of the thing does not allow it.
    StateConflict,
    /// A sealed value does not open: its key is not there, or it is broken.
    KeyUnknown,
    /// Bad input; the violations name the fields.
    InvalidField,
    /// The key lacks the right.
    PermissionDenied,
    /// The caller may not use this account for this letter.
    AccountNotUsable,
    /// No key, or one that is not known, expired or revoked.
    KeyMissing,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// The request id was used for other content.
    RequestIdReused,
    /// Somebody else changed it meanwhile.
    EtagMismatch,
    /// Too often within a while.
    RateLimited,
    /// Larger than the operator allows.
    MessageTooLarge,
    /// What the resume token stands for is gone.
    ResumeTokenExpired,
    /// The database does not answer.
    StoreUnavailable,
    /// The server is about to stop.
    ShuttingDown,
    /// A fault of ours; the cause is in the server's log.
    Internal,
}

/// One bad field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field from the request's root, such as `message.composed.attachments[2].filename`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Violation {
    /// A violation of the field at this path.
    #[must_use]
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a call cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// The reason.
    pub reason: Reason,
    /// The text for people.
    pub text: String,
    /// Every variable of the text, for programs.
    pub metadata: Vec<(&'static str, String)>,
    /// The bad fields, where the reason is [`Reason::InvalidField`].
    pub violations: Vec<Violation>,
    /// When it may help to try again.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem without variables.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), metadata: Vec::new(), violations: Vec::new(), retry_after: None }
    }

    /// The same with a variable of its text.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// The same with the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Bad fields.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let text = match violations.as_slice() {
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => format!("{}: {} (and {} more)", first.field, first.description, rest.len()),
            [] => "invalid request".to_owned(),
        };
        Self { violations, ..Self::new(Reason::InvalidField, text) }
    }

    /// One bad field.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![Violation::new(field, description)])
    }

    /// These bad fields, and those of another problem behind them.
    #[must_use]
    pub fn together_with(mut self, other: Option<Self>) -> Self {
        self.violations.extend(other.into_iter().flat_map(|other| other.violations));
        Self::invalid(self.violations)
    }

    /// There is nothing of this name.
    #[must_use]
    pub fn not_found(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::new(Reason::NotFound, format!("{name} does not exist")).with("name", name)
    }
}
