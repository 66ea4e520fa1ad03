//! Proving accounts: what does not work is not saved, the answer names step and words, and the transcript can be read.

use postroom::api::proto::check::State;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::check_step::State as StepState;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::{
    Account, CheckAccountRequest, CheckAccountResponse, CheckStep, GetAccountRequest, ListAccountsRequest,
    LogLevel, Security, Settings, Step, UpdateAccountRequest,
};
use tonic::{Code, Status};

use crate::scripted::certificates::{CaFile, Certificate};
use crate::scripted::ordinary::{Behaviour, Then, Tls};
use crate::scripted::{Received, Server};
use crate::support::{Options, Postroom, SITE, letter, plain_account, reason, variable, with_login};

const PASSWORD: &str = "correct horse";
const PASSED: StepState = StepState::Passed;

fn account(server: &Server, security: Security, password: &str) -> Account {
    let account = Account { security: security.into(), ..plain_account(server, "shop@example.com") };
    with_login(account, "shop", password)
}

async fn saved(postroom: &Postroom) -> usize {
    let request = ListAccountsRequest { parent: SITE.to_owned(), ..ListAccountsRequest::default() };
    postroom.accounts().list_accounts(request).await.expect("a page").into_inner().accounts.len()
}

async fn check(postroom: &Postroom, target: Target) -> CheckAccountResponse {
    let request = CheckAccountRequest { parent: SITE.to_owned(), target: Some(target), ..Default::default() };
    postroom.accounts().check_account(request).await.expect("an answer").into_inner()
}

