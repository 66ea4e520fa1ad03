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
    session.quit(&log).await;
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
            "QUIT",
        ]
    );
    let server = of(EntryKind::Server, &entries);
    assert_eq!(server[..2], ["220 ordinary.example ESMTP", "250-ordinary.example"]);
    assert_eq!(
        server[server.len() - 6..],
        [
            "250 2.1.0 sender ok",
            "250 2.1.5 recipient ok",
            "550 5.1.1 no such user",
            "354 go ahead",
            "250 2.0.0 taken",
            "221 2.0.0 bye"
        ]
    );
    let connection = of(EntryKind::Connection, &entries);
    for part in [
        "resolved localhost to",
        "connecting to 127.0.0.1:",
        "connected to",
        "TLS 1.3, TLS13_",
        "the greeting took ",
        "authenticated in",
        "the letter was written in ",
        "the reply to the letter took ",
        "certificate of CN=localhost, issued by CN=Authority of the tests, valid until ",
        "closed",
    ] {
        assert!(connection.iter().any(|text| text.contains(part)), "{part} in {connection:?}");
    }
    assert!(connection.iter().any(|text| text.contains(" UTC, sha256 ")));
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

/// What DATA tells of the lines of this letter, sent to so many recipients.
async fn shown(content: &[u8], recipients: usize, is_private: bool) -> Vec<String> {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    let log = Transcript::new(LogLevel::LowLevel, Clock::default());
    let names: Vec<String> = (0..recipients).map(|number| format!("bob{number}@example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (sender, recipients) = (&addresses(&[USER])[0], &addresses(&names));
    let letter = Letter { sender, recipients, content, eight_bit: false, utf8_headers: false, is_private };
    let results = session.deliver(&letter, &log).await;
    assert!(results.iter().all(|result| result.class == Class::Sent), "{results:?}");
    let entries: Vec<_> = log.take().into_iter().map(|entry| (entry.kind, entry.text)).collect();
    assert_eq!(of(EntryKind::Error, &entries), [""; 0]);
    let is_count = |text: &&str| text.starts_with("wrote ") || text.starts_with("read ");
    of(EntryKind::Data, &entries).into_iter().filter(|text| !is_count(text)).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_letter_is_shown_in_part() {
    let line = "0123456789".repeat(6);
    let lines = shown(format!("{line}\r\n").repeat(2_000).as_bytes(), 1, false).await;
    // 64 KiB in lines of 62 bytes, the last one in part.
    assert_eq!(lines.len(), 64 * 1024 / 62 + 2);
    assert!(lines[..lines.len() - 2].iter().all(|shown| *shown == line));
    assert_eq!(lines[lines.len() - 2..], [&line[..64 * 1024 % 62], "<58464 bytes more>"]);
    // Lines without a text cost nothing on the wire and much in a log.
    let lines = shown(&b"\r\n".repeat(20_000), 1, false).await;
    assert_eq!((lines.len(), lines[3_000].as_str()), (3_001, "<34000 bytes more>"));
}

#[tokio::test]
async fn the_letter_is_shown_once_however_many_get_it() {
    let lines = shown(CONTENT, 250, false).await;
    let again = "<the same lines as above>";
    assert_eq!(lines, ["Subject: test", "", "Hello", ".", "..dots", again, again]);
}

#[tokio::test]
async fn a_letter_of_our_own_is_shown_to_nobody() {
    assert_eq!(shown(CONTENT, 1, true).await, ["<a letter of Postroom's own: its lines are never shown>"]);
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
        content: "Subject: \x1b]0;mine\x07\r\n\r\n\0 \u{202e}fdp.exe\u{2069} \u{9b}\r\n".as_bytes(),
        eight_bit: true,
        utf8_headers: false,
        is_private: false,
    };
    let results = session.deliver(&letter, &log).await;
    assert_eq!(server.journal().faults.len(), 1);
    let shown = "\\x1b[2J\\x1b]0;owned\\x07 \\x00 \\u{202e}txt.exe\\u{2066} \\rfake\\u{9b}";
    assert_eq!(results[0].reply.text, shown);
    let texts: Vec<String> = log.take().into_iter().map(|entry| entry.text).collect();
    let error = format!("refused: envelope: 550 5.1.1 {shown}");
    for text in [&format!("550 5.1.1 {shown}"), &error] {
        assert!(texts.contains(text), "{texts:?}");
    }
    assert!(texts.iter().all(|text| !text.chars().any(char::is_control)));
}
