//! From the first packet to EHLO: cases 1 to 8 and 38.

use std::time::{Duration, Instant};

use postroom::domain::account::Security;
use postroom::domain::outcome::{Class, Step};
use postroom::smtp::{Connector, Failure, FailureKind, Session, Target};

use crate::scripted::certificates::{CaFile, Certificate};
use crate::scripted::ordinary::{Behaviour, Then, Tls};
use crate::scripted::{Peer, Server};
use crate::support::{
    BRIEF, GRACE, brief, classes, connector, open, options, plain, policy, refused, send, target_at,
    transcript, with_login,
};

/// Opens with short deadlines; the failure, and that it cost no more than the deadline and a second.
async fn refused_in_time(target: &Target) -> Failure {
    let start = Instant::now();
    let opened = Session::open_within(connector(), target, brief(), &transcript()).await;
    let elapsed = start.elapsed();
    assert!(elapsed < BRIEF + GRACE, "{elapsed:?}");
    opened.expect_err("the session does not open")
}

#[tokio::test]
async fn case_1_nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let failure = refused(&target_at("127.0.0.1", port, Security::None)).await;
    assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Temporary));
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn case_1_the_connection_is_dropped() {
    let server = Server::scripted(|peer| async move {
        peer.fault("dropped");
        Ok(())
    })
    .await;
    let failure = refused(&plain(&server)).await;
    assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Temporary));
    assert_eq!(server.journal().faults, ["dropped"]);
}

#[tokio::test]
async fn case_1_the_name_is_not_found() {
    let failure = refused_in_time(&target_at("no-such-host.invalid", 25, Security::None)).await;
    assert_eq!((failure.step, failure.kind), (Step::Resolve, FailureKind::Temporary));
    let failure = refused(&target_at("not a host", 25, Security::None)).await;
    assert_eq!((failure.step, failure.kind), (Step::Resolve, FailureKind::Permanent));
}

#[tokio::test]
async fn case_2_no_greeting() {
    let server = Server::scripted(|mut peer| async move {
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    })
    .await;
    let failure = refused_in_time(&plain(&server)).await;
    assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Temporary));
    assert_eq!(failure.reply.code, 0);
    assert_eq!(server.wait_until(|journal| journal.ended == 1).await.faults, ["silent"]);
}

#[tokio::test]
async fn case_2_a_byte_now_and_then() {
    let server = Server::scripted(|mut peer| async move {
        for byte in b"220 this greeting takes its time\r\n".chunks(1) {
            peer.say(byte).await?;
            peer.fault("byte");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
    .await;
    let failure = refused_in_time(&plain(&server)).await;
    assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Temporary));
    assert!(failure.reply.text.starts_with("the server did not finish its answer in time: 220"), "{failure}");
    assert!(server.journal().faults.len() > 2, "each read was within the deadline of a read");
}

/// Says something again and again until the client has had enough.
async fn flood(mut peer: Peer, what: &'static [u8]) -> std::io::Result<()> {
    let mut said = 0;
    while peer.say(what).await.is_ok() {
        said += what.len();
    }
    peer.fault(said.to_string());
    Ok(())
}

#[tokio::test]
async fn case_2_floods_cost_a_bounded_amount() {
    for what in [&[b'2'; 10_000][..], &b"220-and another line\r\n".repeat(500).leak()[..], b"220-\n"] {
        let server = Server::scripted(move |peer| flood(peer, what)).await;
        let failure = refused_in_time(&plain(&server)).await;
        assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Temporary));
        let journal = server.wait_until(|journal| journal.ended == 1).await;
        let said: usize = journal.faults[0].parse().expect("a count");
        // What is read is at most 1 MiB; the rest is what the kernel buffers on loopback.
        assert!(said > 0 && said < 12 * 1024 * 1024, "{said}");
    }
}

#[tokio::test]
async fn case_2_ten_thousand_lines_and_an_end() {
    let server = Server::scripted(|mut peer| async move {
        peer.say(b"220-welcome, line after line\r\n".repeat(10_000)).await?;
        peer.say("220 done\r\n").await?;
        peer.fault("10,000 lines");
        peer.ehlo(&[]).await?;
        peer.hold().await.map(|_| ())
    })
    .await;
    let session = open(&plain(&server)).await;
    assert!(session.is_usable());
    assert_eq!(server.journal().faults, ["10,000 lines"]);
}

