//! DATA and the reply to the dot: cases 15 to 19, 24, 25 and 27.

use std::time::Duration;

use postroom::api::proto::Step;
use postroom::api::proto::message::{Content, State};

use super::rig::{Case, Hostile, Patience, Rig};
use super::story::{between, told};
use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received};
use crate::support::letter;

/// A server that takes the envelope, asks for the content, and goes on by `script`.
async fn after_data<F, Fut>(script: F) -> Hostile
where
    F: Fn(Peer) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Hostile::scripted(Behaviour::default(), move |mut peer| {
        let script = script.clone();
        async move {
            peer.hello(&["PIPELINING"]).await?;
            peer.envelope().await?;
            script(peer).await
        }
    })
    .await
}

/// With a letter that no socket's buffers hold.
fn large(name: &str, hostile: Hostile) -> Case {
    let port = hostile.server.port();
    let mut raw =
        format!("From: case{port}@example.com\r\nTo: ann@example.org\r\nSubject: large\r\n\r\n").into_bytes();
    let line = b"A line of a letter that is larger than what the kernel buffers on loopback.\r\n";
    raw.extend(line.repeat(200_000));
    let content = Some(Content::Raw(raw.into()));
    Case::new(name, hostile).letter(postroom::api::proto::Message { content, ..Default::default() })
}

