//! The check of an account: the ladder as it is reported.

use std::time::{Duration, Instant};

use postroom::domain::account::Security;
use postroom::domain::log::EntryKind;
use postroom::domain::outcome::Step;
use postroom::smtp::Target;
use postroom::smtp::check::{Report, StepState, run};

use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Then, Tls};
use crate::support::{
    BRIEF, GRACE, PASSWORD, PATIENT, USER, addresses, connector, plain, target_at, texts, transcript,
    with_login,
};

async fn check(target: &Target) -> Report {
    run(connector(), target, &addresses(&[USER])[0], None, PATIENT, &transcript()).await
}

fn states(report: &Report) -> String {
    let letter = |state| match state {
        StepState::Passed => 'p',
        StepState::Failed => 'F',
        StepState::Warning => 'w',
        StepState::Skipped => '-',
    };
    report.steps.iter().map(|step| letter(step.state)).collect()
}

#[tokio::test]
async fn all_is_well() {
    for (security, tls) in [
        (Security::ImplicitTls, Tls::Implicit(Certificate::Good)),
        (Security::StartTls, Tls::AfterCommand(Certificate::Good)),
    ] {
        let server = Behaviour::default().tls(tls).login(USER, PASSWORD).start().await;
        let log = transcript();
        let target = with_login(&server, security);
        let report = run(connector(), &target, &addresses(&[USER])[0], None, PATIENT, &log).await;
        assert_eq!(states(&report), "pppppp-", "{report:?}");
        assert!(report.passed());
        let steps: Vec<Step> = report.steps.iter().map(|step| step.step).collect();
        assert_eq!(
            steps,
            [
                Step::Resolve,
                Step::Connect,
                Step::Tls,
                Step::Hello,
                Step::Auth,
                Step::Envelope,
                Step::TestLetter
            ]
        );
        assert_eq!(report.capabilities.last().map(String::as_str), Some("AUTH PLAIN LOGIN"));
        assert_eq!(report.steps[4].reply.code, 235);
        assert_eq!(report.steps[1].reply.to_string(), "220 ordinary.example ESMTP");
        let journal = server.wait_until(|journal| journal.ended == 1).await;
        let last: Vec<&str> = journal.commands.iter().rev().take(4).rev().map(String::as_str).collect();
        assert_eq!(last, ["MAIL FROM:<ann@example.com>", "RCPT TO:<ann@example.com>", "RSET", "QUIT"]);
        assert!(journal.letters.is_empty());
        assert!(texts(&log, EntryKind::Error).is_empty());
    }
}

#[tokio::test]
async fn what_is_not_needed_is_skipped() {
    let server = Behaviour::default().start().await;
    let report = check(&plain(&server)).await;
    assert_eq!(states(&report), "pp-p-p-");
    assert_eq!(report.steps[2].reply.text, "the account uses no TLS");
    assert_eq!(report.steps[4].reply.text, "the account has no login");
}

#[tokio::test]
async fn each_step_may_fail() {
    let starttls =
        |certificate| Behaviour::default().tls(Tls::AfterCommand(certificate)).login(USER, PASSWORD);
    for (behaviour, ladder, code) in [
        (starttls(Certificate::Good).once("greeting", "554 no\r\n", Then::Close), "pF-----", 554),
        (starttls(Certificate::Good).on("EHLO", "550 no\r\n"), "pp-F---", 550),
        (Behaviour::default().login(USER, PASSWORD), "ppF----", 0),
        (starttls(Certificate::Good).on("STARTTLS", "454 4.7.0 later\r\n"), "ppF----", 454),
        (starttls(Certificate::Expired), "ppF----", 0),
        (starttls(Certificate::Good).on("AUTH", "535 5.7.8 wrong\r\n"), "ppppF--", 535),
        (starttls(Certificate::Good).on("MAIL", "553 5.7.1 not your address\r\n"), "pppppF-", 553),
        (starttls(Certificate::Good).on("RCPT", "550 5.1.1 no such user\r\n"), "pppppw-", 550),
        (starttls(Certificate::Good).once("RCPT", "421 4.3.2 bye\r\n", Then::Close), "pppppF-", 421),
        (starttls(Certificate::Good).once("RSET", "", Then::Close), "pppppF-", 0),
    ] {
        let server = behaviour.start().await;
        let log = transcript();
        let target = with_login(&server, Security::StartTls);
        let report = run(connector(), &target, &addresses(&[USER])[0], None, PATIENT, &log).await;
        assert_eq!(states(&report), ladder, "{report:?}");
        let step =
            report.steps.iter().find(|step| matches!(step.state, StepState::Failed | StepState::Warning));
        let step = step.expect("a step");
        assert_eq!(step.reply.code, code);
        assert!(!step.advice.is_empty());
        assert_eq!(report.passed(), ladder.contains('w'));
        assert_eq!(texts(&log, EntryKind::Error).len(), usize::from(!report.passed()));
    }
}

#[tokio::test]
async fn forbidden_addresses_fail_at_resolve() {
    let report = check(&target_at("10.0.0.1", 25, Security::None)).await;
    assert_eq!(states(&report), "F------");
    assert!(
        report.failure().is_some_and(|step| step.advice.contains("the operator of this service decides"))
    );
}

#[tokio::test]
async fn a_whole_check_is_over_in_time() {
    // Each step within its deadline, all of them together not.
    let server = Behaviour::default()
        .tls(Tls::AfterCommand(Certificate::Good))
        .login(USER, PASSWORD)
        .delay("greeting", BRIEF * 2 / 3)
        .delay("EHLO", BRIEF * 2 / 3)
        .delay("AUTH", BRIEF * 2 / 3)
        .delay("MAIL", BRIEF * 2 / 3)
        .delay("RCPT", BRIEF * 2 / 3)
        .start()
        .await;
    let start = Instant::now();
    let target = with_login(&server, Security::StartTls);
    let report = run(connector(), &target, &addresses(&[USER])[0], None, BRIEF, &transcript()).await;
    let elapsed = start.elapsed();
    assert!(elapsed < BRIEF * 3 + GRACE, "{elapsed:?}");
    let failure = report.failure().expect("a failure");
    assert!(!server.journal().faults.is_empty());
    assert!(failure.reply.text.contains("in time") || failure.reply.text.contains("not over"), "{failure:?}");
    let total: Duration = report.steps.iter().map(|step| step.duration).sum();
    assert!(total <= elapsed && total > Duration::ZERO);
}
