//! One session for many letters: cases 25 and 26, and futures that are dropped.

use std::sync::Arc;
use std::time::Duration;

use postroom::domain::outcome::Class;
use postroom::smtp::{Letter, Session};
use tokio::sync::Notify;

use crate::scripted::Server;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{
    CONTENT, addresses, brief, classes, connector, open, plain, round_trip, send, transcript,
};

#[tokio::test]
async fn many_letters_over_one_session() {
    for extensions in [&["PIPELINING"][..], &[]] {
        let server = Behaviour::default().extensions(extensions).start().await;
        let mut session = open(&plain(&server)).await;
        for _ in 0..50 {
            assert!(!session.is_stale());
            assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
        }
        let journal = server.journal();
        assert_eq!((journal.connections, journal.letters.len()), (1, 50));
    }
}

#[tokio::test]
async fn case_26_closed_while_idle() {
    let server = Behaviour::default().once("dot", "250 taken\r\n", Then::Close).start().await;
    let mut session = open(&plain(&server)).await;
    send(&mut session, &["a@example.com"]).await;
    server.wait_until(|journal| journal.ended == 1).await;
    assert_eq!(classes(&send(&mut session, &["b@example.com"]).await), [Class::Retry]);
    assert!(session.lost_while_idle(), "no attempt");
    assert!(!session.is_usable());
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&send(&mut session, &["b@example.com"]).await), [Class::Sent]);
    assert!(!session.lost_while_idle());
    assert_eq!(server.journal().letters.len(), 2);
}

#[tokio::test]
async fn case_26_closed_with_the_next_letter_on_its_way() {
    // The server gives up only when it hears the second MAIL: nothing can be seen before.
    for farewell in ["", "421 4.4.2 idle too long\r\n"] {
        let server = Server::scripted(move |mut peer| async move {
            peer.hello(&["PIPELINING"]).await?;
            peer.envelope().await?;
            let content = peer.content().await?;
            peer.take(crate::scripted::Received { content, ..Default::default() });
            peer.say("250 taken\r\n").await?;
            peer.command().await?;
            peer.fault("gave up");
            peer.say(farewell).await
        })
        .await;
        let mut session = open(&plain(&server)).await;
        assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
        assert_eq!(classes(&send(&mut session, &["b@example.com"]).await), [Class::Retry]);
        assert!(session.lost_while_idle(), "no attempt");
        assert!(!session.is_usable());
        assert_eq!(server.journal().faults, ["gave up"]);
    }
}

#[tokio::test]
async fn case_25_talks_while_idle() {
    let server = Server::scripted(|mut peer| async move {
        peer.hello(&[]).await?;
        peer.fault("talked");
        peer.say("250 hello?\r\n").await?;
        peer.hold().await.map(|_| ())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    server.wait_until(|journal| journal.faults.len() == 1).await;
    // The bytes are on their way through the kernel: looked for until they are there.
    while !session.is_stale() {
        tokio::task::yield_now().await;
    }
    assert!(!session.is_usable());
    assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Retry]);
    assert!(!session.lost_while_idle(), "no letter went over it before");
    assert_eq!(server.journal().commands.len(), 1, "nothing more was said");
}

#[tokio::test]
async fn a_dropped_delivery_leaves_the_session_unusable() {
    let server = Behaviour::default().delay("dot", Duration::from_millis(200)).start().await;
    let mut session = open(&plain(&server)).await;
    let (sender, recipients) = (&addresses(&["ann@example.com"])[0], &addresses(&["bob@example.com"]));
    let letter = Letter {
        sender,
        recipients,
        content: CONTENT,
        eight_bit: false,
        utf8_headers: false,
        is_private: false,
    };
    let log = transcript();
    tokio::select! {
        biased;
        _ = session.deliver(&letter, &log) => panic!("the server has not answered yet"),
        _ = server.wait_until(|journal| journal.letters.len() == 1) => {}
    }
    assert!(!session.is_usable());
    assert_eq!(classes(&send(&mut session, &["eve@example.com"]).await), [Class::Retry]);
    assert_eq!(
        server.journal().letters.len(),
        1,
        "the reply to the first letter was not taken for the second's"
    );
}

#[tokio::test]
async fn quit_does_not_wait_for_long() {
    let server = Behaviour::default().once("QUIT", "", Then::Silence).start().await;
    let session =
        Session::open_within(connector(), &plain(&server), brief(), &transcript()).await.expect("opens");
    let start = std::time::Instant::now();
    session.quit(&transcript()).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(server.wait_until(|journal| journal.ended == 1).await.faults, ["QUIT"]);
}

#[tokio::test]
async fn case_25_talk_while_idle_is_seen_before_anything_is_said() {
    let cue = Arc::new(Notify::new());
    let waiting = Arc::clone(&cue);
    let talker = Server::scripted(move |mut peer| {
        let cue = Arc::clone(&waiting);
        async move {
            peer.hello(&["PIPELINING"]).await?;
            peer.envelope().await?;
            peer.content().await?;
            peer.say("250 taken\r\n").await?;
            cue.notified().await;
            peer.say("250 and another thing\r\n").await?;
            peer.fault("talked");
            let more = peer.hold().await?;
            peer.fault(format!("{more} bytes"));
            Ok(())
        }
    })
    .await;
    let mut session = open(&plain(&talker)).await;
    assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
    cue.notify_one();
    talker.wait_until(|journal| journal.faults.len() == 1).await;
    round_trip().await;
    let results = send(&mut session, &["b@example.com"]).await;
    assert_eq!(classes(&results), [Class::Retry]);
    assert!(results[0].reply.text.ends_with("250 and another thing"), "{:?}", results[0].reply);
    assert!(session.lost_while_idle(), "no attempt");
    let journal = talker.wait_until(|journal| journal.ended == 1).await;
    assert_eq!(journal.faults, ["talked", "0 bytes"], "nothing more was said to it");
}
