//! Case 10 and what goes with it: mechanisms, refusals, and where a password never goes.

use postroom::domain::account::Security;
use postroom::domain::outcome::Step;
use postroom::smtp::{Failure, FailureKind, Session};

use crate::scripted::Server;
use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Tls, base64};
use crate::support::{PASSWORD, PATIENT, USER, connector, open, refused, transcript, with_login};

/// A server that offers this and answers AUTH and all that follows by these replies.
async fn offering(extensions: &'static [&'static str], replies: &'static [&'static str]) -> Server {
    Server::scripted(move |mut peer| async move {
        peer.hello(extensions).await?;
        for reply in replies {
            peer.answer(reply).await?;
        }
        peer.fault("answered");
        peer.hold().await.map(|_| ())
    })
    .await
}

async fn refusal(
    extensions: &'static [&'static str],
    replies: &'static [&'static str],
) -> (Failure, Vec<String>) {
    let server = offering(extensions, replies).await;
    let failure = refused(&with_login(&server, Security::None)).await;
    assert_eq!(failure.step, Step::Auth);
    (failure, server.journal().commands.split_off(1))
}

#[tokio::test]
async fn mechanisms_by_what_is_offered() {
    let plain = format!("AUTH PLAIN {}", base64(format!("\0{USER}\0{PASSWORD}").as_bytes()));
    let login = ["AUTH LOGIN".to_owned(), base64(USER.as_bytes()), base64(PASSWORD.as_bytes())];
    for (extensions, replies, said) in [
        (&["AUTH PLAIN LOGIN"][..], &["235 ok\r\n"][..], &[plain.clone()][..]),
        (&["AUTH LOGIN PLAIN XOAUTH2"], &["235 ok\r\n"], std::slice::from_ref(&plain)),
        (&["AUTH LOGIN XOAUTH2"], &["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", "235 ok\r\n"], &login),
        (&["AUTH=PLAIN LOGIN"], &["235 ok\r\n"], std::slice::from_ref(&plain)),
        (&["AUTH=LOGIN"], &["334 \r\n", "334\r\n", "235\r\n"], &login),
        // Offered, and yet unknown.
        (
            &["AUTH PLAIN LOGIN"],
            &["504 5.5.4 not now\r\n", "334 \r\n", "334 \r\n", "235 ok\r\n"],
            &[&[plain.clone()][..], &login].concat(),
        ),
        // A server that does not know initial responses.
        (
            &["AUTH PLAIN"],
            &["334 \r\n", "235 ok\r\n"],
            &[plain.clone(), plain.trim_start_matches("AUTH PLAIN ").to_owned()],
        ),
    ] {
        let server = offering(extensions, replies).await;
        open(&with_login(&server, Security::None)).await;
        assert_eq!(server.journal().commands[1..], *said, "{extensions:?}");
    }
}

#[tokio::test]
async fn case_10_refused_for_good() {
    let (failure, said) = refusal(&["AUTH PLAIN LOGIN"], &["535 5.7.8 wrong\r\n"]).await;
    assert_eq!((failure.kind, failure.reply.code), (FailureKind::Permanent, 535));
    assert_eq!(failure.reply.enhanced_code, "5.7.8");
    assert!(failure.advice.as_deref().is_some_and(|advice| advice.contains("user name and password")));
    assert_eq!(said.len(), 1, "a wrong password is not tried twice");
}

#[tokio::test]
async fn case_10_refused_for_now() {
    for reply in [&["454 4.7.0 later\r\n"], &["421 4.3.2 busy\r\n"], &["250 what?\r\n"], &["garbage\r\n"]] {
        let (failure, _) = refusal(&["AUTH PLAIN"], reply).await;
        assert_eq!(failure.kind, FailureKind::Temporary, "{failure}");
    }
}