#[tokio::test]
async fn case_3_the_greeting_refuses() {
    for (greeting, kind, code) in [
        ("554 5.7.1 not you\r\n", FailureKind::Permanent, 554),
        ("421 4.3.2 too busy\r\n", FailureKind::Temporary, 421),
        ("250 wrong code\r\n", FailureKind::Temporary, 250),
    ] {
        let server = Behaviour::default().once("greeting", greeting, Then::Close).start().await;
        let failure = refused(&plain(&server)).await;
        assert_eq!((failure.step, failure.kind, failure.reply.code), (Step::Connect, kind, code));
        assert_eq!(server.journal().faults, ["GREETING"]);
    }
}

#[tokio::test]
async fn case_4_no_mail_server() {
    for (greeting, advice) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], "no mail server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no mail server"),
        (b"* OK IMAP4rev1 ready\r\n", "no mail server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "expects TLS from the start"),
    ] {
        let server = Behaviour::default().once("greeting", greeting, Then::Close).start().await;
        let failure = refused(&plain(&server)).await;
        assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Permanent), "{failure}");
        assert!(failure.advice.as_deref().is_some_and(|text| text.contains(advice)), "{failure:?}");
        assert_eq!(server.journal().faults, ["GREETING"]);
    }
}

#[tokio::test]
async fn case_4_tls_on_a_plain_port() {
    let server = Behaviour::default().tls(Tls::Implicit(Certificate::OtherName)).start().await;
    for security in [Security::None, Security::StartTls] {
        let failure = refused_in_time(&target_at("127.0.0.1", server.port(), security)).await;
        assert_eq!((failure.step, failure.kind), (Step::Connect, FailureKind::Permanent), "{failure}");
        assert_eq!(failure.advice.as_deref(), Some("this port expects TLS from the start: use IMPLICIT_TLS"));
    }
    assert_eq!(server.journal().commands, [""; 0], "nothing was said in plain text");
}

#[tokio::test]
async fn case_4_no_tls_on_a_tls_port() {
    let server = Behaviour::default().start().await;
    let failure = refused(&target_at("localhost", server.port(), Security::ImplicitTls)).await;
    assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Permanent));
    assert!(failure.advice.as_deref().is_some_and(|text| text.contains("use STARTTLS")), "{failure:?}");
}

#[tokio::test]
async fn case_25_talk_behind_the_greeting() {
    let server = Behaviour::default().on("greeting", "220 hi\r\n250-PIPELINING\r\n250 ok\r\n").start().await;
    let failure = refused(&plain(&server)).await;
    assert_eq!((failure.step, failure.kind), (Step::Hello, FailureKind::Temporary));
    assert!(failure.reply.text.starts_with("the server talked without being asked"), "{failure}");
    let journal = server.wait_until(|journal| journal.ended == 1).await;
    assert_eq!((journal.commands.len(), journal.faults.len()), (0, 1));
}

#[tokio::test]
async fn case_5_ehlo_is_refused() {
    let server = Behaviour::default().on("EHLO", "502 5.5.1 what?\r\n").start().await;
    let mut session = open(&plain(&server)).await;
    assert!(session.capabilities().is_empty());
    assert_eq!(classes(&send(&mut session, &["bob@example.com"]).await), [Class::Sent]);
    let commands = server.journal().commands;
    assert_eq!(
        commands[..3],
        ["EHLO postroom.example", "HELO postroom.example", "MAIL FROM:<ann@example.com>"]
    );

    for security in [Security::StartTls, Security::None] {
        let failure = refused(&with_login(&server, security)).await;
        assert_eq!(
            (failure.step, failure.kind, failure.reply.code),
            (Step::Hello, FailureKind::Permanent, 502)
        );
    }
    assert!(!server.journal().commands.iter().any(|command| command.starts_with("AUTH")));

    let server = Behaviour::default().on("EHLO", "451 later\r\n").start().await;
    assert_eq!(refused(&plain(&server)).await.kind, FailureKind::Temporary);
}

