//! The ladder of a check, each step failing once for real; the test letter; stored results; and how often one may ask.

use std::time::Duration;

use postroom::api::CheckLimits;
use postroom::api::proto::check::State;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::check_step::State as StepState;
use postroom::api::proto::{
    Account, CheckAccountRequest, CheckAccountResponse, CheckStep, Security, Settings, Step,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::scripted::Server;
use crate::scripted::certificates::{CaFile, Certificate};
use crate::scripted::ordinary::{Behaviour, Tls};
use crate::support::{Options, Postroom, SITE, plain_account, reason, variable, with_login};

const OWN: &str = "shop@example.com";

async fn check(postroom: &Postroom, account: Account, test: bool) -> Result<CheckAccountResponse, Status> {
    let request = CheckAccountRequest {
        parent: SITE.to_owned(),
        target: Some(Target::Account(Box::new(account))),
        send_test_letter: test,
        max_age: None,
    };
    Ok(postroom.accounts().check_account(request).await?.into_inner())
}

fn state_of(steps: &[CheckStep], step: Step) -> StepState {
    steps.iter().find(|report| report.step() == step).expect("every step").state()
}

/// The check fails at this step with these words and some advice; those before it passed or were not needed, those
/// behind it were not tried.
async fn falls(postroom: &Postroom, account: Account, step: Step, words: &str) {
    let answer = check(postroom, account, true).await.expect("an answer");
    assert_eq!(answer.steps.len(), 7);
    let place = answer.steps.iter().position(|report| report.step() == step).expect("every step");
    let (before, rest) = answer.steps.split_at(place);
    let fallen = &rest[0];
    assert_eq!(fallen.state(), StepState::Failed, "{step:?} {answer:?}");
    let reply = fallen.reply.clone().expect("words");
    assert!(format!("{} {}", reply.code, reply.text).contains(words), "{words}: {reply:?}");
    assert_ne!(fallen.advice, "", "{step:?}");
    let tried = [StepState::Passed, StepState::Skipped, StepState::Warning];
    assert!(before.iter().all(|report| tried.contains(&report.state())), "{answer:?}");
    assert!(rest[1..].iter().all(|report| report.state() == StepState::Skipped), "{answer:?}");
    let check = answer.check.expect("set");
    assert_eq!(check.state(), State::Failed);
    assert!(check.error.contains(&reply.text), "{check:?}");
}

fn secured(server: &Server, security: Security) -> Account {
    Account { security: security.into(), ..with_login(plain_account(server, OWN), "shop", "secret") }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_fails_for_real() {
    let ca = CaFile::new();
    let options = Options { ca_file: Some(ca.path().to_owned()), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let plain = Behaviour::default().start().await;
    let login = Behaviour::default().login("shop", "secret").start().await;

    let nowhere = Account { host: "nowhere.invalid".to_owned(), ..plain_account(&plain, OWN) };
    falls(&postroom, nowhere, Step::Resolve, "nowhere.invalid").await;
    let closed = Account { port: 1, ..plain_account(&plain, OWN) };
    falls(&postroom, closed, Step::Connect, "refused").await;
    let web = Server::scripted(|mut c| async move { c.say("HTTP/1.1 400 Bad Request\r\n\r\n").await }).await;
    falls(&postroom, plain_account(&web, OWN), Step::Connect, "HTTP").await;
    falls(&postroom, secured(&plain, Security::ImplicitTls), Step::Tls, "TLS").await;
    for (certificate, words) in [(Certificate::Expired, "expired"), (Certificate::OtherName, "not for")] {
        let server =
            Behaviour::default().tls(Tls::Implicit(certificate)).login("shop", "secret").start().await;
        falls(&postroom, secured(&server, Security::ImplicitTls), Step::Tls, words).await;
    }
    falls(&postroom, secured(&plain, Security::None), Step::Auth, "no login").await;
    let wrong = with_login(plain_account(&login, OWN), "shop", "wrong");
    falls(&postroom, wrong, Step::Auth, "535").await;
    let sender = Behaviour::default().on("MAIL", "553 5.7.1 not your address\r\n").start().await;
    falls(&postroom, plain_account(&sender, OWN), Step::Envelope, "not your address").await;
    let letter = Behaviour::default().on("dot", "554 5.2.252 send as denied\r\n").start().await;
    falls(&postroom, plain_account(&letter, OWN), Step::TestLetter, "send as denied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_letter_is_sent_when_asked_for_and_when_the_site_wants_it() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let without = check(&postroom, plain_account(&server, OWN), false).await.expect("an answer");
    assert_eq!(state_of(&without.steps, Step::TestLetter), StepState::Skipped);
    assert_eq!(server.journal().letters.len(), 0);
    let with = check(&postroom, plain_account(&server, OWN), true).await.expect("an answer");
    assert_eq!(state_of(&with.steps, Step::TestLetter), StepState::Passed);
    let letters = server.journal().letters;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].recipients[0].contains(OWN), "{letters:?}");
    assert!(String::from_utf8_lossy(&letters[0].content).contains("Subject: Test letter"));

    postroom.change_settings(Settings { send_test_on_save: Some(true), ..Settings::default() }).await;
    postroom.create_account(plain_account(&server, OWN)).await;
    assert_eq!(server.journal().letters.len(), 2);
    let refusing = Behaviour::default().on("dot", "554 5.2.252 send as denied\r\n").start().await;
    let refused = postroom.try_account(plain_account(&refusing, OWN)).await.expect_err("refused");
    assert_eq!(
        (reason(&refused).1.as_str(), variable(&refused, "step").as_str()),
        ("CHECK_FAILED", "TEST_LETTER")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_result_is_answered_instead() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, OWN)).await;
    let ask = async |max_age: Option<Duration>| {
        let request = CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(Target::Name(account.name.clone())),
            send_test_letter: false,
            max_age: max_age.map(|age| prost_types::Duration::try_from(age).expect("short")),
        };
        postroom.accounts().check_account(request).await.expect("an answer").into_inner()
    };
    let connections = server.journal().connections;
    let stored = ask(Some(Duration::from_hours(1))).await;
    assert_eq!((stored.steps.len(), stored.check), (0, account.check.clone()));
    assert_eq!(server.journal().connections, connections, "nobody was called");
    assert_eq!(ask(None).await.steps.len(), 7);
    assert_eq!(ask(Some(Duration::from_micros(1))).await.steps.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_limited_by_site_and_by_host() {
    let server = Behaviour::default().start().await;
    let limits = CheckLimits { per_site: 3, per_host: 5 };
    let postroom = Postroom::start_with(Options { check_limits: Some(limits), ..Options::default() }).await;
    let limited = |status: &Status| {
        assert_eq!(reason(status), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()));
        let wait = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
        assert!(wait.is_some_and(|wait| wait <= Duration::from_mins(1)), "{wait:?}");
    };
    for _ in 0..3 {
        check(&postroom, plain_account(&server, OWN), false).await.expect("an answer");
    }
    limited(&check(&postroom, plain_account(&server, OWN), false).await.expect_err("the site's fourth"));
    limited(&postroom.try_account(plain_account(&server, OWN)).await.expect_err("saving checks, too"));
    // Another site has its own share, but the host is the same.
    let other = postroom.create_site("other").await;
    for _ in 0..2 {
        postroom.create_account_in(&other, plain_account(&server, OWN)).await;
    }
    let connections = server.journal().connections;
    limited(
        &postroom.try_account_in(&other, plain_account(&server, OWN)).await.expect_err("the host's sixth"),
    );
    assert_eq!(server.journal().connections, connections, "nobody was called");
}
