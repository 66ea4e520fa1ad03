//! The check of an account: the ladder of steps from the host's name to an accepted envelope.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::connector::{Connector, Target};
use super::deadlines::Deadlines;
use super::failure::{Failure, FailureKind};
use super::session::dialogue::Shown;
use super::session::opening;
use super::session::progress::{LADDER, Progress};
use super::session::{Letter, Session, State};
use super::transcript::Transcript;
use super::wire::Broken;
use crate::domain::account::{Auth, Security};
use crate::domain::address::Address;
use crate::domain::log::EntryKind;
use crate::domain::outcome::{Class, RecipientResult, Step};
use crate::domain::reply::Reply;

/// A whole check ends within this many times the timeout of a step,
const TIMEOUTS: u32 = 3;
/// and within this: somebody is waiting for it.
const MAX_CHECK: Duration = Duration::from_mins(1);

const OWN_ADDRESS_REFUSED: &str =
    "the server does not take letters to the account's own address: replies and bounces may get lost";

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Well.
    Passed,
    /// Not at all; the steps after it were skipped.
    Failed,
    /// Well enough to send, but somebody should look.
    Warning,
    /// It was not needed, or a step before it failed.
    Skipped,
}

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// How it went.
    pub state: StepState,
    /// How long it took.
    pub duration: Duration,
    /// The server's words; code 0 where the words are ours.
    pub reply: Reply,
    /// What a person can do about it; empty where nothing needs to be done.
    pub advice: String,
}

/// The whole ladder, from the look-up of the host's name to the test letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seven steps, in this order.
    pub steps: Vec<StepReport>,
    /// What the server offers, line by line; empty when EHLO was not reached.
    pub capabilities: Vec<String>,
    /// Whose fault the failure is, where a step failed.
    pub failure_kind: Option<FailureKind>,
}

impl Report {
    /// The step that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.state == StepState::Failed)
    }

    /// Whether letters can be sent: no step failed. Warnings do not count.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure().is_none()
    }
}

/// Runs the check: opens a session, names `own_address` as sender and recipient, takes it back. A letter is sent only
/// where a `test_letter` is given, to the same address.
///
/// `timeout` is for each step; the whole ends within three times as much, and within a minute.
pub async fn run(
    connector: &Connector,
    target: &Target,
    own_address: &Address,
    test_letter: Option<&[u8]>,
    timeout: Duration,
    transcript: &Transcript,
) -> Report {
    let mut progress = Progress::new();
    let mut capabilities = Vec::new();
    let whole = MAX_CHECK.min(timeout.saturating_mul(TIMEOUTS));
    let deadlines = Deadlines::new(timeout, connector.floors);
    let climb = Climb { connector, target, own_address, test_letter, log: transcript }.run(
        deadlines,
        &mut progress,
        &mut capabilities,
    );
    let end = timeout_at(Instant::now() + whole, climb).await;
    let end = end.unwrap_or_else(|_| {
        let what = format!("the check was not over after {} s", whole.as_secs_f32());
        let failure = Failure::other(progress.current(), FailureKind::Temporary, what)
            .with_advice("the server is too slow: try again, or raise the timeout");
        transcript.record(EntryKind::Error, failure.to_string());
        Err(failure)
    });
    progress.enter(progress.current());
    let failure_kind = end.as_ref().err().map(|failure| failure.kind);
    Report { steps: steps(target, test_letter.is_some(), &progress, end), capabilities, failure_kind }
}

/// What a check is about.
struct Climb<'a> {
    connector: &'a Connector,
    target: &'a Target,
    own_address: &'a Address,
    test_letter: Option<&'a [u8]>,
    log: &'a Transcript,
}

impl Climb<'_> {
    /// All steps; the refusal of the own address as a warning.
    async fn run(
        self,
        deadlines: Deadlines,
        progress: &mut Progress,
        capabilities: &mut Vec<String>,
    ) -> Result<Option<Reply>, Failure> {
        let Self { connector, target, own_address, test_letter, log } = self;
        let opened = opening::open(connector, target, deadlines, progress, log).await?;
        let mut session = Session::from(opened);
        *capabilities = session.capabilities().to_vec();
        progress.enter(Step::Envelope);
        session.state = State::Busy;
        let mut outcome = envelope(&mut session, own_address, log).await;
        if let Err(failure) = &outcome {
            log.record(EntryKind::Error, failure.to_string());
        }
        if let Ok((reply, _)) = &outcome {
            session.state = State::Ready;
            progress.pass(reply.clone());
        }
        if let (Ok(_), Some(content)) = (&outcome, test_letter) {
            progress.enter(Step::TestLetter);
            match deliver_to_oneself(&mut session, own_address, content, log).await {
                Ok(reply) => progress.pass(reply),
                Err(failure) => outcome = Err(failure),
            }
        }
        // The time of QUIT is no step's.
        progress.enter(progress.current());
        session.quit(log).await;
        outcome.map(|(_, warning)| warning)
    }
}

