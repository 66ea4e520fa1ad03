//! From a problem to a gRPC status with its details (`google.rpc`, AIP-193). Causes are logged here, once, never sent.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::domain::error::{Problem, Reason, Violation};
use crate::store::StoreError;
use crate::vault::VaultError;

/// The domain of every `google.rpc.ErrorInfo` of ours.
const DOMAIN: &str = "postroom";
/// Most violations told at once (API 2).
const MAX_VIOLATIONS: usize = 20;
/// Longest value of a variable in bytes, and longest description: details travel in headers, 4 KiB in all (API 2).
const MAX_VALUE_BYTES: usize = 512;
const MAX_DESCRIPTION_BYTES: usize = 120;
/// Most bytes of paths and descriptions: with the text and its frame they stay below the 4 KiB.
const MAX_VIOLATIONS_BYTES: usize = 2_560;
/// Longest status message in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Longest text that names bad fields in bytes: that of all details.
const MAX_FIELDS_BYTES: usize = 4_096;
/// When to try again after the store did not answer.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// A reason's name and its code (API 8).
const fn name_and_code(reason: Reason) -> (&'static str, Code) {
    match reason {
        Reason::SiteDisabled => ("SITE_DISABLED", Code::FailedPrecondition),
        Reason::UserAccountsDisabled => ("USER_ACCOUNTS_DISABLED", Code::FailedPrecondition),
        Reason::SenderNotConfirmed => ("SENDER_NOT_CONFIRMED", Code::FailedPrecondition),
        Reason::CodeWrong => ("CODE_WRONG", Code::FailedPrecondition),
        Reason::CodeExpired => ("CODE_EXPIRED", Code::FailedPrecondition),
        Reason::NoMatchingAccount => ("NO_MATCHING_ACCOUNT", Code::FailedPrecondition),
        Reason::CheckFailed => ("CHECK_FAILED", Code::FailedPrecondition),
        Reason::PasswordRequired => ("PASSWORD_REQUIRED", Code::FailedPrecondition),
        Reason::HostNotAllowed => ("HOST_NOT_ALLOWED", Code::FailedPrecondition),
        Reason::StateConflict => ("STATE_CONFLICT", Code::FailedPrecondition),
        Reason::KeyUnknown => ("KEY_UNKNOWN", Code::FailedPrecondition),
        Reason::InvalidField => ("INVALID_FIELD", Code::InvalidArgument),
        Reason::PermissionDenied => ("PERMISSION_DENIED", Code::PermissionDenied),
        Reason::AccountNotUsable => ("ACCOUNT_NOT_USABLE", Code::PermissionDenied),
        Reason::KeyMissing => ("KEY_MISSING", Code::Unauthenticated),
        Reason::NotFound => ("NOT_FOUND", Code::NotFound),
        Reason::AlreadyExists => ("ALREADY_EXISTS", Code::AlreadyExists),
        Reason::RequestIdReused => ("REQUEST_ID_REUSED", Code::AlreadyExists),
        Reason::EtagMismatch => ("ETAG_MISMATCH", Code::Aborted),
        Reason::MessageTooLarge => ("MESSAGE_TOO_LARGE", Code::ResourceExhausted),
        Reason::RateLimited => ("RATE_LIMITED", Code::ResourceExhausted),
        Reason::ResumeTokenExpired => ("RESUME_TOKEN_EXPIRED", Code::OutOfRange),
        Reason::StoreUnavailable => ("STORE_UNAVAILABLE", Code::Unavailable),
        Reason::ShuttingDown => ("SHUTTING_DOWN", Code::Unavailable),
        Reason::Internal => ("INTERNAL", Code::Internal),
    }
}

/// A problem in three words, for one item of a stream: code, reason, and a text that names all the bad fields.
pub(super) fn in_words(problem: Problem) -> (Code, &'static str, String) {
    let Problem { reason, text, metadata: _, violations, retry_after: _ } = problem;
    let (name, code) = name_and_code(reason);
    let told: Vec<String> = violations
        .into_iter()
        .take(MAX_VIOLATIONS)
        .map(|Violation { field, description }| {
            format!("{field}: {}", shorten(description, MAX_DESCRIPTION_BYTES))
        })
        .collect();
    let text = if told.is_empty() {
        shorten(text, MAX_TEXT_BYTES)
    } else {
        shorten(told.join("; "), MAX_FIELDS_BYTES)
    };
    (code, name, text)
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Problem { reason, text, metadata, violations, retry_after } = problem;
        let (name, code) = name_and_code(reason);
        let metadata: HashMap<String, String> = metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), shorten(value, MAX_VALUE_BYTES)))
            .collect();
        let mut details = ErrorDetails::new();
        details.set_error_info(name, DOMAIN, metadata);
        let mut bytes = 0;
        for Violation { field, description } in violations.into_iter().take(MAX_VIOLATIONS) {
            let description = shorten(description, MAX_DESCRIPTION_BYTES);
            bytes += field.len() + description.len();
            if bytes > MAX_VIOLATIONS_BYTES {
                break;
            }
            details.add_bad_request_violation(field, description);
        }
        if let Some(wait) = retry_after {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(code, shorten(text, MAX_TEXT_BYTES), details)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause: &dyn std::error::Error = &error;
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(error = cause, "the store did not answer a call");
                Self::new(Reason::StoreUnavailable, "the database does not answer, try again later")
                    .retry_after(STORE_RETRY)
            }
            StoreError::Vault(VaultError::KeyUnknown { id }) => {
                tracing::error!(error = cause, "a secret cannot be opened");
                Self::new(
                    Reason::KeyUnknown,
                    format!("the password was sealed by the key {id}, which is not there"),
                )
                .with("key", id)
            }
            StoreError::Vault(VaultError::Broken) => {
                tracing::error!(error = cause, "a secret cannot be opened");
                Self::new(
                    Reason::KeyUnknown,
                    "the stored password is broken and cannot be opened: set a new one",
                )
            }
            StoreError::Refused(_)
            | StoreError::Encryption(_)
            | StoreError::Schema(_)
            | StoreError::Migration(_)
            | StoreError::Vault(_)
            | StoreError::Keys(_)
            | StoreError::Corrupt(_) => {
                tracing::error!(error = cause, "a call failed");
                Self::new(Reason::Internal, "internal error; the server's log tells more")
            }
        }
    }
}

/// The text, cut at a character where it is longer than `max` bytes.
fn shorten(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - 3));
        text.push('…');
    }
    text
}
