//! From the connection to the end of TLS: cases 2, 3, 4, 7, 8, 9 and 25.

use std::time::Duration;

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason::Configuration;
use postroom::api::proto::{Security, Step};

use super::rig::{Case, Hostile, PASSWORD, Patience, Rig, USER};
use super::story::{between, told};
use crate::scripted::Peer;
use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Then, Tls};
use crate::support::{letter, plain_account};

/// What is stored of a reply, for each recipient, is at most this, with an ellipsis for what was left out;
const MAX_STORED_BYTES: usize = 4 * 1024 + '…'.len_utf8();
/// and this is kept of it in the transcript.
const MAX_REPLY_BYTES: usize = 64 * 1024;
/// What is read of a reply is at most 1 MiB; the rest is what the kernel buffers on loopback.
const MAX_SAID_BYTES: usize = 12 * 1024 * 1024;

async fn silent() -> Hostile {
    Hostile::scripted(Behaviour::default(), |mut peer: Peer| async move {
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    })
    .await
}

async fn one_byte_at_a_time() -> Hostile {
    Hostile::scripted(Behaviour::default(), |mut peer: Peer| async move {
        for byte in b"220 this greeting takes its time\r\n".chunks(1) {
            peer.say(byte).await?;
            peer.fault("byte");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    })
    .await
}

/// Says this again and again until the client has had enough, and notes how many bytes it was.
async fn flood(what: &'static [u8]) -> Hostile {
    Hostile::scripted(Behaviour::default(), move |mut peer: Peer| async move {
        let mut said = 0;
        while peer.say(what).await.is_ok() {
            said += what.len();
        }
        peer.fault(said.to_string());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn case_2_greetings_without_an_end() {
    let rig = Rig::start(Patience::Brief).await;
    let lines = &b"220-and another line\r\n".repeat(500).leak()[..];
    let cases = [
        Case::new("no greeting", silent().await),
        Case::new("one byte at a time", one_byte_at_a_time().await),
        Case::new("an endless line", flood(&[b'2'; 10_000]).await),
        Case::new("endless lines", flood(lines).await),
        Case::new("endless lines without words", flood(b"220-\n").await),
    ];
    let [nothing, bytes, floods @ ..] = rig.play(cases).await;
    nothing.is_retried(&rig, told(Step::Connect, 0, "the server did not answer in time")).await;
    let parts = "the server did not finish its answer in time: 220 this";
    bytes.is_retried(&rig, told(Step::Connect, 0, parts)).await;
    assert!(bytes.journal.faults.len() > 5, "each read was within the deadline of a read");
    for story in [&nothing, &bytes] {
        let attempt = story.attempt();
        let took = between(attempt.start_time, attempt.end_time);
        assert!(took >= Duration::from_secs(1), "{}: not before the deadline: {took:?}", story.name);
    }
    for story in floods {
        story.is_retried(&rig, told(Step::Connect, 0, "the server")).await;
        let journal = story.hostile.server.wait_until(|journal| !journal.faults.is_empty()).await;
        let said: usize = journal.faults[0].parse().expect("a count");
        assert!(said > MAX_REPLY_BYTES && said < MAX_SAID_BYTES, "{}: {said}", story.name);
        let reply = story.attempt().reply.as_ref().expect("set");
        assert!(reply.text.len() < 1_000, "{}: {} bytes", story.name, reply.text.len());
        let shown: usize = story.entries.iter().map(|entry| entry.text.len()).sum();
        assert!(shown <= 2 * MAX_REPLY_BYTES, "{}: {shown} bytes of transcript", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_2_silence_at_any_step() {
    const STEPS: [(&str, Step); 5] = [
        ("EHLO", Step::Hello),
        ("AUTH", Step::Auth),
        ("MAIL", Step::Envelope),
        ("RCPT", Step::Envelope),
        ("DATA", Step::Content),
    ];
    let ordinary = || Behaviour::default().login(USER, PASSWORD);
    let case = async |place: usize| {
        let event = STEPS[place].0;
        let silent = ordinary().once(event, "250-and then", Then::Silence);
        Case::new(event, Hostile::behaving(ordinary(), silent).await).login()
    };
    let rig = Rig::start(Patience::Brief).await;
    let cases = [case(0).await, case(1).await, case(2).await, case(3).await, case(4).await];
    for (story, (event, step)) in rig.play(cases).await.into_iter().zip(STEPS) {
        let words = "the server did not finish its answer in time: 250-and then";
        story.is_retried(&rig, told(step, 0, words)).await;
        let attempt = story.attempt();
        let took = between(attempt.start_time, attempt.end_time);
        assert!(took >= Duration::from_secs(1), "{event}: not before the deadline: {took:?}");
        assert_eq!(story.journal.letters, [], "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_other_accounts_nothing() {
    const LETTERS: usize = 10;
    let rig = Rig::start(Patience::Long).await;
    let (hanging, ordinary) = (silent().await, Behaviour::default().start().await);
    let (slow, quick) = ("slow@example.com", "quick@example.com");
    rig.postroom.create_account(plain_account(&hanging.server, slow)).await;
    rig.postroom.create_account(plain_account(&ordinary, quick)).await;
    hanging.misbehave(true);
    let mut names = Vec::new();
    for number in 0..LETTERS {
        names.push(rig.send(letter(slow, &[&format!("r{number}@example.org")])).await);
    }
    hanging.server.wait_until(|journal| !journal.faults.is_empty()).await;
    let sent = rig.postroom.send_and_wait(letter(quick, &["ann@example.org"])).await;
    assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 1), "{sent:?}");
    // It overtook them all: none of them has come to anything yet.
    for name in &names {
        let message = rig.postroom.message(name).await;
        assert_eq!(message.attempts, [], "{message:?}");
    }
    // It holds no more sessions than the account may have.
    assert!(hanging.server.journal().faults.len() <= 5, "{:?}", hanging.server.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn case_2_ten_thousand_lines_and_an_end() {
    let line = "recipient unknown, line after line";
    let no = format!("550-5.1.1 {line}\r\n").repeat(10_000) + "550 5.1.1 and that was that\r\n";
    let hello = "220-welcome, line after line\r\n".repeat(10_000) + "220 done\r\n";
    let wordy = Behaviour::default().on("greeting", hello).on("RCPT", no);
    let rig = Rig::start(Patience::Long).await;
    let [story] = rig.play([Case::new("ten thousand lines", Hostile::plain(wordy).await)]).await;
    story.is_refused(&rig, told(Step::Envelope, 550, "recipient unknown")).await;
    assert_eq!(story.journal.faults, ["GREETING", "RCPT"]);
    for text in [&story.attempt().reply, &story.message.recipients[0].reply] {
        let text = &text.as_ref().expect("set").text;
        assert!(text.len() > 1_000 && text.len() <= MAX_STORED_BYTES, "{} bytes", text.len());
        assert!(text.starts_with(line));
    }
    let shown: usize = story.entries.iter().map(|entry| entry.text.len()).sum();
    assert!(shown <= 4 * MAX_REPLY_BYTES, "{shown} bytes of transcript");
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_3_and_25_greetings_that_refuse_or_talk_on() {
    let greeting = |words: &str| Hostile::plain(Behaviour::default().once("greeting", words, Then::Close));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("554", greeting("554 5.7.1 not you\r\n").await),
        Case::new("421", greeting("421 4.3.2 too busy\r\n").await),
        Case::new("250", greeting("250 wrong code\r\n").await),
        Case::new("talk", greeting("220 hi\r\n250-PIPELINING\r\n250 ok\r\n").await),
    ];
    let [refused, busy, wrong, talk] = rig.play(cases).await;
    let not_you = told(Step::Connect, 554, "not you");
    refused.is_parked(&rig, Configuration, not_you, "does not want connections from here").await;
    busy.is_retried(&rig, told(Step::Connect, 421, "too busy")).await;
    assert!(busy.texts(Kind::Server).contains(&"421 4.3.2 too busy"), "{:?}", busy.entries);
    wrong.is_retried(&rig, told(Step::Connect, 250, "wrong code")).await;
    talk.is_retried(&rig, told(Step::Hello, 0, "the server talked without being asked")).await;
    assert!(!talk.heard("EHLO"));
}

#[tokio::test(flavor = "multi_thread")]
async fn case_4_no_mail_server() {
    let says =
        |words: &'static [u8]| Hostile::plain(Behaviour::default().once("greeting", words, Then::Close));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("HTTP", says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await),
        Case::new("IMAP", says(b"* OK IMAP4rev1 ready\r\n").await),
        Case::new("a TLS alert", says(b"\x15\x03\x01\x00\x02\x02\x46").await),
        Case::new(
            "no TLS",
            Hostile::being(
                "plain text",
                Behaviour::default().tls(Tls::Implicit(Certificate::Good)),
                Behaviour::default(),
            )
            .await,
        )
        .security(Security::ImplicitTls),
    ];
    let [http, imap, alert, plain] = rig.play(cases).await;
    for (story, words) in [(http, "HTTP/1.1 400 Bad Request"), (imap, "* OK IMAP4rev1 ready")] {
        story.is_parked(&rig, Configuration, told(Step::Connect, 0, words), "this is no mail server").await;
    }
    let expected = "this port expects TLS from the start: use IMPLICIT_TLS";
    alert.is_parked(&rig, Configuration, told(Step::Connect, 0, "the server"), expected).await;
    let words = "the server does not answer in TLS";
    plain.is_parked(&rig, Configuration, told(Step::Tls, 0, words), "use STARTTLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_4_and_8_silence_where_tls_begins() {
    let tls = || Behaviour::default().tls(Tls::Implicit(Certificate::Good));
    let silent_over_tls = Hostile::scripted(tls(), |mut peer: Peer| async move {
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    });
    let starttls = || Behaviour::default().tls(Tls::AfterCommand(Certificate::Good));
    let silent_after_starttls = Hostile::scripted(starttls(), |mut peer: Peer| async move {
        peer.hello(&["STARTTLS"]).await?;
        peer.answer("220 ready\r\n").await?;
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    });
    let waits_for_tls = Hostile::being("waits for TLS", Behaviour::default(), tls());
    let rig = Rig::start(Patience::Brief).await;
    let cases = [
        Case::new("implicit TLS", silent_over_tls.await).security(Security::ImplicitTls),
        Case::new("STARTTLS", silent_after_starttls.await).security(Security::Starttls),
        Case::new("TLS on a plain port", waits_for_tls.await),
    ];
    let [implicit, starttls, plain] = rig.play(cases).await;
    let in_time = told(Step::Tls, 0, "the server did not finish the TLS handshake in time");
    implicit.is_retried(&rig, in_time).await;
    starttls.is_retried(&rig, in_time).await;
    let expected = "this port expects TLS from the start: use IMPLICIT_TLS";
    let words = "the server did not answer in time";
    plain.is_parked(&rig, Configuration, told(Step::Connect, 0, words), expected).await;
    assert!(!plain.heard("EHLO"), "something was said in plain text: {:?}", plain.journal);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_7_bytes_behind_starttls() {
    let ordinary = || Behaviour::default().tls(Tls::AfterCommand(Certificate::Good)).login(USER, PASSWORD);
    let injecting = ordinary().on("STARTTLS", "220 ready\r\n250-AUTH PLAIN\r\n250 injected\r\n");
    let rig = Rig::start(Patience::Long).await;
    let hostile = Hostile::behaving(ordinary(), injecting).await;
    let [story] = rig.play([Case::new("injected", hostile).security(Security::Starttls).login()]).await;
    let words = told(Step::Tls, 0, "security: the server, or somebody on the way, sent");
    assert!(story.heard("STARTTLS") && !story.heard("AUTH"), "{:?}", story.journal);
    story.is_parked(&rig, Configuration, words, "somebody may tamper with this connection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_9_certificates() {
    async fn showing(certificate: Certificate, security: Security) -> Hostile {
        let with = |certificate| match security {
            Security::ImplicitTls => Tls::Implicit(certificate),
            _ => Tls::AfterCommand(certificate),
        };
        let behaving = |certificate| Behaviour::default().tls(with(certificate)).login(USER, PASSWORD);
        Hostile::being("shown", behaving(Certificate::Good), behaving(certificate)).await
    }
    const TABLE: [(Certificate, &str, &str); 4] = [
        (Certificate::Expired, "the certificate expired on 2020-12-31 00:00 UTC", "must be renewed"),
        (Certificate::SelfSigned, "the certificate is self-signed", "("),
        (
            Certificate::OtherName,
            "the certificate is not for 127.0.0.1 but for mail.example.com, mx.example.com",
            "(",
        ),
        (Certificate::UnknownIssuer, "the certificate's issuer is unknown", "adds the issuer to the CA file"),
    ];
    let rig = Rig::start(Patience::Long).await;
    for security in [Security::ImplicitTls, Security::Starttls] {
        let case = async |place: usize| {
            let (certificate, words, _) = TABLE[place];
            Case::new(words, showing(certificate, security).await).security(security).login()
        };
        let stories = rig.play([case(0).await, case(1).await, case(2).await, case(3).await]).await;
        for (story, (_, words, advice)) in stories.into_iter().zip(TABLE) {
            assert!(!story.heard("AUTH"), "{}: no fallback: {:?}", story.name, story.journal);
            assert_eq!(story.journal.connections, 2, "{}: no fallback", story.name);
            story.is_parked(&rig, Configuration, told(Step::Tls, 0, words), advice).await;
        }
    }

    let ordinary = Behaviour::default().tls(Tls::Implicit(Certificate::Good));
    let hostile = Hostile::scripted(ordinary, |mut peer: Peer| async move {
        // A protocol_version alert (RFC 8446 6.2), as from a server that can do no better.
        peer.say(b"\x15\x03\x02\x00\x02\x02\x46").await?;
        peer.fault("alert");
        peer.hold().await.map(|_| ())
    });
    let [story] = rig.play([Case::new("TLS 1.1", hostile.await).security(Security::ImplicitTls)]).await;
    let words = told(Step::Tls, 0, "the server speaks no TLS newer than 1.1");
    story.is_parked(&rig, Configuration, words, "(").await;
}
