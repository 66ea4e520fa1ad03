//! Proving an account: the check runs, its transcript is stored, and a failure becomes the answer.

use time::OffsetDateTime;
use uuid::Uuid;

use super::live::Live;
use crate::api::Api;
use crate::domain::account::{Auth, Check, CheckState, Login, Profile, Server};
use crate::domain::address::Mailbox;
use crate::domain::error::{Problem, Reason};
use crate::domain::log::{Chunk, LogId};
use crate::domain::outcome::Step;
use crate::domain::providers;
use crate::domain::reply::Reply;
use crate::domain::secret::Secret;
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;
use crate::mime::compose::{Composed, compose};
use crate::smtp::check::{self, Report, StepState};
use crate::smtp::{Failure, FailureKind, Target, Transcript};
use crate::store::logs;

/// Whom a check is about.
pub(super) struct Subject<'a> {
    /// What its caller decided.
    pub(super) profile: &'a Profile,
    /// How it logs in.
    pub(super) auth: Auth,
    /// Its id; 0 for one that is not saved.
    pub(super) account: i64,
}

/// Whether a check ends with a letter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TestLetter {
    /// To the account's own address.
    Sent,
    /// No.
    None,
}

impl TestLetter {
    /// As it is asked for.
    pub(super) const fn of(wanted: bool) -> Self {
        if wanted { Self::Sent } else { Self::None }
    }
}

/// The bytes of a test letter; `None` only where the account's own name or address cannot stand in a header.
fn test_letter(site: &SiteId, profile: &Profile, now: OffsetDateTime) -> Option<Vec<u8>> {
    let name = Some(profile.sender_name.clone()).filter(|name| !name.is_empty());
    let own = Mailbox { name, address: profile.sender_email.clone() };
    let letter = Composed {
        from: &own,
        to: std::slice::from_ref(&own),
        cc: &[],
        reply_to: &[],
        subject: "Test letter",
        text: &format!("This letter shows that {} can send through this account.\r\n", site.name()),
        html: "",
        attachments: &[],
        headers: &[("Auto-Submitted".to_owned(), "auto-generated".to_owned())],
        date: now,
        message_id: &format!("<{}@{}>", Uuid::now_v7(), own.address.domain()),
    };
    compose(&letter).ok().map(|content| content.bytes)
}

/// What a check brought, and its transcript, which is not stored yet.
pub(super) struct Proof {
    pub(super) report: Report,
    transcript: Option<Chunk>,
}

/// Runs the check of an account whose transcript is stored while it runs; the report.
///
/// # Errors
/// `RATE_LIMITED`, `STORE_UNAVAILABLE`.
pub(super) async fn climb_live(
    api: &Api,
    site: &SiteId,
    settings: &EffectiveSettings,
    subject: Subject<'_>,
    test: TestLetter,
) -> Result<Report, Problem> {
    let live =
        |transcript: &Transcript, like: &Chunk| Some(Live::start(&api.store, transcript, like.clone()));
    climb_with(api, site, settings, subject, test, live).await?.record(api).await
}

/// Runs the check of an account that is to be changed: its transcript is stored when the logs of before are emptied.
///
/// # Errors
/// `RATE_LIMITED`.
pub(super) async fn climb(
    api: &Api,
    site: &SiteId,
    settings: &EffectiveSettings,
    subject: Subject<'_>,
    test: TestLetter,
) -> Result<Proof, Problem> {
    climb_with(api, site, settings, subject, test, |_, _| None).await
}

async fn climb_with(
    api: &Api,
    site: &SiteId,
    settings: &EffectiveSettings,
    subject: Subject<'_>,
    test: TestLetter,
    live: impl FnOnce(&Transcript, &Chunk) -> Option<Live>,
) -> Result<Proof, Problem> {
    let Subject { profile, auth, account } = subject;
    api.check_budget.take(site, &profile.server.host)?;
    let letter = match test {
        TestLetter::Sent => test_letter(site, profile, api.store.clock().now()),
        TestLetter::None => None,
    };
    let target = Target { server: profile.server.clone(), auth };
    let transcript = Transcript::new(settings.log_level, api.store.clock().clone());
    let timeout = settings.connection_timeout;
    let mut chunk = Chunk {
        site: site.clone(),
        log: LogId::check(profile.ownership.origin, account),
        session: Some(Uuid::now_v7()),
        message: None,
        entries: Vec::new(),
    };
    let live = settings.save_logs.then(|| live(&transcript, &chunk)).flatten();
    let mut report =
        check::run(&api.connector, &target, &profile.sender_email, letter.as_deref(), timeout, &transcript)
            .await;
    add_provider_advice(&mut report, &profile.server.host);
    if let Some(live) = live {
        chunk.entries = live.end().await;
    }
    chunk.entries.extend(transcript.take());
    let transcript = (settings.save_logs && !chunk.entries.is_empty()).then_some(chunk);
    Ok(Proof { report, transcript })
}

