//! The turnstile of one letter: each transaction waits for its slot, each dot is noted where uncertain letters are held.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::sender::Sender;
use super::{Context, rules};
use crate::domain::outcome::{RecipientResult, Scope};
use crate::domain::pace::{Pace, Request, Turn};
use crate::domain::reply::Reply;
use crate::domain::settings::OnUncertain;
use crate::smtp::Gate;
use crate::store::queue::{self, Claim, Lane};
use crate::store::{StoreError, pace};

/// Most transactions of one attempt: then it is recorded what became of their recipients, and the letter goes on in the next
/// one. A crash doubles the letter for no more than these.
const MAX_TRANSACTIONS: u32 = 100;

/// The gate of one attempt.
pub(super) struct Turnstile<'a> {
    context: &'a Context,
    lane: &'a Lane,
    claim: &'a Claim,
    pace: Pace,
    max_recipients: usize,
    on_uncertain: OnUncertain,
    /// The recipients that are tried, by their numbers in the letter.
    numbers: &'a [usize],
    begun: AtomicU32,
    refused: AtomicBool,
    left: AtomicU32,
}

impl<'a> Turnstile<'a> {
    pub(super) fn new(
        context: &'a Context,
        lane: &'a Lane,
        claim: &'a Claim,
        sender: &Sender,
        numbers: &'a [usize],
    ) -> Self {
        Self {
            context,
            lane,
            claim,
            pace: sender.pace(),
            max_recipients: sender.max_recipients(claim.mailing),
            on_uncertain: sender.settings.on_uncertain,
            numbers,
            begun: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            left: AtomicU32::new(u32::MAX),
        }
    }

    /// The recipients that are tried, by their numbers in the letter.
    pub(super) const fn numbers(&self) -> &'a [usize] {
        self.numbers
    }

    /// Whether a transaction had to wait for its turn.
    pub(super) fn is_closed(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Transactions that could follow at once, as far as the last one knew.
    pub(super) fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    fn refuse(&self, reason: &str) -> Reply {
        self.refused.store(true, Ordering::Relaxed);
        Reply::absent(reason)
    }

    fn trouble(&self, error: &StoreError) -> Reply {
        tracing::warn!(error = error as &dyn std::error::Error, "a letter waits for the store");
        self.refuse("the store did not answer")
    }
}

impl Gate for Turnstile<'_> {
    fn max_recipients(&self) -> usize {
        self.max_recipients
    }

    async fn transaction(&self, recipients: usize) -> Result<(), Reply> {
        let begun = self.begun.load(Ordering::Relaxed);
        if begun > 0 && self.context.stop.is_cancelled() {
            // What was sent is recorded before the end; the rest goes from the next server.
            return Err(self.refuse("the server is stopping"));
        }
        if !self.context.is_writable() {
            return Err(self.refuse("the store cannot be written"));
        }
        if begun >= MAX_TRANSACTIONS {
            return Err(self.refuse("the letter goes on in its next attempt"));
        }
        if self.pace.is_free() {
            self.begun.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let request = Request {
            mailing: self.claim.mailing,
            begins_letter: begun == 0,
            recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
        };
        let store = &self.context.store;
        match store.unless_given_up(pace::take(store, self.lane, &self.pace, request)).await {
            Ok(Turn::Now { left, .. }) => {
                self.begun.fetch_add(1, Ordering::Relaxed);
                self.left.store(left, Ordering::Relaxed);
                Ok(())
            }
            Ok(Turn::NotBefore { .. }) => Err(self.refuse("the pace of the account has no slot now")),
            Err(error) => Err(self.trouble(&error)),
        }
    }

    async fn dot(&self, recipients: &[usize]) -> Result<(), Reply> {
        if self.on_uncertain == OnUncertain::Resend {
            return Ok(());
        }
        let number = |place: &usize| self.numbers.get(*place).and_then(|number| i32::try_from(*number).ok());
        let numbers: Vec<i32> = recipients.iter().filter_map(number).collect();
        let Context { store, replica, .. } = self.context;
        let Claim { message, attempt, .. } = self.claim;
        match queue::at_dot(store, &self.lane.site, *replica, *message, *attempt, &numbers).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refuse("the letter was claimed by another server")),
            Err(error) => Err(self.trouble(&error)),
        }
    }

    fn reach(&self, result: &RecipientResult) -> Scope {
        rules::reach(result)
    }
}
