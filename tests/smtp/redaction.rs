//! Credentials in no transcript, reply or error: whatever the mechanism, the level, and what the server makes of them.

use postroom::domain::account::{Auth, Security};
use postroom::domain::clock::Clock;
use postroom::domain::log::{EntryKind, LogLevel};
use postroom::domain::secret::Secret;
use postroom::smtp::{Letter, Session, Target, Transcript};

use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Then, Tls, base64};
use crate::scripted::{Peer, Server};
use crate::support::{CONTENT, PASSWORD, PATIENT, USER, addresses, connector, with_login};

const LEVELS: [LogLevel; 4] =
    [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel];

/// What a session left behind: its transcript, then the replies and errors that are stored.
struct Story {
    client: Vec<String>,
    all: Vec<String>,
}

impl Story {
    /// No form of the password is in it, whole or broken in two.
    fn tells_nothing(&self, what: &str) {
        let blob = base64(format!("\0{USER}\0{PASSWORD}").as_bytes());
        let encoded = base64(PASSWORD.as_bytes());
        let (first, second) = encoded.trim_end_matches('=').split_at(encoded.len() / 2);
        let secrets =
            ["correct", "horse", "battery", "correct%20horse", first, second, &blob[..blob.len() - 4]];
        for secret in secrets {
            assert!(!self.all.iter().any(|text| text.contains(secret)), "{what}: {secret} in {:?}", self.all);
        }
    }

    fn has(&self, text: &str) -> bool {
        self.all.iter().any(|told| told.contains(text))
    }
}

/// Opens a session, sends a letter if that worked, and quits.
async fn story(target: &Target, level: LogLevel) -> Story {
    let log = Transcript::new(level, Clock::default());
    let mut told = Vec::new();
    match Session::open(connector(), target, PATIENT, &log).await {
        Err(failure) => told.extend([failure.to_string(), format!("{failure:?}")]),
        Ok(mut session) => {
            told.extend(session.capabilities().iter().cloned());
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
            told.extend(results.into_iter().map(|result| result.reply.to_string()));
            session.quit(&log).await;
        }
    }
    let entries = log.take();
    let said = entries.iter().filter(|entry| entry.kind == EntryKind::Client);
    let client = said.map(|entry| entry.text.clone()).collect();
    told.extend(entries.into_iter().map(|entry| entry.text));
    Story { client, all: told }
}

/// All the forms in one line; what pads base64 is no secret.
fn echo() -> String {
    let blob = base64(format!("\0{USER}\0{PASSWORD}").as_bytes());
    let encoded = [base64(PASSWORD.as_bytes()), blob].join(" ").replace('=', "");
    format!("{PASSWORD} {encoded} correct%20horse%20%26%20battery correct+horse+%26+battery")
}

