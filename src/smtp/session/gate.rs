//! Who may be asked, while a letter is delivered, whether it goes on.

use crate::domain::limits::DEFAULT_RECIPIENTS;
use crate::domain::outcome::{RecipientResult, Scope};
use crate::domain::reply::Reply;

/// Decides, transaction by transaction, whether and how far a letter goes on.
pub trait Gate: Sync {
    /// Most recipients in one transaction, at least 1.
    fn max_recipients(&self) -> usize;

    /// Asked before a MAIL with so many recipients.
    ///
    /// # Errors
    /// Why not now: whoever has no result yet is untried.
    fn transaction(&self, recipients: usize) -> impl Future<Output = Result<(), Reply>> + Send;

    /// Asked before the write that contains the dot, which it is for these recipients, by their numbers in the letter.
    ///
    /// # Errors
    /// Why not: the dot is not written, and the session ends.
    fn dot(&self, recipients: &[usize]) -> impl Future<Output = Result<(), Reply>> + Send;

    /// How far a result reaches that is not `Sent`.
    fn reach(&self, result: &RecipientResult) -> Scope;
}

/// Nobody is asked: every transaction goes, each result counts for its recipient.
#[derive(Clone, Copy, Debug)]
pub struct Ungated;

impl Gate for Ungated {
    fn max_recipients(&self) -> usize {
        usize::try_from(DEFAULT_RECIPIENTS).unwrap_or(usize::MAX)
    }

    async fn transaction(&self, _recipients: usize) -> Result<(), Reply> {
        Ok(())
    }

    async fn dot(&self, _recipients: &[usize]) -> Result<(), Reply> {
        Ok(())
    }

    fn reach(&self, _result: &RecipientResult) -> Scope {
        Scope::Recipient
    }
}