impl Proof {
    /// Stores the transcript; the report.
    pub(super) async fn record(self, api: &Api) -> Result<Report, Problem> {
        let Self { report, transcript } = self;
        if let Some(chunk) = transcript {
            let site = chunk.site.clone();
            logs::record(&api.store, &site, &[], &[chunk]).await?;
        }
        Ok(report)
    }
}

/// A refused login often means that the provider wants another kind of password: its advice is added.
fn add_provider_advice(report: &mut Report, host: &str) {
    let refused =
        report.steps.iter_mut().find(|step| step.step == Step::Auth && step.state == StepState::Failed);
    if let (Some(step), Some(provider)) = (refused, providers::of_host(host)) {
        step.advice = format!("{}; {}: {}", step.advice, provider.name(), provider.advice());
    }
}

/// The check that a report amounts to.
pub(super) fn check_of(report: &Report) -> Check {
    let error = report.failure().map(|step| format!("{}: {}", step_name(step.step), step.reply));
    Check {
        state: if error.is_some() { CheckState::Failed } else { CheckState::Passed },
        error: error.unwrap_or_default(),
        capabilities: report.capabilities.clone(),
        ..Check::none()
    }
}

/// Refuses what the report says does not work.
///
/// # Errors
/// `CHECK_FAILED` with the step and the server's words; `HOST_NOT_ALLOWED` with host and port.
pub(super) fn demand(report: &Report, server: &Server) -> Result<Check, Problem> {
    let Some(failed) = report.failure() else { return Ok(check_of(report)) };
    if report.failure_kind == Some(FailureKind::NotAllowed) {
        return Err(not_allowed(server, failed.step, &failed.reply, &failed.advice));
    }
    let step = step_name(failed.step);
    let advice = if failed.advice.is_empty() { String::new() } else { format!(" ({})", failed.advice) };
    let text = format!("the account does not work, nothing was saved: {step}: {}{advice}", failed.reply);
    Err(Problem::new(Reason::CheckFailed, text)
        .with("step", step)
        .with("code", failed.reply.code.to_string())
        .with("enhanced_code", failed.reply.enhanced_code.clone())
        .with("reply", failed.reply.text.clone())
        .with("advice", failed.advice.clone()))
}

/// Refuses a server that the operator's policy forbids by port, name or literal address. Where a name leads is seen when
/// the account is checked, and at every connection.
///
/// # Errors
/// `HOST_NOT_ALLOWED`.
pub(super) fn demand_allowed(api: &Api, server: &Server) -> Result<(), Problem> {
    let judged = api.connector.demand_allowed(server);
    judged.map_err(|Failure { step, kind: _, reply, advice }| {
        not_allowed(server, step, &reply, &advice.unwrap_or_default())
    })
}

/// Names host and port as the caller gave them, never an address to which a name led.
fn not_allowed(server: &Server, step: Step, reply: &Reply, advice: &str) -> Problem {
    let text = format!("nothing was saved: {reply}; {advice}");
    Problem::new(Reason::HostNotAllowed, text)
        .with("host", server.host.clone())
        .with("port", server.port.to_string())
        .with("step", step_name(step))
        .with("reply", reply.text.clone())
        .with("advice", advice)
}

/// How a wanted account logs in, with the password that came along or the one that is kept.
pub(super) fn auth_of(login: &Login, password: Option<&Secret>, kept: Option<Auth>) -> Auth {
    match (login, password, kept) {
        (Login::None, _, _) => Auth::None,
        (Login::Password { username }, Some(password), _) => {
            Auth::Password { username: username.clone(), password: password.clone() }
        }
        (Login::Password { username }, None, Some(Auth::Password { password, .. })) => {
            Auth::Password { username: username.clone(), password }
        }
        (Login::Password { username }, None, _) => {
            Auth::Password { username: username.clone(), password: Secret::new(Vec::new()) }
        }
    }
}

/// A step's name as the contract writes it.
const fn step_name(step: Step) -> &'static str {
    match step {
        Step::Resolve => "RESOLVE",
        Step::Connect => "CONNECT",
        Step::Tls => "TLS",
        Step::Hello => "HELLO",
        Step::Auth => "AUTH",
        Step::Envelope => "ENVELOPE",
        Step::TestLetter => "TEST_LETTER",
        Step::Content => "CONTENT",
        Step::Acceptance => "ACCEPTANCE",
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Step, StepState, add_provider_advice};
    use crate::domain::reply::Reply;
    use crate::smtp::check::StepReport;

    fn advice(step: Step, host: &str) -> String {
        let failed = StepReport {
            step,
            state: StepState::Failed,
            duration: std::time::Duration::ZERO,
            reply: Reply::absent("no"),
            advice: "535".to_owned(),
        };
        let mut report = Report { steps: vec![failed], capabilities: Vec::new(), failure_kind: None };
        add_provider_advice(&mut report, host);
        report.steps.remove(0).advice
    }

    #[test]
    fn a_refused_login_is_told_what_its_provider_wants() {
        assert!(advice(Step::Auth, "smtp.gmail.com").contains("app password"));
        assert_eq!(advice(Step::Auth, "mail.example.com"), "535");
        assert_eq!(advice(Step::Tls, "smtp.gmail.com"), "535");
    }
}
