//! One letter over an open session, in as many transactions as its recipients need (RFC 5321 3.3).

use super::gate::{Gate, Ungated};
use super::ledger::Ledger;
use super::letter::{Admitted, Letter};
use super::transaction::{Stop, Transaction};
use super::{Session, State};
use crate::domain::log::EntryKind;
use crate::domain::outcome::{Class, RecipientResult, Scope, Step};
use crate::domain::reply::Reply;
use crate::smtp::transcript::Transcript;

impl Session {
    /// Delivers one letter. One result for each recipient, in order.
    ///
    /// A letter to more recipients than the gate allows (100 without one) goes in several transactions, as do recipients
    /// of whom the server says that they are too many. Afterwards ask [`is_usable`](Session::is_usable) and
    /// [`lost_while_idle`](Session::lost_while_idle).
    pub async fn deliver(&mut self, letter: &Letter<'_>, transcript: &Transcript) -> Vec<RecipientResult> {
        self.deliver_through(&Ungated, letter, transcript).await
    }

    /// The same, asking `gate` before each transaction and before each dot.
    pub async fn deliver_through(
        &mut self,
        gate: &impl Gate,
        letter: &Letter<'_>,
        transcript: &Transcript,
    ) -> Vec<RecipientResult> {
        let log = transcript;
        let mut ledger = Ledger::new(letter.recipients.len());
        self.lost_while_idle = false;
        // With a letter that is not even begun nothing is announced, nor with the one after it.
        let next = self.next.take();
        let admitted = match Admitted::new(letter, &self.capabilities) {
            Ok(admitted) => admitted,
            Err(reason) => {
                ledger.settle_rest(Class::Refused, Step::Envelope, &reason);
                return ledger.finish(log);
            }
        };
        for (number, recipient) in letter.recipients.iter().enumerate() {
            if let Some(reason) = Admitted::unnameable(recipient, &self.capabilities) {
                ledger.settle(number, Class::Refused, Step::Envelope, reason);
            }
        }
        if !self.is_usable() {
            ledger.settle_rest(
                Class::Retry,
                Step::Envelope,
                &Reply::absent("the session was no longer usable"),
            );
            return ledger.finish(log);
        }
        if self.letters > 0 {
            log.record(
                EntryKind::Connection,
                format!("reused for letter {} of this session", self.letters + 1),
            );
        }
        let dirty = self.state == State::Dirty;
        self.next = next;
        // Whoever drops this future from here on leaves a session behind that says it is not usable.
        self.state = State::Busy;
        match self.transactions(gate, &admitted, dirty, &mut ledger, log).await {
            Ok(state) => self.state = state,
            Err(Stop { step, reply }) => {
                // After a transaction that went through, the rest goes on in the next session at once; each time somebody
                // is settled, so that this ends. Else the server must be given time.
                let class = if ledger.has_served() { Class::Untried } else { Class::Retry };
                ledger.settle_rest(class, step, &reply);
                self.dialogue.close(log).await;
                self.state = State::Closed;
                self.announced = None;
            }
        }
        self.letters += 1;
        self.next = None;
        if let Some(announced) = &mut self.announced {
            announced.begin();
        }
        if self.lost_while_idle {
            // Nothing failed: whoever delivers tries again at once on a new session.
            log.record(
                EntryKind::Connection,
                "nothing of it was taken in this session: it goes over a new one",
            );
            return ledger.into_results();
        }
        ledger.finish(log)
    }

    async fn transactions(
        &mut self,
        gate: &impl Gate,
        admitted: &Admitted<'_>,
        mut dirty: bool,
        ledger: &mut Ledger,
        log: &Transcript,
    ) -> Result<State, Stop> {
        let mut answered = false;
        let mut lines_told = false;
        loop {
            let batch = ledger.open(gate.max_recipients().max(1));
            let done = if dirty { State::Dirty } else { State::Ready };
            if batch.is_empty() {
                return Ok(done);
            }
            if let Err(reason) = gate.transaction(batch.len()).await {
                ledger.settle_rest(Class::Untried, Step::Envelope, &reason);
                if self.announced.is_some() {
                    // The server waits for its content.
                    return Err(Stop { step: Step::Envelope, reply: reason });
                }
                return Ok(done);
            }
            if self.announced.is_none() && self.dialogue.wire.is_disturbed() {
                let broken = self.dialogue.unasked(log).await;
                self.lost_while_idle = self.letters > 0 && !answered;
                return Err(Stop { step: Step::Envelope, reply: self.dialogue.absent(&broken) });
            }
            let mut transaction = Transaction {
                session: self,
                gate,
                admitted,
                batch: batch.clone(),
                answered,
                ahead: false,
                lines_told: &mut lines_told,
                ledger,
                log,
            };
            dirty = transaction.run(dirty).await?;
            ledger.count_transaction();
            answered = true;
            let reaches = |result: &&RecipientResult| result.class != Class::Sent;
            let widest = ledger.of(&batch).filter(reaches).max_by_key(|result| gate.reach(result)).cloned();
            match widest.map(|result| (gate.reach(&result), result)) {
                Some((Scope::Account, RecipientResult { reply, .. })) => {
                    ledger.settle_rest(Class::Untried, Step::Envelope, &reply);
                }
                Some((Scope::Message, RecipientResult { class, step, reply })) => {
                    ledger.settle_rest(class, step, &reply);
                }
                Some((Scope::Recipient, _)) | None => {}
            }
        }
    }
}