/// Nothing of an account that failed is saved, its transcript is there to be read, and the next one works.
async fn expect_failure(postroom: &Postroom, wrong: Account, step: &str, words: &str) -> Status {
    let refused = postroom.try_account(wrong).await.expect_err(words);
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "CHECK_FAILED".to_owned()), "{refused:?}");
    assert_eq!(variable(&refused, "step"), step, "{refused:?}");
    assert!(variable(&refused, "reply").contains(words), "{words}: {refused:?}");
    assert!(refused.message().contains(words), "{words}: {refused:?}");
    assert_ne!(variable(&refused, "advice"), "", "{refused:?}");
    assert_eq!(saved(postroom).await, 0, "nothing is saved");
    let entries = postroom.entries("check-admin-0").await;
    let error = entries.iter().rev().find(|entry| entry.kind() == Kind::Error);
    assert!(error.is_some_and(|entry| entry.text.contains(words)), "{words}: {entries:?}");
    assert!(!entries.iter().any(|entry| entry.text.contains(PASSWORD)), "{entries:?}");
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_in_the_servers_words() {
    let server = Behaviour::default().login("shop", PASSWORD).start().await;
    let postroom = Postroom::start().await;
    let wrong = account(&server, Security::None, "wrong battery");
    let refused = expect_failure(&postroom, wrong, "AUTH", "wrong user name or password").await;
    assert_eq!(variable(&refused, "code"), "535");
    assert_eq!(variable(&refused, "enhanced_code"), "5.7.8");
    let entries = postroom.entries("check-admin-0").await;
    let said = |kind, text: &str| entries.iter().any(|e| e.kind() == kind && e.text.contains(text));
    assert!(said(Kind::Client, "EHLO") && said(Kind::Client, "AUTH PLAIN <hidden>"), "{entries:?}");
    assert!(said(Kind::Server, "535 5.7.8 wrong user name or password"), "{entries:?}");
    assert!(!entries.iter().any(|entry| entry.text.contains("wrong battery")), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.message.is_empty() && entry.attempt == 0));
    assert!(entries.iter().all(|entry| entry.session == entries[0].session));
    let created = postroom.create_account(account(&server, Security::None, PASSWORD)).await;
    assert_eq!(created.check.expect("set").state(), State::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_told() {
    let postroom = Postroom::start().await;
    let server = Behaviour::default().start().await;
    let closed = plain_account(&server, "shop@example.com");
    let port = server.port();
    drop(server);
    // The server's task lets go of its port when it is scheduled again.
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let refused = expect_failure(&postroom, closed, "CONNECT", "Connection refused").await;
    assert_eq!(variable(&refused, "code"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_expects_tls_is_told_and_the_reverse() {
    let ca = CaFile::new();
    let implicit = Behaviour::default().tls(Tls::Implicit(Certificate::Good)).start().await;
    let plain = Behaviour::default().login("shop", PASSWORD).start().await;
    let options = Options { ca_file: Some(ca.path().to_owned()), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    postroom
        .change_settings(Settings {
            connection_timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            ..Settings::default()
        })
        .await;
    for security in [Security::None, Security::Starttls] {
        let wrong = account(&implicit, security, PASSWORD);
        let refused = postroom.try_account(wrong).await.expect_err("TLS is expected");
        assert_eq!(reason(&refused).1, "CHECK_FAILED");
        assert_eq!(variable(&refused, "step"), "CONNECT", "{refused:?}");
        assert!(variable(&refused, "advice").contains("IMPLICIT_TLS"), "{refused:?}");
    }
    let wrong = account(&plain, Security::ImplicitTls, PASSWORD);
    let refused = postroom.try_account(wrong).await.expect_err("no TLS there");
    assert_eq!(reason(&refused).1, "CHECK_FAILED");
    assert_eq!(variable(&refused, "step"), "TLS", "{refused:?}");
    assert!(variable(&refused, "advice").contains("STARTTLS"), "{refused:?}");
    // Nothing of the login went over the wire.
    assert!(!plain.journal().commands.iter().any(|command| command.contains("AUTH")));
    assert_eq!(saved(&postroom).await, 0);
    let right = account(&implicit, Security::ImplicitTls, PASSWORD);
    postroom.create_account(Account { auth: None, ..right }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_starttls_gets_no_password() {
    let server = Behaviour::default().login("shop", PASSWORD).start().await;
    let postroom = Postroom::start().await;
    let wrong = account(&server, Security::Starttls, PASSWORD);
    expect_failure(&postroom, wrong, "TLS", "does not offer STARTTLS").await;
    assert!(!server.journal().commands.iter().any(|command| command.starts_with("AUTH")));
    postroom.create_account(account(&server, Security::None, PASSWORD)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_are_told_apart() {
    let ca = CaFile::new();
    let options = Options { ca_file: Some(ca.path().to_owned()), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    for (certificate, words) in [
        (Certificate::OtherName, "mail.example.com"),
        (Certificate::Expired, "expired"),
        (Certificate::SelfSigned, "self-signed"),
        (Certificate::UnknownIssuer, "issuer"),
    ] {
        let server = Behaviour::default().tls(Tls::AfterCommand(certificate)).login("shop", PASSWORD);
        let server = server.start().await;
        let wrong = account(&server, Security::Starttls, PASSWORD);
        expect_failure(&postroom, wrong, "TLS", words).await;
        let server = Behaviour::default().tls(Tls::Implicit(certificate)).login("shop", PASSWORD);
        let server = server.start().await;
        let wrong = account(&server, Security::ImplicitTls, PASSWORD);
        expect_failure(&postroom, wrong, "TLS", words).await;
    }
    let server = Behaviour::default().tls(Tls::AfterCommand(Certificate::Good)).login("shop", PASSWORD);
    let server = server.start().await;
    postroom.create_account(account(&server, Security::Starttls, PASSWORD)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_work_is_not_saved() {
    let server = Behaviour::default().login("shop", PASSWORD).start().await;
    let postroom = Postroom::start().await;
    let created = postroom.create_account(account(&server, Security::None, PASSWORD)).await;
    let change =
        with_login(Account { name: created.name.clone(), ..Account::default() }, "", "wrong battery");
    let request = UpdateAccountRequest { account: Some(change), ..UpdateAccountRequest::default() };
    let refused = postroom.accounts().update_account(request).await.expect_err("a wrong password");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "CHECK_FAILED".to_owned()));
    assert_eq!(get(&postroom, &created.name).await, created);
    let entries = postroom.entries("check-admin-1").await;
    assert!(entries.iter().any(|entry| entry.text.contains("535 5.7.8")), "{entries:?}");
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    assert_eq!(server.journal().letters.len(), 1, "the kept password still works");

    // An inactive account is saved as it is, and proven when it is switched on.
    let off = Account { active: Some(false), ..account(&server, Security::None, "wrong battery") };
    let off = postroom.create_account(off).await;
    let on = Account { name: off.name.clone(), active: Some(true), ..Account::default() };
    let request = UpdateAccountRequest { account: Some(on), ..UpdateAccountRequest::default() };
    let refused = postroom.accounts().update_account(request).await.expect_err("a wrong password");
    assert_eq!(variable(&refused, "step"), "AUTH");
    assert_eq!(get(&postroom, &off.name).await.active, Some(false));
}

async fn get(postroom: &Postroom, name: &str) -> Account {
    let request = GetAccountRequest { name: name.to_owned() };
    postroom.accounts().get_account(request).await.expect("found").into_inner().account.expect("set")
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_ports_that_the_operator_forbids_are_not_called() {
    let server = Behaviour::default().start().await;
    let port = server.port();
    let open = Options { egress_allow: Some("127.0.0.1/32"), ..Options::default() };
    let postroom = Postroom::start_with(Options { egress_allow: Some(""), ..open.clone() }).await;
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "::1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
    ] {
        let account = Account { host: host.to_owned(), ..plain_account(&server, "shop@example.com") };
        let refused = postroom.try_account(account).await.expect_err(host);
        let expected = (Code::FailedPrecondition, "HOST_NOT_ALLOWED".to_owned());
        assert_eq!(reason(&refused), expected, "{host}: {refused:?}");
        assert_eq!(variable(&refused, "step"), "RESOLVE");
    }
    let postroom = Postroom::start_with(Options { egress_ports: Some("465,587"), ..open.clone() }).await;
    let refused = postroom.try_account(plain_account(&server, "shop@example.com")).await.expect_err("port");
    assert_eq!(reason(&refused).1, "HOST_NOT_ALLOWED");
    assert!(refused.message().contains(&port.to_string()), "{refused:?}");
    assert_eq!(saved(&postroom).await, 0);
    assert_eq!(server.journal().connections, 0, "no packet was sent");
    // The same server is reached where it is allowed.
    Postroom::start_with(open).await.create_account(plain_account(&server, "shop@example.com")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_answers_each_step() {
    let ca = CaFile::new();
    let server = Behaviour::default()
        .tls(Tls::AfterCommand(Certificate::Good))
        .login("shop", PASSWORD)
        .delay("MAIL", std::time::Duration::from_millis(30));
    let server = server.start().await;
    let options = Options { ca_file: Some(ca.path().to_owned()), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let right = account(&server, Security::Starttls, PASSWORD);
    let created = postroom.create_account(right.clone()).await;
    let ladder =
        [Step::Resolve, Step::Connect, Step::Tls, Step::Hello, Step::Auth, Step::Envelope, Step::TestLetter];
    for target in [Target::Name(created.name.clone()), Target::Account(Box::new(right.clone()))] {
        let answer = check(&postroom, target).await;
        assert_eq!(answer.steps.iter().map(CheckStep::step).collect::<Vec<_>>(), ladder);
        assert_eq!(answer.steps[6].state(), StepState::Skipped, "nobody asked for a letter");
        for step in &answer.steps[..6] {
            assert_eq!(step.state(), StepState::Passed, "{step:?}");
            assert_eq!(step.advice, "", "{step:?}");
            assert!(step.duration.is_some() && step.reply.is_some(), "{step:?}");
        }
        let reply = |place: usize| answer.steps[place].reply.clone().expect("set");
        assert_eq!(reply(1).code, 220);
        assert_eq!((reply(4).code, reply(4).text.as_str()), (235, "welcome"));
        assert_eq!((reply(5).code, reply(5).enhanced_code.as_str()), (250, "2.1.5"));
        let envelope = answer.steps[5].duration.expect("set");
        assert!(envelope.seconds > 0 || envelope.nanos >= 30_000_000, "{envelope:?}");
        let check = answer.check.expect("set");
        assert_eq!(check.state(), State::Passed);
        assert!(check.check_time.is_some());
    }
    let connections = server.journal().connections;
    let wrong = Account { auth: account(&server, Security::None, "wrong").auth, ..right };
    let answer = check(&postroom, Target::Account(Box::new(wrong))).await;
    assert_eq!(server.journal().connections, connections + 1);
    let states: Vec<_> = answer.steps.iter().map(CheckStep::state).collect();
    let skipped = StepState::Skipped;
    assert_eq!(states, [PASSED, PASSED, PASSED, PASSED, StepState::Failed, skipped, skipped]);
    assert_ne!(answer.steps[4].advice, "");
    let failed = answer.check.expect("set");
    assert_eq!(failed.state(), State::Failed);
    assert!(failed.error.contains("535 5.7.8"), "{}", failed.error);
    // The check of an account that is not saved moves no other's state.
    let stored = get(&postroom, &created.name).await;
    assert_eq!(stored.check.expect("set").state(), State::Passed);
    assert_eq!(server.journal().letters, Vec::<Received>::new(), "no letter is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_needed_is_skipped_and_an_own_address_that_is_refused_is_a_warning() {
    let server = Behaviour::default().on("RCPT TO:<shop@", "550 5.1.1 no such user\r\n").start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let answer = check(&postroom, Target::Name(account.name)).await;
    let states: Vec<_> = answer.steps.iter().map(CheckStep::state).collect();
    let skipped = StepState::Skipped;
    assert_eq!(states, [PASSED, PASSED, skipped, PASSED, skipped, StepState::Warning, skipped]);
    let warning = &answer.steps[5];
    assert_eq!(warning.reply.as_ref().map(|reply| reply.code), Some(550));
    assert_ne!(warning.advice, "");
    assert_eq!(answer.check.expect("set").state(), State::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_an_account_follows_checks_and_sessions() {
    let server = Behaviour::default().login("shop", PASSWORD).once("AUTH", "235 ok\r\n", Then::GoOn);
    let server = server.once("AUTH", "535 5.7.8 locked\r\n", Then::Close).start().await;
    let postroom = Postroom::start().await;
    let created = postroom.create_account(account(&server, Security::None, PASSWORD)).await;
    let first = created.check.clone().expect("set");
    check(&postroom, Target::Name(created.name.clone())).await;
    let failed = get(&postroom, &created.name).await;
    let state = failed.check.clone().expect("set");
    assert_eq!(state.state(), State::Failed);
    assert!(state.error.contains("535 5.7.8 locked"), "{state:?}");
    assert_eq!(state.success_time, first.success_time);
    assert!(state.check_time.map(time) > first.check_time.map(time));
    assert!(!state.capabilities.is_empty());
    assert_eq!((&failed.etag, &failed.update_time), (&created.etag, &created.update_time));

    // A real session that works moves it back.
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let state = get(&postroom, &created.name).await.check.expect("set");
    assert_eq!((state.state(), state.error.as_str()), (State::Passed, ""));
    assert!(state.success_time.map(time) > first.success_time.map(time));
}

fn time(time: prost_types::Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_of_checks_follow_the_sites_settings() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let level = Settings { log_level: Some(LogLevel::Connection.into()), ..Settings::default() };
    postroom.change_settings(level).await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let entries = postroom.entries("check-admin-0").await;
    assert!(entries.iter().any(|entry| entry.kind() == Kind::Connection), "{entries:?}");
    postroom.change_settings(Settings { save_logs: Some(false), ..Settings::default() }).await;
    check(&postroom, Target::Name(account.name)).await;
    let request = postroom::api::proto::ListLogsRequest { parent: SITE.to_owned(), ..Default::default() };
    let logs = postroom.logs().list_logs(request).await.expect("a page").into_inner().logs;
    let names: Vec<_> = logs.iter().map(|log| log.file_name.as_str()).collect();
    assert_eq!(names, ["check_admin_smtp_0.log", "audit.log"]);
    let none = CheckAccountRequest { parent: SITE.to_owned(), target: None, ..Default::default() };
    let none = postroom.accounts().check_account(none).await.expect_err("no target");
    assert_eq!(crate::support::bad_fields(&none), ["target"]);
}
