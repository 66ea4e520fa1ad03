//! EHLO, STARTTLS and AUTH: cases 5, 6 and 10.

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::parking::Reason::{AuthFailed, Configuration};
use postroom::api::proto::{Security, Step};

use super::rig::{Case, Hostile, PASSWORD, Patience, Rig, USER};
use super::story::told;
use crate::scripted::Peer;
use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Then, Tls};

fn with_login() -> Behaviour {
    Behaviour::default().login(USER, PASSWORD)
}

fn with_starttls() -> Behaviour {
    with_login().tls(Tls::AfterCommand(Certificate::Good))
}

#[tokio::test(flavor = "multi_thread")]
async fn case_5_ehlo_is_refused() {
    let no = "502 5.5.1 what?\r\n";
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("without a login", Hostile::plain(Behaviour::default().on("EHLO", no)).await),
        Case::new("with a login", Hostile::behaving(with_login(), with_login().on("EHLO", no)).await).login(),
        Case::new("with TLS", Hostile::behaving(with_starttls(), with_starttls().on("EHLO", no)).await)
            .security(Security::Starttls)
            .login(),
        Case::new("for now", Hostile::plain(Behaviour::default().on("EHLO", "451 later\r\n")).await),
    ];
    let [plain, login, tls, later] = rig.play(cases).await;
    plain.is_sent();
    assert!(plain.heard("HELO ") && plain.texts(Kind::Client).iter().any(|text| text.starts_with("HELO ")));
    for (story, advice) in [(login, "a login needs EHLO"), (tls, "STARTTLS needs EHLO")] {
        assert!(!story.heard("AUTH") && !story.heard("MAIL"), "{}: {:?}", story.name, story.journal);
        story.is_parked(&rig, Configuration, told(Step::Hello, 502, "what?"), advice).await;
    }
    later.is_retried(&rig, told(Step::Hello, 451, "later")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_6_starttls_is_not_to_be_had() {
    let starttls = |reply: &str| {
        Hostile::behaving(with_starttls(), with_starttls().once("STARTTLS", reply, Then::Silence))
    };
    let without = Hostile::being("no STARTTLS", with_starttls(), with_login());
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("not offered", without.await),
        Case::new("454", starttls("454 4.7.0 TLS not available\r\n").await),
        Case::new("502", starttls("502 5.5.1 never\r\n").await),
        Case::new("421", starttls("421 4.3.2 shutting down\r\n").await),
    ];
    let cases = cases.map(|case| case.security(Security::Starttls).login());
    let [without, later, never, closing] = rig.play(cases).await;
    for story in [&without, &later, &never, &closing] {
        assert!(!story.heard("AUTH") && !story.heard("MAIL"), "{}: {:?}", story.name, story.journal);
    }
    let words = told(Step::Tls, 0, "the server does not offer STARTTLS");
    without.is_parked(&rig, Configuration, words, "nothing of the login was sent").await;
    later.is_retried(&rig, told(Step::Tls, 454, "TLS not available")).await;
    never.is_parked(&rig, Configuration, told(Step::Tls, 502, "never"), "").await;
    closing.is_retried(&rig, told(Step::Tls, 421, "shutting down")).await;
}

/// A server that offers this and answers AUTH and all that follows by these replies.
async fn offering(extensions: &'static [&'static str], replies: &'static [&'static str]) -> Hostile {
    Hostile::scripted(with_login(), move |mut peer: Peer| async move {
        peer.hello(extensions).await?;
        for reply in replies {
            peer.answer(reply).await?;
        }
        peer.fault("answered");
        peer.hold().await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn case_10_the_login_fails() {
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("535", offering(&["AUTH PLAIN LOGIN"], &["535 5.7.8 wrong\r\n"]).await),
        Case::new("454", offering(&["AUTH PLAIN"], &["454 4.7.0 later\r\n"]).await),
        Case::new("334", offering(&["AUTH LOGIN"], &["334 \r\n", "334 \r\n", "334 \r\n"]).await),
        Case::new("unknown mechanisms", offering(&["AUTH XOAUTH2 CRAM-MD5"], &[]).await),
        Case::new("no mechanism", offering(&["PIPELINING"], &[]).await),
        Case::new("421", offering(&["AUTH PLAIN"], &["421 4.3.2 busy\r\n"]).await),
        Case::new(
            "5.7.30",
            offering(&["AUTH PLAIN"], &["550 5.7.30 basic authentication is over\r\n"]).await,
        ),
    ];
    let [wrong, later, prompts, unknown, nothing, busy, basic] = rig.play(cases.map(Case::login)).await;
    for story in [&wrong, &later, &prompts, &unknown, &nothing, &busy, &basic] {
        assert!(!story.heard("MAIL"), "{}: {:?}", story.name, story.journal);
        let shown = |text: &str| {
            text.contains(PASSWORD) || text.contains(&crate::scripted::ordinary::base64(PASSWORD.as_bytes()))
        };
        assert!(!story.entries.iter().any(|entry| shown(&entry.text)), "{}: {:?}", story.name, story.entries);
    }
    assert!(wrong.texts(Kind::Client).contains(&"AUTH PLAIN <hidden>"), "{:?}", wrong.entries);
    assert!(wrong.texts(Kind::Server).contains(&"535 5.7.8 wrong"), "{:?}", wrong.entries);
    let app_password = "does not accept this user name and password";
    wrong.is_parked(&rig, AuthFailed, told(Step::Auth, 535, "wrong"), app_password).await;
    later.is_retried(&rig, told(Step::Auth, 454, "later")).await;
    prompts.is_retried(&rig, told(Step::Auth, 0, "the server goes on asking")).await;
    assert_eq!(prompts.texts(Kind::Client)[1..], ["AUTH LOGIN", "<hidden>", "<hidden>"], "said once");
    assert!(!unknown.heard("AUTH"));
    let list = told(Step::Auth, 0, "XOAUTH2 CRAM-MD5");
    unknown.is_parked(&rig, AuthFailed, list, "PLAIN or LOGIN must be switched on").await;
    assert!(!nothing.heard("AUTH"));
    let none = told(Step::Auth, 0, "the server offers no login");
    nothing.is_parked(&rig, AuthFailed, none, "save the account without a login").await;
    busy.is_retried(&rig, told(Step::Auth, 421, "busy")).await;
    basic.is_parked(&rig, AuthFailed, told(Step::Auth, 550, "basic authentication is over"), "").await;
}
