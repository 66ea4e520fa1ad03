//! DATA and the reply to the dot: cases 15 to 19, 24, 25 and 27.

use std::time::Instant;

use postroom::domain::outcome::{Class, RecipientResult, Step};
use postroom::smtp::Session;

use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received, Server};
use crate::support::{BRIEF, CONTENT, GRACE, PATIENT, classes, open, open_brief, plain, send, send_content};

/// A server that takes the envelope, asks for the content, and goes on by `script`.
async fn after_data<F, Fut>(script: F) -> Server
where
    F: Fn(Peer) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Server::scripted(move |mut peer| {
        let script = script.clone();
        async move {
            peer.hello(&["PIPELINING"]).await?;
            peer.envelope().await?;
            script(peer).await
        }
    })
    .await
}

/// A content that no socket's buffers hold.
fn large() -> Vec<u8> {
    b"A line of a letter that is larger than what the kernel buffers on loopback.\r\n".repeat(200_000)
}

async fn deliver(server: &Server, content: &[u8]) -> (RecipientResult, Session) {
    let mut session = open(&plain(server)).await;
    let mut results = send_content(&mut session, &["bob@example.com"], content).await;
    (results.remove(0), session)
}

#[tokio::test]
async fn contents_arrive_byte_for_byte() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    let contents = [
        Vec::new(),
        b".\r\n".to_vec(),
        b"\r\n.\r\n\r\n..\r\n.a".to_vec(),
        b".".repeat(70_000),
        b".\r\n".repeat(50_000),
        [&vec![b'x'; 64 * 1024 - 1][..], b"\r\n.y\r\n"].concat(),
        [&vec![b'x'; 64 * 1024 - 2][..], b"\r\n.y\r\n"].concat(),
        large(),
    ];
    for content in &contents {
        assert_eq!(classes(&send_content(&mut session, &["a@example.com"], content).await), [Class::Sent]);
    }
    for (received, mut content) in server.journal().letters.into_iter().zip(contents) {
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            content.extend_from_slice(b"\r\n");
        }
        assert!(received.content == content, "{} bytes", content.len());
    }
}

#[tokio::test]
async fn a_bare_line_end_is_never_sent() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    for content in [&b"a\nb\r\n"[..], b"a\rb\r\n", b"a\r\n.\n\r\nMAIL FROM:<x@example.com>\r\n", b"a\r"] {
        let results = send_content(&mut session, &["a@example.com"], content).await;
        assert_eq!(classes(&results), [Class::Refused]);
        assert!(results[0].reply.text.starts_with("the letter has a bare "));
    }
    assert!(session.is_usable());
    assert_eq!(server.journal().commands.len(), 1, "only EHLO was said");
}

#[tokio::test]
async fn case_15_cut_within_the_content() {
    for reset in [false, true] {
        let server = after_data(move |mut peer| async move {
            for _ in 0..1000 {
                peer.line().await?;
            }
            peer.fault("cut");
            if reset { peer.reset() } else { Ok(()) }
        })
        .await;
        let (result, session) = deliver(&server, &large()).await;
        assert_eq!((result.class, result.step), (Class::Retry, Step::Content), "{:?}", result.reply);
        assert!(!session.is_usable());
        assert_eq!(server.journal().faults, ["cut"]);
    }
}

#[tokio::test]
async fn case_16_refused_within_the_content() {
    for (then, reply, class) in [
        (Then::Silence, "552 5.3.4 too large\r\n", Class::Refused),
        (Then::Close, "552 5.3.4 too large\r\n", Class::Refused),
        (Then::Silence, "451 4.3.0 disk full\r\n", Class::Retry),
        (Then::Silence, "250 thanks, enough\r\n", Class::Retry),
    ] {
        let server = after_data(move |mut peer| async move {
            for _ in 0..1000 {
                peer.line().await?;
            }
            peer.say(reply).await?;
            peer.fault("refused");
            if then == Then::Silence { peer.stop_reading().await } else { Ok(()) }
        })
        .await;
        let start = Instant::now();
        let (result, session) = deliver(&server, &large()).await;
        assert!(start.elapsed() < PATIENT, "the reply is heard before the deadline");
        assert_eq!((result.class, result.step), (class, Step::Content));
        assert_eq!(result.reply.code, reply[..3].parse::<u16>().expect("a code"), "{:?}", result.reply);
        assert!(!session.is_usable());
        assert_eq!(server.journal().faults, ["refused"]);
    }
}

#[tokio::test]
async fn case_17_nothing_after_the_dot() {
    for end in [Then::Silence, Then::Close, Then::Reset] {
        let server = after_data(move |mut peer| async move {
            let content = peer.content().await?;
            peer.take(Received { content, ..Received::default() });
            match end {
                Then::Silence => peer.hold().await.map(|_| ()),
                Then::Reset => peer.reset(),
                Then::GoOn | Then::Close => Ok(()),
            }
        })
        .await;
        let mut session = open_brief(&plain(&server)).await;
        let start = Instant::now();
        let results = send(&mut session, &["bob@example.com"]).await;
        assert!(start.elapsed() < BRIEF + GRACE);
        assert_eq!((classes(&results), results[0].step), (vec![Class::Uncertain], Step::Acceptance));
        assert_eq!(results[0].reply.code, 0);
        assert!(!session.is_usable());
        assert_eq!(server.journal().letters[0].content, CONTENT, "the server has it");
    }
}