#[tokio::test]
async fn case_6_starttls_is_not_to_be_had() {
    let server = Behaviour::default().login("ann", "secret").start().await;
    let failure = refused(&with_login(&server, Security::StartTls)).await;
    assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Permanent));
    assert_eq!(server.journal().commands, ["EHLO postroom.example"], "nothing of the login was sent");

    for (reply, kind) in [
        ("454 4.7.0 TLS not available\r\n", FailureKind::Temporary),
        ("502 5.5.1 no\r\n", FailureKind::Permanent),
        ("250 ok\r\n", FailureKind::Temporary),
    ] {
        let tls = Tls::AfterCommand(Certificate::Good);
        let server = Behaviour::default().tls(tls).once("STARTTLS", reply, Then::Silence).start().await;
        let failure = refused(&with_login(&server, Security::StartTls)).await;
        assert_eq!((failure.step, failure.kind), (Step::Tls, kind), "{failure}");
        let journal = server.journal();
        assert_eq!((journal.commands.len(), journal.faults.len()), (2, 1), "nothing of the login was sent");
    }
}

#[tokio::test]
async fn case_7_bytes_behind_starttls() {
    let server = Behaviour::default()
        .tls(Tls::AfterCommand(Certificate::Good))
        .on("STARTTLS", "220 ready\r\n250-AUTH PLAIN\r\n250 injected\r\n")
        .start()
        .await;
    let log = transcript();
    let target = with_login(&server, Security::StartTls);
    let failure = Session::open(connector(), &target, BRIEF, &log).await.expect_err("refused");
    assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Permanent));
    assert!(failure.reply.text.starts_with("security: "), "{failure}");
    assert!(log.take().iter().any(|entry| entry.text.contains("security: ")));
    let journal = server.journal();
    assert_eq!(journal.commands, ["EHLO postroom.example", "STARTTLS"]);
    assert_eq!(journal.faults, ["STARTTLS"]);
}

#[tokio::test]
async fn what_was_learnt_before_tls_is_forgotten() {
    let server = Server::scripted(|mut peer| async move {
        peer.hello(&["STARTTLS", "PIPELINING", "SIZE 1", "AUTH PLAIN"]).await?;
        peer.answer("220 ready\r\n").await?;
        let mut peer = peer.tls(Certificate::Good).await?;
        peer.ehlo(&["SIZE 1000000"]).await?;
        peer.hold().await.map(|_| ())
    })
    .await;
    let session = open(&target_at("localhost", server.port(), Security::StartTls)).await;
    assert_eq!(session.capabilities(), ["SIZE 1000000"]);
    assert_eq!(server.journal().commands.len(), 3);
}

#[tokio::test]
async fn case_8_silent_in_the_handshake() {
    let implicit = Server::scripted(|mut peer| async move {
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    })
    .await;
    let starttls = Server::scripted(|mut peer| async move {
        peer.hello(&["STARTTLS"]).await?;
        peer.answer("220 ready\r\n").await?;
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    })
    .await;
    for (server, security) in [(implicit, Security::ImplicitTls), (starttls, Security::StartTls)] {
        let failure = refused_in_time(&target_at("localhost", server.port(), security)).await;
        assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Temporary), "{failure}");
        assert_eq!(server.wait_until(|journal| journal.ended == 1).await.faults, ["silent"]);
    }
}

#[tokio::test]
async fn case_38_no_packet_goes_to_a_forbidden_address() {
    let server = Behaviour::default().start().await;
    let forbidding = |networks: &str, ports: &str| {
        let egress = policy(networks, ports);
        Connector::new(postroom::smtp::ConnectorOptions { egress, ..options(&CaFile::new()) })
            .expect("a connector")
    };
    let hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "0"];
    let connector = forbidding("", "1-65535");
    for host in hosts.into_iter().chain(["::ffff:127.0.0.1", "64:ff9b::7f00:1"]) {
        let target = target_at(host, server.port(), Security::None);
        let failure = Session::open(&connector, &target, BRIEF, &transcript()).await.expect_err(host);
        assert_eq!(
            (failure.step, failure.kind),
            (Step::Resolve, FailureKind::NotAllowed),
            "{host}: {failure}"
        );
    }
    let connector = forbidding("127.0.0.0/8", "25,465");
    let failure = Session::open(&connector, &plain(&server), BRIEF, &transcript())
        .await
        .expect_err("the port is forbidden");
    assert_eq!((failure.step, failure.kind), (Step::Resolve, FailureKind::NotAllowed));
    assert_eq!(server.journal().connections, 0);

    // The same server, allowed: so it was the policy that kept the others away.
    for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1"] {
        open(&target_at(host, server.port(), Security::None)).await.quit(&transcript()).await;
    }
    assert_eq!(server.journal().connections, 5);
}