#[tokio::test]
async fn case_10_endless_prompts() {
    let (failure, said) = refusal(&["AUTH LOGIN"], &["334 \r\n", "334 \r\n", "334 \r\n"]).await;
    assert_eq!(failure.kind, FailureKind::Temporary);
    assert_eq!(said.len(), 3, "the password is said once");
}

#[tokio::test]
async fn case_10_mechanisms_we_cannot_do() {
    let (failure, said) = refusal(&["AUTH XOAUTH2 CRAM-MD5"], &[]).await;
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.reply.text.ends_with("XOAUTH2 CRAM-MD5"), "{failure}");
    assert_eq!(said.len(), 0);
    let (failure, said) = refusal(&["PIPELINING"], &[]).await;
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert_eq!(said.len(), 0);
}

#[tokio::test]
async fn a_password_does_not_go_without_tls() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let mut target = with_login(&server, Security::None);
    target.server.host = "127.0.0.1".to_owned();
    let failure = refused(&target).await;
    assert_eq!((failure.step, failure.kind), (Step::Auth, FailureKind::Permanent));
    assert_eq!(server.journal().commands, ["EHLO postroom.example"]);
    // Unless the operator said so, for this host.
    open(&with_login(&server, Security::None)).await;
}

#[tokio::test]
async fn secrets_are_hidden_wherever_the_server_repeats_them() {
    let blob = base64(format!("\0{USER}\0{PASSWORD}").as_bytes());
    let echo = format!(
        "535-5.7.8 you said {PASSWORD}\r\n535-5.7.8 or {blob}\r\n535 5.7.8 or correct%20horse%20%26%20battery, {}\r\n",
        base64(PASSWORD.as_bytes())
    );
    let server = Behaviour::default()
        .tls(Tls::Implicit(Certificate::Good))
        .login(USER, "another")
        .on("AUTH", &echo)
        .start()
        .await;
    let log = postroom::smtp::Transcript::new(
        postroom::domain::log::LogLevel::LowLevel,
        postroom::domain::clock::Clock::default(),
    );
    let target = with_login(&server, Security::ImplicitTls);
    let failure = Session::open(connector(), &target, PATIENT, &log).await.expect_err("refused");
    assert_eq!(server.journal().faults, ["AUTH"]);
    let mut shown: Vec<String> = log.take().into_iter().map(|entry| entry.text).collect();
    assert!(shown.contains(&"AUTH PLAIN <hidden>".to_owned()));
    assert!(shown.contains(&"535-5.7.8 you said <hidden>".to_owned()), "{shown:?}");
    shown.extend([failure.to_string(), failure.reply.text.clone()]);
    for secret in [PASSWORD, blob.trim_end_matches('='), "correct%20horse", "Y29ycmVjdCBob3JzZ"] {
        assert!(!shown.iter().any(|text| text.contains(secret)), "{secret} in {shown:?}");
    }
    assert_eq!(failure.reply.text.matches("<hidden>").count(), 4);
}

#[tokio::test]
async fn prompts_are_answered_in_the_dark() {
    let server =
        offering(&["AUTH LOGIN"], &["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", "235 ok\r\n"]).await;
    let log = transcript();
    Session::open(connector(), &with_login(&server, Security::None), PATIENT, &log).await.expect("opens");
    let said = crate::support::texts(&log, postroom::domain::log::EntryKind::Client);
    assert_eq!(said, ["EHLO postroom.example", "AUTH LOGIN", "<hidden>", "<hidden>"]);
}

#[tokio::test]
async fn a_list_of_mechanisms_repeats_no_secret() {
    let server = offering(&["AUTH Correct-Horse"], &[]).await;
    let mut target = with_login(&server, Security::None);
    let password = postroom::domain::secret::Secret::from("Correct-Horse".to_owned());
    target.auth = postroom::domain::account::Auth::Password { username: USER.to_owned(), password };
    let failure = refused(&target).await;
    // In other letters than the server's own it would not be known.
    assert!(failure.reply.text.ends_with(" <hidden>"), "{failure}");
}