/// Greets, offers this, and answers each command behind EHLO by the next of these replies, `ECHO` filled in; the last one
/// again and again.
async fn answering(extensions: &'static [&'static str], replies: &'static [&'static str]) -> Server {
    Server::scripted(move |mut peer: Peer| async move {
        peer.say(format!("220 hostile.example {}\r\n", echo())).await?;
        peer.ehlo(extensions).await?;
        for reply in replies.iter().chain(std::iter::repeat(&replies[replies.len() - 1])) {
            peer.answer(reply.replace("ECHO", &echo())).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_mechanism_at_every_level() {
    let hidden = "<hidden>";
    for (extensions, replies, said) in [
        // The blob goes with the command, or once more at a prompt.
        (&["AUTH PLAIN"][..], &["235 ECHO\r\n", "250 ECHO\r\n"][..], &["AUTH PLAIN <hidden>"][..]),
        (
            &["AUTH PLAIN"],
            &["334 ECHO\r\n", "235 ECHO\r\n", "550 ECHO\r\n"],
            &["AUTH PLAIN <hidden>", hidden],
        ),
        (
            &["AUTH LOGIN"],
            &["334 ECHO\r\n", "334 ECHO\r\n", "235 ECHO\r\n", "550 ECHO\r\n"],
            &["AUTH LOGIN", hidden, hidden],
        ),
        // Prompts that say nothing, or the wrong thing, or come too often.
        (
            &["AUTH LOGIN"],
            &["334\r\n", "334 VXNlcm5hbWU6\r\n", "235\r\n", "550 ECHO\r\n"],
            &["AUTH LOGIN", hidden, hidden],
        ),
        (&["AUTH LOGIN"], &["334 ECHO\r\n"], &["AUTH LOGIN", hidden, hidden]),
        (&["AUTH PLAIN"], &["334 ECHO\r\n"], &["AUTH PLAIN <hidden>", hidden]),
        (&["AUTH LOGIN"], &["334-ECHO\r\n334 ECHO\r\n", "535-ECHO\r\n535 ECHO\r\n"], &["AUTH LOGIN", hidden]),
        (
            &["AUTH PLAIN LOGIN"],
            &["504 ECHO\r\n", "334 ECHO\r\n", "454 ECHO\r\n"],
            &["AUTH PLAIN <hidden>", "AUTH LOGIN", hidden],
        ),
        (&["AUTH PLAIN"], &["ECHO\r\n"], &["AUTH PLAIN <hidden>"]),
    ] {
        for level in LEVELS {
            let what = format!("{level:?} {extensions:?} {replies:?}");
            let server = answering(extensions, replies).await;
            let story = story(&with_login(&server, Security::None), level).await;
            assert_eq!(story.client[0], "EHLO postroom.example", "{what}");
            assert_eq!(story.client[1..=said.len()], *said, "{what}");
            let secret = base64(PASSWORD.as_bytes());
            let sent = server.journal().commands.join(" ");
            let blob = base64(format!("\0{USER}\0{PASSWORD}").as_bytes());
            assert!(sent.contains(&blob) || sent.contains(&secret) || said.len() == 2, "{what}: {sent}");
            story.tells_nothing(&what);
            if level >= LogLevel::ClientServer {
                assert!(
                    story.has("220 hostile.example <hidden> <hidden> <hidden> <hidden> <hidden>"),
                    "{what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_repeats_it_at_every_step() {
    let echo = echo();
    let all = |code: &str| format!("{code}-{echo}\r\n{code} {echo}\r\n");
    for level in LEVELS {
        let server = Behaviour::default()
            .tls(Tls::AfterCommand(Certificate::Good))
            .login(USER, PASSWORD)
            .mechanisms("LOGIN")
            .extensions(&[&format!("X-ECHO {echo}"), "SIZE"])
            .on("greeting", all("220"))
            .on("STARTTLS", all("220"))
            .on("prompt", format!("334 {echo}\r\n"))
            .on("AUTH", all("235"))
            .on("MAIL", all("250"))
            .on("RCPT", all("250"))
            .on("DATA", all("354"))
            .on("dot", all("250"))
            .on("QUIT", all("221"))
            .start()
            .await;
        let story = story(&with_login(&server, Security::StartTls), level).await;
        assert_eq!(server.journal().letters.len(), 1, "{:?}", story.all);
        let faults =
            ["GREETING", "STARTTLS", "PROMPT", "PROMPT", "AUTH", "MAIL", "RCPT", "DATA", "DOT", "QUIT"];
        assert_eq!(server.journal().faults, faults, "it was said at every step");
        story.tells_nothing(&format!("{level:?}"));
        let hidden = "<hidden> <hidden> <hidden> <hidden> <hidden>";
        assert!(
            story.has(&format!("X-ECHO {hidden}")) && story.has(&format!("250 {hidden}")),
            "{:?}",
            story.all
        );
        let codes = ["220-", "220 ", "334 ", "235 ", "354 ", "221-"];
        let heard = codes.iter().all(|code| story.has(&format!("{code}{hidden}")));
        assert_eq!(heard, level >= LogLevel::ClientServer, "{:?}", story.all);
    }
}

#[tokio::test]
async fn a_secret_broken_over_the_lines_of_a_reply() {
    let encoded = base64(PASSWORD.as_bytes());
    let (first, second) = encoded.split_at(encoded.len() / 2);
    for reply in [
        "535-5.7.8 you said correct ho\r\n535 5.7.8 rse & battery\r\n".to_owned(),
        "535-you said correct\r\n535-horse &\r\n535 battery\r\n".to_owned(),
        format!("535-{first}\r\n535 {second}\r\n"),
    ] {
        for level in LEVELS {
            let server = Behaviour::default().login(USER, "another").on("AUTH", &reply).start().await;
            let story = story(&with_login(&server, Security::None), level).await;
            assert_eq!(server.journal().faults, ["AUTH"]);
            story.tells_nothing(&format!("{level:?} {reply}"));
            assert!(story.has("<hidden>"), "{:?}", story.all);
        }
    }
}

#[tokio::test]
async fn a_secret_in_a_line_that_was_not_finished() {
    let unfinished = "535 you said correct horse & ba";
    let server =
        Behaviour::default().login(USER, PASSWORD).each("AUTH", unfinished, Then::Close).start().await;
    for level in LEVELS {
        let story = story(&with_login(&server, Security::None), level).await;
        story.tells_nothing(&format!("{level:?}"));
        assert!(story.has("535 you said <hidden>…"), "{:?}", story.all);
    }
}

#[tokio::test]
async fn a_secret_in_what_was_injected_behind_starttls() {
    let server = Server::scripted(|mut peer: Peer| async move {
        peer.hello(&["STARTTLS"]).await?;
        peer.answer(format!("220 ready\r\n250 {}\r\n", echo())).await?;
        peer.hold().await.map(|_| ())
    })
    .await;
    let story = story(&with_login(&server, Security::StartTls), LogLevel::LowLevel).await;
    story.tells_nothing("injected");
    assert!(
        story.has("250 <hidden> <hidden>") && story.has("bytes behind its answer to STARTTLS"),
        "{:?}",
        story.all
    );
}

#[tokio::test]
async fn a_secret_among_the_names_of_a_certificate() {
    let target = |server: &Server, password: &str| {
        let mut target = with_login(server, Security::StartTls);
        let password = Secret::from(password.to_owned());
        target.auth = Auth::Password { username: USER.to_owned(), password };
        target
    };
    let other = Behaviour::default().tls(Tls::AfterCommand(Certificate::OtherName)).start().await;
    let good = Behaviour::default().tls(Tls::AfterCommand(Certificate::Good)).start().await;
    for level in LEVELS {
        let failed = story(&target(&other, "mail.example.com"), level).await;
        assert!(
            failed.has("TLS: the certificate is not for localhost but for <hidden>, mx.example.com"),
            "{:?}",
            failed.all
        );
        assert!(!failed.has("mail.example.com"), "{:?}", failed.all);
        let shown = story(&target(&good, "Authority of the tests"), level).await;
        assert!(!shown.has("Authority of the tests"), "{:?}", shown.all);
        let told = shown.has("certificate of CN=localhost, issued by CN=<hidden>, valid until ");
        assert_eq!(told, level >= LogLevel::Connection, "{:?}", shown.all);
    }
}