/// Reads so many lines of the content.
async fn some_lines(peer: &mut Peer) -> std::io::Result<()> {
    for _ in 0..1_000 {
        peer.line().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_15_and_16_broken_off_within_the_content() {
    let says = |reply: &'static str| {
        after_data(move |mut peer| async move {
            some_lines(&mut peer).await?;
            peer.say(reply).await?;
            peer.fault("spoke");
            peer.stop_reading().await
        })
    };
    let cut = after_data(|mut peer| async move {
        some_lines(&mut peer).await?;
        peer.fault("cut");
        peer.reset()
    });
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        large("cut", cut.await),
        large("552", says("552 5.3.4 too large for me\r\n").await),
        large("451", says("451 4.3.0 disk full\r\n").await),
    ];
    let [cut, never, later] = rig.play(cases).await;
    cut.is_retried(&rig, told(Step::Content, 0, "the connection broke")).await;
    never.is_refused(&rig, told(Step::Content, 552, "too large for me")).await;
    later.is_retried(&rig, told(Step::Content, 451, "disk full")).await;
    for story in [cut, never, later] {
        assert_eq!(story.journal.letters, [], "{}", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_17_and_27_silence_within_and_after_the_content() {
    let silent = after_data(|mut peer| async move {
        let content = peer.content().await?;
        peer.take(Received { content, ..Received::default() });
        peer.fault("silent");
        peer.hold().await.map(|_| ())
    });
    let stalling = after_data(|mut peer| async move {
        peer.fault("stopped reading");
        peer.stop_reading().await
    });
    let rig = Rig::start(Patience::Brief).await;
    let cases = [Case::new("silence", silent.await), large("window 0", stalling.await)];
    let [silent, stalled] = rig.play(cases).await;
    silent.is_uncertain(&rig, told(Step::Acceptance, 0, "the server did not answer in time")).await;
    assert_eq!(silent.journal.letters.len(), 1, "the server has it");
    stalled.is_retried(&rig, told(Step::Content, 0, "the server did not")).await;
    for story in [silent, stalled] {
        let attempt = story.attempt();
        let took = between(attempt.start_time, attempt.end_time);
        assert!(took >= Duration::from_secs(1), "{}: not before the deadline: {took:?}", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_17_gone_after_the_dot() {
    let gone = |reset: bool| {
        after_data(move |mut peer| async move {
            let content = peer.content().await?;
            peer.take(Received { content, ..Received::default() });
            peer.fault("gone");
            if reset { peer.reset() } else { Ok(()) }
        })
    };
    let rig = Rig::start(Patience::Long).await;
    let cases = [Case::new("closed", gone(false).await), Case::new("reset", gone(true).await)];
    let [closed, reset] = rig.play(cases).await;
    closed.is_uncertain(&rig, told(Step::Acceptance, 0, "the server closed the connection")).await;
    reset.is_uncertain(&rig, told(Step::Acceptance, 0, "the connection broke")).await;
    for story in [closed, reset] {
        assert_eq!(story.journal.letters.len(), 1, "{}: the server has it", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_18_odd_ways_to_say_yes() {
    let long = [b"250 ", &[b'x'; 2_000][..], b"\r\n"].concat();
    let yes = async |reply: &[u8]| Hostile::plain(Behaviour::default().on("dot", reply)).await;
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("without text", yes(b"250\r\n").await),
        Case::new("bare LF", yes(b"250 ok\n").await),
        Case::new("Latin-1", yes(b"250 Gr\xfc\xdfe\r\n").await),
        Case::new("several lines", yes(b"250-2.0.0 taken\r\n250 2.0.0 as 1\r\n").await),
        Case::new("2,000 bytes", yes(&long).await),
    ];
    let texts = ["", "ok", "Gr\u{fffd}\u{fffd}e", "taken\nas 1", &"x".repeat(2_000)];
    for (story, text) in rig.play(cases).await.into_iter().zip(texts) {
        story.is_sent();
        let attempt = story.attempt();
        let reply = attempt.reply.as_ref().expect("set");
        assert_eq!((attempt.step(), reply.code, reply.text.as_str()), (Step::Acceptance, 250, text));
        assert_eq!(story.message.recipients[0].reply.as_ref(), Some(reply), "{}", story.name);
        assert_eq!(story.journal.letters.len(), 1, "{}", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_19_nonsense_at_the_dot() {
    let dot = |reply: &str| Hostile::plain(Behaviour::default().once("dot", reply, Then::Close));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("354", dot("354 go ahead\r\n").await),
        Case::new("999", dot("999 what\r\n").await),
        Case::new("garbage", dot("garbage\r\n").await),
        Case::new("two codes", dot("250-one\r\n550 two\r\n").await),
        Case::new("no end", dot("250 no end").await),
    ];
    let [go_on, unknown, garbage, codes, half] = rig.play(cases).await;
    go_on.is_uncertain(&rig, told(Step::Acceptance, 354, "go ahead")).await;
    unknown.is_uncertain(&rig, told(Step::Acceptance, 999, "what")).await;
    let no_reply = "the server's answer is no SMTP reply: ";
    for (story, words) in [(garbage, "garbage"), (codes, "550 two")] {
        story.is_uncertain(&rig, told(Step::Acceptance, 0, words)).await;
        assert!(story.attempt().reply.as_ref().is_some_and(|reply| reply.text.starts_with(no_reply)));
    }
    half.is_uncertain(&rig, told(Step::Acceptance, 0, "250 no end")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_24_and_25_taken_and_then_trouble() {
    let dot = |reply: &str, then| Hostile::plain(Behaviour::default().once("dot", reply, then));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("closed", dot("250 2.0.0 taken\r\n", Then::Close).await),
        Case::new("reset", dot("250 2.0.0 taken\r\n", Then::Reset).await),
        Case::new("talk", dot("250 taken\r\n250 and this\r\n", Then::GoOn).await),
    ];
    for story in rig.play(cases).await {
        story.is_sent();
        assert_eq!(story.journal.letters.len(), 1, "{}", story.name);
        // What it said or did then is nothing to the next letter.
        let next = letter(&story.message.from_address, &["bob@example.org"]);
        let next = rig.postroom.send_and_wait(next).await;
        assert_eq!((next.state(), next.attempts.len()), (State::Sent, 1), "{}: {next:?}", story.name);
        assert_eq!(story.hostile.server.journal().letters.len(), 2, "{}", story.name);
    }
}
