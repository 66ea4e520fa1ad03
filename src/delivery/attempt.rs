//! One attempt for one letter: over the session that is open, or a new one; its transcript flows while it runs.

use std::pin::pin;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::history::{self, Span};
use super::record::Record;
use super::sender::Sender;
use super::trouble;
use super::turnstile::Turnstile;
use super::{Context, rules};
use crate::domain::address::{Address, AddressError};
use crate::domain::log::{Chunk, EntryKind};
use crate::domain::message::{Policy, RecipientState};
use crate::domain::outcome::{Again, Class, RecipientResult, Scope, Step, Verdict};
use crate::domain::reply::Reply;
use crate::smtp::{Failure, FailureKind, Letter, Transcript};
use crate::store::parking::{SEVERAL, Trouble};
use crate::store::queue::{Claim, Lane};

/// An attempt that is quicker writes its transcript with its outcome, in one go.
const QUICK: Duration = Duration::from_millis(50);
/// Behind that what is said is written so soon, with whatever is said meanwhile: a reader of the tail has it within 100 ms
/// (DESIGN 7 and 11).
const GATHERED: Duration = Duration::from_millis(20);

/// What an attempt means for the letters behind it.
pub(super) enum Then {
    /// The next one; so many transactions may follow at once.
    GoOn {
        /// Those.
        left: u32,
    },
    /// The next one; nothing was tried: there was nothing to send.
    Skip,
    /// The server takes no further session, while others of the account are open.
    Crowded(Claim),
    /// No slot is free now: they wait. The letter itself was not tried, or not for everybody.
    Wait(Option<Claim>),
    /// The account is at fault.
    Trouble(Trouble),
}

/// Makes an attempt and hands its outcome to the recorder. `next` is announced to the server.
pub(super) async fn run(
    context: &Context,
    lane: &Lane,
    sender: &Sender,
    claim: Claim,
    body: &[u8],
    next: Option<&Claim>,
    connection: &mut Connection,
) -> Then {
    connection.prepare(context, lane, sender).await;
    let clock = context.store.clock();
    let transcript = Transcript::new(sender.settings.log_level, clock.clone());
    let (session, message, attempt) = (connection.id(), claim.message, claim.attempt);
    let chunk = |entries| Chunk {
        site: lane.site.clone(),
        log: sender.log(),
        session: Some(session),
        message: Some((message, attempt)),
        entries,
    };
    if claim.after_interruption {
        let what = format!("attempt {} was interrupted: its process ended before it was over", attempt - 1);
        transcript.record(EntryKind::Error, what);
    }
    let start = clock.now();
    let numbers = due(&claim, start);
    let turnstile = Turnstile::new(context, lane, &claim, sender, &numbers);
    let next = next.and_then(|next| Some((next, Envelope::of(next, &due(next, start)).ok()?)));
    let brought = {
        let letters = (&claim, body, next.as_ref());
        let mut sending = pin!(send((context, lane), sender, letters, &turnstile, connection, &transcript));
        let begun = Instant::now();
        let mut flush: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                brought = &mut sending => break brought,
                () = transcript.waits(), if flush.is_none() => {
                    flush = Some((Instant::now() + GATHERED).max(begun + QUICK));
                }
                () = sleep_until(flush.unwrap_or(begun)), if flush.is_some() => {
                    flush = None;
                    // Never waits: with no room in the channel the entries stay until the next time.
                    if let Ok(permit) = context.records.try_reserve()
                        && let Some(entries) = sender.entries(&transcript)
                    {
                        let site = lane.site.clone();
                        permit.send(Record { site, outcome: None, chunk: Some(chunk(entries)) });
                    }
                }
            }
        }
    };
    let span = Span { start, end: clock.now() };
    let chunk = sender.entries(&transcript).map(chunk);
    let (closed, left) = (turnstile.is_closed(), turnstile.left());
    let Brought { verdicts, trouble, crowded } = brought;
    if verdicts.iter().all(|verdict| verdict.result.class == Class::Untried) {
        if chunk.is_some() {
            context.record(lane, None, chunk).await;
        }
        return if crowded { Then::Crowded(claim) } else { Then::Wait(Some(claim)) };
    }
    let counted = &context.store.metrics().delivery;
    counted.attempt_begins(start - claim.due);
    for verdict in &verdicts {
        counted.result(verdict.result.class, verdict.scope);
    }
    let intervals = &sender.settings.retry_intervals;
    let policy = Policy {
        retry_intervals: intervals,
        on_uncertain: sender.settings.on_uncertain,
        expire_time: claim.expire_time,
        jitter: rand::random(),
    };
    let verdicts = numbers.iter().copied().zip(verdicts).collect();
    let outcome = history::of_attempt(claim, verdicts, span, &policy);
    context.record(lane, Some(outcome), chunk).await;
    match trouble {
        Some(trouble) => Then::Trouble(trouble),
        None if closed => Then::Wait(None),
        None => Then::GoOn { left },
    }
}