#[tokio::test]
async fn case_18_odd_ways_to_say_yes() {
    let long = [b"250 ", &[b'x'; 2000][..], b"\r\n"].concat();
    for (reply, text) in [
        (&b"250\r\n"[..], ""),
        (b"250\n", ""),
        (b"250 ok\n", "ok"),
        (b"250 Gr\xfc\xdfe\r\n", "Gr\u{fffd}\u{fffd}e"),
        (b"250-2.0.0 taken\r\n250 2.0.0 as 1\r\n", "taken\nas 1"),
        (b"200 fine\r\n", "fine"),
        (&long, std::str::from_utf8(&long[4..2004]).expect("ASCII")),
    ] {
        let server = Behaviour::default().on("dot", reply).start().await;
        let (result, session) = deliver(&server, CONTENT).await;
        assert_eq!((result.class, result.reply.text.as_str()), (Class::Sent, text));
        assert!(session.is_usable());
        assert_eq!(server.journal().faults, ["DOT"]);
    }
}

#[tokio::test]
async fn case_19_nonsense_at_the_dot() {
    for reply in
        ["354 go ahead\r\n", "999 what\r\n", "garbage\r\n", "\r\n", "250-one\r\n550 two\r\n", "250 no end"]
    {
        let server = Behaviour::default().once("dot", reply, Then::Close).start().await;
        let (result, session) = deliver(&server, CONTENT).await;
        assert_eq!((result.class, result.step), (Class::Uncertain, Step::Acceptance), "{reply}");
        assert!(!session.is_usable());
        assert_eq!(server.journal().faults, ["DOT"]);
    }
}

#[tokio::test]
async fn a_clear_no_at_the_dot() {
    for (reply, class) in [
        ("451 4.7.1 greylisted\r\n", Class::Retry),
        ("554 5.7.1 spam\r\n", Class::Refused),
        ("550 5.4.5 daily quota exceeded\r\n", Class::Refused),
    ] {
        let server = Behaviour::default().once("dot", reply, Then::GoOn).start().await;
        let mut session = open(&plain(&server)).await;
        let results = send(&mut session, &["a@example.com", "b@example.com"]).await;
        assert_eq!((classes(&results), results[1].step), (vec![class; 2], Step::Acceptance));
        assert!(session.is_usable());
        assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
        let commands = server.journal().commands;
        assert!(!commands.iter().any(|command| command == "RSET"), "the slate is clean after the dot");
    }
}

#[tokio::test]
async fn case_24_taken_and_then_cut() {
    for then in [Then::Close, Then::Reset] {
        let server = Behaviour::default().once("dot", "250 2.0.0 taken\r\n", then).start().await;
        let (result, mut session) = deliver(&server, CONTENT).await;
        assert_eq!(result.class, Class::Sent);
        server.wait_until(|journal| journal.ended == 1).await;
        let results = send(&mut session, &["b@example.com"]).await;
        assert_eq!(classes(&results), [Class::Retry]);
        assert!(session.lost_while_idle());
        assert_eq!(server.journal().faults, ["DOT"]);
    }
}

#[tokio::test]
async fn case_25_talk_before_the_content() {
    let server = Behaviour::default().on("DATA", "354 go ahead\r\n250 by the way\r\n").start().await;
    let (result, session) = deliver(&server, CONTENT).await;
    assert_eq!((result.class, result.step), (Class::Retry, Step::Content));
    assert!(!session.is_usable());
    assert_eq!(server.journal().faults, ["DATA"]);
    assert_eq!(server.journal().letters.len(), 0);
}

#[tokio::test]
async fn case_25_talk_after_the_reply_to_the_dot() {
    let server = Behaviour::default().on("dot", "250 taken\r\n250 and this\r\n").start().await;
    let (result, mut session) = deliver(&server, CONTENT).await;
    assert_eq!(result.class, Class::Sent);
    // Whether or not the second line has arrived yet, it is never taken for the reply to the next command.
    let results = send(&mut session, &["b@example.com"]).await;
    assert!(matches!(results[0].class, Class::Retry), "{results:?}");
    assert!(!session.is_usable());
    assert_eq!(server.journal().letters.len(), 1);
}

#[tokio::test]
async fn case_27_the_server_stops_reading() {
    let server = after_data(|mut peer| async move {
        peer.fault("stopped reading");
        peer.stop_reading().await
    })
    .await;
    let mut session = open_brief(&plain(&server)).await;
    let start = Instant::now();
    let results = send_content(&mut session, &["bob@example.com"], &large()).await;
    let elapsed = start.elapsed();
    assert!(elapsed < BRIEF + GRACE, "{elapsed:?}");
    assert_eq!((classes(&results), results[0].step), (vec![Class::Retry], Step::Content));
    assert!(!session.is_usable());
    assert_eq!(server.journal().faults, ["stopped reading"]);
}
