//! Who has got which result in the delivery of one letter.

use crate::domain::log::EntryKind;
use crate::domain::outcome::{Class, RecipientResult, Step};
use crate::domain::reply::Reply;
use crate::smtp::failure::step_words;
use crate::smtp::transcript::Transcript;

/// The results so far, in the order of the letter's recipients.
pub(super) struct Ledger {
    results: Vec<Option<RecipientResult>>,
    transactions: usize,
}

impl Ledger {
    pub(super) fn new(recipients: usize) -> Self {
        Self { results: vec![None; recipients], transactions: 0 }
    }

    /// The first recipients without a result, at most `limit`.
    pub(super) fn open(&self, limit: usize) -> Vec<usize> {
        let open = self.results.iter().enumerate().filter(|(_, result)| result.is_none());
        open.map(|(recipient, _)| recipient).take(limit).collect()
    }

    /// A transaction is through; each settles somebody.
    pub(super) fn count_transaction(&mut self) {
        self.transactions += 1;
    }

    /// Whether any transaction is through.
    pub(super) fn has_served(&self) -> bool {
        self.transactions > 0
    }

    /// The results of these, as far as they have one.
    pub(super) fn of<'a>(&'a self, recipients: &'a [usize]) -> impl Iterator<Item = &'a RecipientResult> {
        recipients.iter().filter_map(|recipient| self.results[*recipient].as_ref())
    }

    pub(super) fn settle(&mut self, recipient: usize, class: Class, step: Step, reply: Reply) {
        self.results[recipient] = Some(RecipientResult { class, step, reply });
    }

    /// The same result for each of these.
    pub(super) fn settle_all(&mut self, recipients: &[usize], class: Class, step: Step, reply: &Reply) {
        for recipient in recipients {
            self.settle(*recipient, class, step, reply.clone());
        }
    }

    /// The same result for everybody who has none yet.
    pub(super) fn settle_rest(&mut self, class: Class, step: Step, reply: &Reply) {
        for result in self.results.iter_mut().filter(|result| result.is_none()) {
            *result = Some(RecipientResult { class, step, reply: reply.clone() });
        }
    }

    /// Closes the book: everybody has a result.
    pub(super) fn into_results(mut self) -> Vec<RecipientResult> {
        self.settle_rest(
            Class::Retry,
            Step::Envelope,
            &Reply::absent("the session ended before this recipient's turn"),
        );
        self.results.into_iter().flatten().collect()
    }

    /// Closes the book: everybody has a result, and the transcript tells why some did not get the letter.
    pub(super) fn finish(self, log: &Transcript) -> Vec<RecipientResult> {
        let results = self.into_results();
        let mut told: Vec<(&RecipientResult, usize)> = Vec::new();
        // Whose turn did not come got no worse than later.
        let is_failure = |result: &&RecipientResult| !matches!(result.class, Class::Sent | Class::Untried);
        for result in results.iter().filter(is_failure) {
            if let Some((_, count)) = told.iter_mut().find(|(same, _)| *same == result) {
                *count += 1;
            } else if told.len() < MAX_REASONS_TOLD {
                told.push((result, 1));
            }
        }
        for (result, count) in told {
            let what = match result.class {
                Class::Sent => "sent",
                Class::Retry => "not delivered for now",
                Class::Refused => "refused",
                Class::Uncertain => "it is unknown whether the server took the letter",
                Class::Untried => "not tried",
            };
            let step = step_words(result.step);
            let who = if results.len() > 1 {
                format!(" ({count} of {} recipients)", results.len())
            } else {
                String::new()
            };
            log.record(EntryKind::Error, format!("{what}{who}: {step}: {}", result.reply));
        }
        results
    }
}

/// Different reasons told of one letter; a thousand recipients may have a thousand.
const MAX_REASONS_TOLD: usize = 20;