/// The test letter: the server's words at the dot. Why it failed stands in the transcript already.
async fn deliver_to_oneself(
    session: &mut Session,
    own_address: &Address,
    content: &[u8],
    log: &Transcript,
) -> Result<Reply, Failure> {
    let letter = Letter {
        sender: own_address,
        recipients: std::slice::from_ref(own_address),
        content,
        eight_bit: false,
        utf8_headers: own_address.needs_smtputf8(),
        is_private: true,
    };
    let result = session.deliver(&letter, log).await.pop();
    let Some(RecipientResult { class, step: _, reply }) = result else {
        return Err(Failure::other(Step::TestLetter, FailureKind::Temporary, "nothing was tried"));
    };
    let kind = match class {
        Class::Sent => return Ok(reply),
        Class::Refused => FailureKind::Permanent,
        Class::Retry | Class::Uncertain | Class::Untried => FailureKind::Temporary,
    };
    let advice = "the login works, but the server does not take a letter from this address: check the rights to send from it";
    Err(Failure { step: Step::TestLetter, kind, reply, advice: Some(advice.to_owned()) })
}

/// MAIL, RCPT, RSET. The reply to RCPT, and the same as a warning where it refused.
async fn envelope(
    session: &mut Session,
    own_address: &Address,
    log: &Transcript,
) -> Result<(Reply, Option<Reply>), Failure> {
    let utf8 = if own_address.needs_smtputf8() { " SMTPUTF8" } else { "" };
    let mail = ask(session, &format!("MAIL FROM:<{own_address}>{utf8}"), log).await?;
    if mail.code != 250 {
        return Err(Failure::refused(Step::Envelope, mail)
            .with_advice("the server does not let this login send from this address: check the address, or its rights at the provider"));
    }
    let rcpt = ask(session, &format!("RCPT TO:<{own_address}>"), log).await?;
    let refused = rcpt.is_transient() || rcpt.is_permanent();
    if rcpt.code == 421 || !(refused || matches!(rcpt.code, 250..=252)) {
        return Err(Failure::refused(Step::Envelope, rcpt));
    }
    let rset = ask(session, "RSET", log).await?;
    if rset.code != 250 {
        return Err(Failure::refused(Step::Envelope, rset));
    }
    let warning = refused.then(|| rcpt.clone());
    Ok((rcpt, warning))
}

async fn ask(session: &mut Session, line: &str, log: &Transcript) -> Result<Reply, Failure> {
    let dialogue = &mut session.dialogue;
    let heard: Result<_, Broken> = dialogue.command(line, Shown::AsSaid, log).await;
    match heard {
        Ok(reply) => Ok(dialogue.stored(&reply)),
        Err(broken) => Err(Failure {
            step: Step::Envelope,
            kind: FailureKind::Temporary,
            reply: dialogue.absent(&broken),
            advice: None,
        }),
    }
}

/// The ladder as it is reported.
fn steps(
    target: &Target,
    with_letter: bool,
    progress: &Progress,
    end: Result<Option<Reply>, Failure>,
) -> Vec<StepReport> {
    let (failure, warning) = match end {
        Ok(warning) => (None, warning),
        Err(failure) => (Some(failure), None),
    };
    let mut fallen = false;
    let mut steps = Vec::with_capacity(LADDER.len());
    for step in LADDER {
        let rung = progress.rung(step);
        let unneeded = match step {
            Step::Tls if target.server.security == Security::None => Some("the account uses no TLS"),
            Step::Auth if matches!(target.auth, Auth::None) => Some("the account has no login"),
            Step::TestLetter if !with_letter => Some("no test letter was asked for"),
            _ => None,
        };
        let mut report = StepReport {
            step,
            state: StepState::Skipped,
            duration: rung.spent,
            reply: Reply::absent(unneeded.unwrap_or("a step before it failed")),
            advice: String::new(),
        };
        if let Some(failure) = failure.as_ref().filter(|failure| failure.step == step) {
            fallen = true;
            report.state = StepState::Failed;
            report.reply = failure.reply.clone();
            report.advice = failure.advice.clone().unwrap_or_else(|| advice(failure).to_owned());
        } else if !fallen && let Some(proof) = &rung.passed {
            report.state = StepState::Passed;
            report.reply = proof.clone();
            if step == Step::Envelope
                && let Some(refusal) = &warning
            {
                report.state = StepState::Warning;
                report.reply = refusal.clone();
                OWN_ADDRESS_REFUSED.clone_into(&mut report.advice);
            }
        }
        steps.push(report);
    }
    steps
}

/// What to do where the step itself had no better word.
fn advice(failure: &Failure) -> &'static str {
    match (failure.kind, failure.step) {
        (FailureKind::NotAllowed, _) => "the operator of this service must allow this host and port",
        (FailureKind::Temporary, _) => "try again later; if it stays, ask the operator of the mail server",
        (FailureKind::Permanent, Step::Auth) => "check user name and password",
        (FailureKind::Permanent, Step::Tls) => "check port and security",
        (FailureKind::Permanent, _) => "ask the operator of the mail server, with the words of its reply",
    }
}