/// The recipients that are due, by their numbers. The letter is due with the first of them; should the clocks disagree
/// about that, it is everybody's turn.
fn due(claim: &Claim, now: OffsetDateTime) -> Vec<usize> {
    let latest = now.max(claim.due);
    let pending = || claim.recipients.iter().enumerate().filter(|(_, r)| r.state == RecipientState::Pending);
    let due: Vec<usize> =
        pending().filter(|(_, r)| r.due.is_none_or(|due| due <= latest)).map(|(number, _)| number).collect();
    if due.is_empty() { pending().map(|(number, _)| number).collect() } else { due }
}

/// What an attempt brought: a verdict for each recipient it was for, and what is wrong with the account.
struct Brought {
    verdicts: Vec<Verdict>,
    trouble: Option<Trouble>,
    /// Whether the server takes no further session, while others of the account are open.
    crowded: bool,
}

/// Who sends to whom, as the session needs it.
struct Envelope {
    from: Address,
    recipients: Vec<Address>,
}

impl Envelope {
    /// Of a letter to these of its recipients.
    fn of(claim: &Claim, numbers: &[usize]) -> Result<Self, AddressError> {
        let addresses = numbers.iter().filter_map(|number| claim.recipients.get(*number));
        Ok(Self {
            from: Address::parse(&claim.envelope_sender)?,
            recipients: addresses
                .map(|recipient| Address::parse(&recipient.address))
                .collect::<Result<_, _>>()?,
        })
    }

    fn letter<'a>(&'a self, claim: &Claim, content: &'a [u8]) -> Letter<'a> {
        Letter {
            sender: &self.from,
            recipients: &self.recipients,
            content,
            eight_bit: claim.eight_bit,
            utf8_headers: claim.utf8_headers,
            is_private: claim.is_own,
        }
    }
}

/// A letter with its body, and the one that comes next.
type Letters<'a> = (&'a Claim, &'a [u8], Option<&'a (&'a Claim, Envelope)>);

/// Sends to the recipients that are due.
async fn send(
    (context, lane): (&Context, &Lane),
    sender: &Sender,
    (claim, body, next): Letters<'_>,
    turnstile: &Turnstile<'_>,
    connection: &mut Connection,
    transcript: &Transcript,
) -> Brought {
    let numbers = turnstile.numbers();
    let envelope = match Envelope::of(claim, numbers) {
        Ok(envelope) => envelope,
        Err(error) => {
            transcript.record(EntryKind::Error, format!("the envelope cannot be used: {error}"));
            return unreadable(numbers.len(), error);
        }
    };
    let next = next.and_then(|(claim, envelope)| {
        let ready = claim.ready.as_ref()?;
        Some((envelope.letter(claim, &ready.content), sender.max_recipients(claim.mailing)))
    });
    let letter = envelope.letter(claim, body);
    let of = (context, lane);
    match connection.deliver(of, sender, turnstile, &letter, next.as_ref(), transcript).await {
        Ok(results) => judged(results),
        Err(failure) if failure.kind == FailureKind::Temporary && connection.has_company() => {
            not_one_more(&failure, numbers.len())
        }
        Err(failure) => not_opened(&failure, sender, numbers.len()),
    }
}

/// The results of a session, as the rules see them.
fn judged(results: Vec<RecipientResult>) -> Brought {
    let trouble = results.iter().filter(|r| matches!(r.class, Class::Retry | Class::Refused)).find_map(|r| {
        let reason = rules::parking(r.step, &r.reply)?;
        Some(Trouble { reason, error: r.reply.to_string(), lasting: true, version: None })
    });
    Brought { verdicts: results.into_iter().map(rules::judge).collect(), trouble, crowded: false }
}

/// One session more could not be opened: the account works, and the letter goes over another.
fn not_one_more(failure: &Failure, recipients: usize) -> Brought {
    let result = RecipientResult { class: Class::Untried, step: failure.step, reply: failure.reply.clone() };
    let verdict = Verdict { result, scope: Scope::Account, again: Again::Uncounted(Duration::ZERO) };
    Brought { verdicts: vec![verdict; recipients], trouble: None, crowded: true }
}

/// No session could be opened: the account is at fault. The first times it counts as a try of the letter, since it may be
/// the network's mood; then the account is parked, and its letters wait.
fn not_opened(failure: &Failure, sender: &Sender, recipients: usize) -> Brought {
    let trouble = trouble::of_failure(failure);
    let account = &sender.account;
    let parks = trouble.lasting || account.parking.is_some() || account.failures + 1 >= SEVERAL;
    let verdict = Verdict {
        result: RecipientResult { class: Class::Retry, step: failure.step, reply: failure.reply.clone() },
        scope: Scope::Account,
        again: if parks { Again::Uncounted(Duration::ZERO) } else { Again::ByInterval },
    };
    Brought { verdicts: vec![verdict; recipients], trouble: Some(trouble), crowded: false }
}

/// An envelope in the store that does not parse, which the types do not rule out although it does not happen.
fn unreadable(recipients: usize, error: AddressError) -> Brought {
    let result = RecipientResult {
        class: Class::Refused,
        step: Step::Envelope,
        reply: Reply::absent(error.to_string()),
    };
    let verdict = Verdict { result, scope: Scope::Message, again: Again::ByInterval };
    Brought { verdicts: vec![verdict; recipients], trouble: None, crowded: false }
}
