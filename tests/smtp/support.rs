//! What the tests of this binary share: a connector that may go to loopback, targets, letters, short deadlines.

use std::sync::OnceLock;
use std::time::Duration;

use postroom::domain::account::{Auth, Security, Server as Host};
use postroom::domain::address::Address;
use postroom::domain::clock::Clock;
use postroom::domain::log::{EntryKind, LogLevel};
use postroom::domain::outcome::{Class, RecipientResult};
use postroom::domain::secret::Secret;
use postroom::smtp::egress::Policy;
use postroom::smtp::{
    Connector, ConnectorOptions, Deadlines, Failure, Floors, Letter, Names, Session, Target, Transcript,
};

use crate::scripted::Server;
use crate::scripted::certificates::CaFile;
use crate::scripted::ordinary::Behaviour;

/// The user of the tests,
pub(crate) const USER: &str = "ann@example.com";
/// and his password.
pub(crate) const PASSWORD: &str = "correct horse & battery";

/// A letter of no importance.
pub(crate) const CONTENT: &[u8] = b"Subject: test\r\n\r\nHello\r\n.\r\n..dots\r\n";

/// For tests in which the server answers: long enough for a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// For tests in which it does not.
pub(crate) const BRIEF: Duration = Duration::from_millis(300);
/// What a hostile server may cost beyond its deadline.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Deadlines that are over soon.
pub(crate) fn brief() -> Deadlines {
    Deadlines {
        reply: BRIEF,
        content_block: BRIEF,
        content_bytes_per_second: 1_000_000_000,
        acceptance: BRIEF,
    }
}

/// A policy that allows these networks besides the public ones, and these ports.
pub(crate) fn policy(networks: &str, ports: &str) -> Policy {
    let items =
        |list: &str| list.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    Policy {
        allow: items(networks).iter().map(|network| network.parse().expect("a network")).collect(),
        ports: items(ports).iter().map(|ports| ports.parse().expect("ports")).collect(),
        ..Policy::default()
    }
}

/// Options that allow loopback, know the tests' authority, and let no password go in plain text.
pub(crate) fn options(ca: &CaFile) -> ConnectorOptions {
    ConnectorOptions {
        ca_file: Some(ca.path().to_owned()),
        egress: policy("127.0.0.0/8,::1", "1-65535"),
        names: Names::System,
        plaintext_auth_hosts: vec!["LocalHost.".to_owned()],
        helo_name: "postroom.example".to_owned(),
        clock: Clock::default(),
        floors: Floors::default(),
    }
}

/// The connector most tests use; `localhost` may get a password in plain text, 127.0.0.1 may not.
pub(crate) fn connector() -> &'static Connector {
    static CONNECTOR: OnceLock<Connector> = OnceLock::new();
    CONNECTOR.get_or_init(|| Connector::new(options(&CaFile::new())).expect("a connector"))
}

/// A target at `host`, without a login.
pub(crate) fn target_at(host: &str, port: u16, security: Security) -> Target {
    Target { server: Host { host: host.to_owned(), port, security }, auth: Auth::None }
}

/// This server, in plain text, without a login.
pub(crate) fn plain(server: &Server) -> Target {
    target_at("127.0.0.1", server.port(), Security::None)
}

/// This server by its name, with the login of the tests.
pub(crate) fn with_login(server: &Server, security: Security) -> Target {
    let auth = Auth::Password { username: USER.to_owned(), password: Secret::from(PASSWORD.to_owned()) };
    Target { auth, ..target_at("localhost", server.port(), security) }
}

/// A transcript that keeps all but the bytes.
pub(crate) fn transcript() -> Transcript {
    Transcript::new(LogLevel::Connection, Clock::default())
}

/// Its lines of one kind.
pub(crate) fn texts(transcript: &Transcript, kind: EntryKind) -> Vec<String> {
    transcript.take().into_iter().filter(|entry| entry.kind == kind).map(|entry| entry.text).collect()
}

/// Opens a session with patience.
pub(crate) async fn open(target: &Target) -> Session {
    let patient = Deadlines {
        content_block: PATIENT,
        acceptance: PATIENT,
        ..Deadlines::new(PATIENT, Floors::default())
    };
    Session::open_within(connector(), target, patient, &transcript()).await.expect("the session opens")
}

/// Opens a session that is in a hurry.
pub(crate) async fn open_brief(target: &Target) -> Session {
    let deadlines = Deadlines { reply: PATIENT, ..brief() };
    Session::open_within(connector(), target, deadlines, &transcript()).await.expect("the session opens")
}

/// Opens a session that must not open.
pub(crate) async fn refused(target: &Target) -> Failure {
    Session::open(connector(), target, PATIENT, &transcript()).await.expect_err("the session does not open")
}

/// Addresses.
pub(crate) fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| Address::parse(text).expect(text)).collect()
}

/// Delivers [`CONTENT`] from the tests' user to these recipients.
pub(crate) async fn send(session: &mut Session, recipients: &[&str]) -> Vec<RecipientResult> {
    send_content(session, recipients, CONTENT).await
}

/// Delivers this content from the tests' user to these recipients.
pub(crate) async fn send_content(
    session: &mut Session,
    recipients: &[&str],
    content: &[u8],
) -> Vec<RecipientResult> {
    let (sender, recipients) = (&addresses(&[USER])[0], &addresses(recipients));
    let letter =
        Letter { sender, recipients, content, eight_bit: false, utf8_headers: false, is_private: false };
    session.deliver(&letter, &transcript()).await
}

/// The classes of results.
pub(crate) fn classes(results: &[RecipientResult]) -> Vec<Class> {
    results.iter().map(|result| result.class).collect()
}

/// A letter to another server and its answer: when it is back, what was on its way before has been noticed.
pub(crate) async fn round_trip() {
    let other = Behaviour::default().start().await;
    let mut session = open(&plain(&other)).await;
    assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
}
