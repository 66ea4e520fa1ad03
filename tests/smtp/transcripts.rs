//! What a session writes down at each level; case 28.

use postroom::domain::account::Security;
use postroom::domain::clock::Clock;
use postroom::domain::log::{EntryKind, LogLevel};
use postroom::domain::outcome::Class;
use postroom::smtp::{Letter, Session, Transcript};

use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Tls};
use crate::support::{
    CONTENT, PASSWORD, PATIENT, USER, addresses, classes, connector, open, plain, with_login,
};

/// Opens, delivers one letter, and answers with the kinds and texts of the transcript.
async fn dialogue(level: LogLevel) -> Vec<(EntryKind, String)> {
    let server = Behaviour::default()
        .tls(Tls::AfterCommand(Certificate::Good))
        .login(USER, PASSWORD)
        .on("RCPT TO:<never@", "550 5.1.1 no such user\r\n")
        .start()
        .await;
    let log = Transcript::new(level, Clock::default());
    let target = with_login(&server, Security::StartTls);
    let mut session = Session::open(connector(), &target, PATIENT, &log).await.expect("opens");
    let recipients = &addresses(&["bob@example.com", "never@example.com"]);
    let sender = &addresses(&[USER])[0];
    let letter = Letter {
        sender,
        recipients,
        content: CONTENT,
        eight_bit: false,
        utf8_headers: false,
        is_private: false,
    };
    assert_eq!(classes(&session.deliver(&letter, &log).await), [Class::Sent, Class::Refused]);
    log.take().into_iter().map(|entry| (entry.kind, entry.text)).collect()
}

fn of(kind: EntryKind, entries: &[(EntryKind, String)]) -> Vec<&str> {
    entries.iter().filter(|(of, _)| *of == kind).map(|(_, text)| text.as_str()).collect()
}

#[tokio::test]
async fn what_is_written_down() {
    let entries = dialogue(LogLevel::LowLevel).await;
    assert_eq!(
        of(EntryKind::Client, &entries),
        [
            "EHLO postroom.example",
            "STARTTLS",
            "EHLO postroom.example",
            "AUTH PLAIN <hidden>",
            "MAIL FROM:<ann@example.com> SIZE=35",
            "RCPT TO:<bob@example.com>",
            "RCPT TO:<never@example.com>",
            "DATA",
            "<letter, 35 bytes>",
        ]
    );
    let server = of(EntryKind::Server, &entries);
    assert_eq!(server[..2], ["220 ordinary.example ESMTP", "250-ordinary.example"]);
    assert_eq!(
        server[server.len() - 5..],
        [
            "250 2.1.0 sender ok",
            "250 2.1.5 recipient ok",
            "550 5.1.1 no such user",
            "354 go ahead",
            "250 2.0.0 taken"
        ]
    );
    let connection = of(EntryKind::Connection, &entries);
    for part in [
        "resolved localhost to",
        "connecting to 127.0.0.1:",
        "connected to",
        "TLS 1.3, TLS13_",
        "authenticated in",
    ] {
        assert!(connection.iter().any(|text| text.contains(part)), "{part} in {connection:?}");
    }
    assert!(connection.iter().any(|text| text.contains("certificate sha256 ")));
    assert_eq!(
        of(EntryKind::Error, &entries),
        ["refused (1 of 2 recipients): envelope: 550 5.1.1 no such user"]
    );
    let bytes = of(EntryKind::Data, &entries);
    assert!(bytes.contains(&"Subject: test") && bytes.contains(&"..dots"), "{bytes:?}");
    assert!(
        bytes.iter().any(|text| text.starts_with("wrote "))
            && bytes.iter().any(|text| text.starts_with("read "))
    );
}

#[tokio::test]
async fn each_level_adds_to_the_one_before() {
    for (level, kinds) in [
        (LogLevel::Client, &[EntryKind::Error, EntryKind::Client][..]),
        (LogLevel::ClientServer, &[EntryKind::Error, EntryKind::Client, EntryKind::Server]),
        (
            LogLevel::Connection,
            &[EntryKind::Error, EntryKind::Client, EntryKind::Server, EntryKind::Connection],
        ),
    ] {
        let mut found: Vec<EntryKind> = dialogue(level).await.into_iter().map(|(kind, _)| kind).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, kinds, "{level:?}");
    }
}

#[tokio::test]
async fn the_letter_is_shown_in_part() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    let content = b"0123456789\r\n".repeat(10_000);
    let log = Transcript::new(LogLevel::LowLevel, Clock::default());
    let (sender, recipients) = (&addresses(&[USER])[0], &addresses(&["bob@example.com"]));
    let letter = Letter {
        sender,
        recipients,
        content: &content,
        eight_bit: false,
        utf8_headers: false,
        is_private: false,
    };
    session.deliver(&letter, &log).await;
    let entries = log.take();
    let lines: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Data && entry.text.starts_with("01"))
        .map(|entry| entry.text.as_str())
        .collect();
    assert_eq!(lines.len(), 64 * 1024 / 12 + 1);
    assert!(entries.iter().any(|entry| entry.text == "and 54464 bytes more"));
}

#[tokio::test]
async fn case_28_what_a_terminal_must_not_see() {
    let server = Behaviour::default()
        .on("RCPT", "550 5.1.1 \x1b[2J\x1b]0;owned\x07 \0 \u{202e}txt.exe\u{2066} \rfake\u{9b}\r\n")
        .start()
        .await;
    let mut session = open(&plain(&server)).await;
    let log = Transcript::new(LogLevel::LowLevel, Clock::default());
    let (sender, recipients) = (&addresses(&[USER])[0], &addresses(&["bob@example.com"]));
    let letter = Letter {
        sender,
        recipients,
        content: CONTENT,
        eight_bit: false,
        utf8_headers: false,
        is_private: false,
    };
    let results = session.deliver(&letter, &log).await;
    assert_eq!(server.journal().faults.len(), 1);
    let shown = "\\x1b[2J\\x1b]0;owned\\x07 \\x00 \\u{202e}txt.exe\\u{2066} \\rfake\\u{9b}";
    assert_eq!(results[0].reply.text, shown);
    let texts: Vec<String> = log.take().into_iter().map(|entry| entry.text).collect();
    assert!(texts.contains(&format!("550 5.1.1 {shown}")), "{texts:?}");
    assert!(texts.iter().all(|text| !text.chars().any(char::is_control)));
}
