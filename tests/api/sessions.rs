//! SMTP sessions from letter to letter: used again, given up by the server, and letters with many recipients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{Account, Limits, LogLevel, SendMessageRequest, Settings, attempt};

use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received, Server};
use crate::support::{Postroom, SITE, letter, plain_account};

const FROM: &str = "shop@example.com";
/// Sessions of one account at once.
const MAX_SESSIONS: usize = 5;

async fn start(server: &Server) -> Postroom {
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(server, FROM)).await;
    postroom
}

/// The same, its account with one session, whose log tells all but the bytes.
async fn start_with_one_session(server: &Server) -> Postroom {
    let postroom = Postroom::start().await;
    let level = Some(LogLevel::Connection.into());
    postroom.change_settings(Settings { log_level: level, ..Settings::default() }).await;
    let limits = Some(Limits { max_connections: Some(1), ..Limits::default() });
    postroom.create_account(Account { limits, ..plain_account(server, FROM) }).await;
    postroom
}

/// Sends so many letters at once; each has one attempt.
async fn send_and_see_sent(postroom: &Postroom, letters: usize) {
    let mut names = Vec::new();
    for number in 0..letters {
        let taken = postroom.send().send_message(request(&format!("r{number}@example.org"))).await;
        names.push(taken.expect("taken").into_inner().message.expect("set").name);
    }
    for name in names {
        let sent = postroom.wait_for_attempts(&name, 1).await;
        assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 1), "{sent:?}");
    }
}

fn request(to: &str) -> SendMessageRequest {
    SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &[to])),
        ..SendMessageRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_letters_need_few_connections() {
    const LETTERS: usize = 100;
    let server = Behaviour::default().start().await;
    let postroom = start(&server).await;
    let mut send = postroom.send();
    for number in 0..LETTERS {
        send.send_message(request(&format!("{number}@example.org"))).await.expect("taken");
    }
    let journal = server.wait_until(|journal| journal.letters.len() >= LETTERS).await;
    let recipients: BTreeSet<_> = journal.letters.iter().flat_map(|letter| &letter.recipients).collect();
    assert_eq!((journal.letters.len(), recipients.len()), (LETTERS, LETTERS));
    // One more is that of the check.
    assert!(journal.connections <= MAX_SESSIONS + 1, "{} connections", journal.connections);
}

/// Its envelope is said with the dot of the one before (RFC 2920 3.1), and each log tells its own part of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_in_hand_is_announced_with_the_one_before() {
    const LETTERS: usize = 30;
    // So that more are taken while one is answered.
    let server = Behaviour::default().delay("dot", Duration::from_millis(20)).start().await;
    let postroom = start_with_one_session(&server).await;
    send_and_see_sent(&postroom, LETTERS).await;
    let letters = server.journal().letters;
    let recipients: BTreeSet<_> = letters.iter().flat_map(|letter| &letter.recipients).collect();
    assert_eq!((letters.len(), recipients.len()), (LETTERS, LETTERS));
    let entries = postroom.entries("send-admin-1").await;
    let ahead = "said with the dot of the letter before:";
    let announced: BTreeSet<&str> =
        entries.iter().filter(|entry| entry.text == ahead).map(|entry| entry.message.as_str()).collect();
    assert!(!announced.is_empty(), "{entries:?}");
    for message in announced {
        let of_it = entries.iter().filter(|entry| entry.message == message);
        let texts: Vec<&str> = of_it.map(|entry| entry.text.as_str()).collect();
        let at = |beginning: &str| texts.iter().position(|text| text.starts_with(beginning));
        let dialogue = [ahead, "MAIL FROM:", "RCPT TO:", "DATA", "250 ", "354 ", "<letter"].map(at);
        assert!(dialogue.is_sorted() && dialogue[0].is_some(), "{texts:?}");
    }
}

/// A server that offers PIPELINING and takes offence at it, there: no letter has an attempt more for it, and it is asked once.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hears_no_announcements_gets_every_letter() {
    const LETTERS: usize = 30;
    let ordinary = Arc::new(Behaviour::default());
    let server = Server::scripted(move |mut peer: Peer| {
        let ordinary = Arc::clone(&ordinary);
        async move {
            if peer.number == 0 {
                return ordinary.serve(peer).await;
            }
            peer.hello(&["PIPELINING"]).await?;
            loop {
                peer.envelope().await?;
                let content = peer.content().await?;
                peer.take(Received { content, ..Received::default() });
                let ahead = tokio::time::timeout(Duration::from_millis(50), peer.command()).await;
                peer.say("250 2.0.0 taken\r\n").await?;
                if let Ok(command) = ahead {
                    command?;
                    peer.fault("took offence");
                    peer.say("503 5.5.1 out of order\r\n").await?;
                    peer.hold().await?;
                }
            }
        }
    })
    .await;
    let postroom = start_with_one_session(&server).await;
    send_and_see_sent(&postroom, LETTERS).await;
    let journal = server.journal();
    assert_eq!((journal.letters.len(), journal.faults.len()), (LETTERS, 1), "{:?}", journal.faults);
}

/// CASES 26: the server says why it closes, or only closes, while nothing is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_gave_up_counts_no_attempt() {
    for farewell in ["", "421 4.4.2 idle for too long\r\n"] {
        let reply = format!("250 2.0.0 taken\r\n{farewell}");
        let server = Behaviour::default().once("dot", reply, Then::Close).start().await;
        let postroom = start(&server).await;
        for to in ["ann@example.org", "bob@example.org"] {
            let sent = postroom.send_and_wait(letter(FROM, &[to])).await;
            assert_eq!(sent.state(), State::Sent, "{sent:?}");
            assert_eq!(sent.attempts.len(), 1, "{sent:?}");
        }
        let journal = server.journal();
        assert_eq!((journal.letters.len(), journal.faults.len()), (2, 1), "{farewell:?}");
        assert_ne!(journal.letters[0].connection, journal.letters[1].connection);
    }
}

/// The same, but the server notices only when it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_when_used_again_counts_no_attempt() {
    let ordinary = Arc::new(Behaviour::default());
    let server = Server::scripted(move |mut peer: Peer| {
        let ordinary = Arc::clone(&ordinary);
        async move {
            // The first connection is the check of the account.
            if peer.number != 1 {
                return ordinary.serve(peer).await;
            }
            peer.hello(&[]).await?;
            peer.envelope().await?;
            let content = peer.content().await?;
            peer.take(Received { content, ..Received::default() });
            peer.say("250 2.0.0 taken\r\n").await?;
            peer.command().await?;
            peer.fault("hung up when asked again");
            peer.reset()
        }
    })
    .await;
    let postroom = start(&server).await;
    for to in ["ann@example.org", "bob@example.org"] {
        let sent = postroom.send_and_wait(letter(FROM, &[to])).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
        assert_eq!(sent.attempts.len(), 1, "{sent:?}");
    }
    let journal = server.journal();
    assert_eq!((journal.letters.len(), journal.faults.len(), journal.connections), (2, 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_to_many_goes_in_several_transactions() {
    let server = Behaviour::default().on("RCPT TO:<r123@", "550 5.1.1 unknown\r\n").start().await;
    let postroom = start(&server).await;
    let to: Vec<String> = (0..250).map(|number| format!("r{number}@example.org")).collect();
    let sent = postroom.send_and_wait(letter(FROM, &to.iter().map(String::as_str).collect::<Vec<_>>())).await;
    assert_eq!(sent.state(), State::PartiallySent);
    let [attempt] = &sent.attempts[..] else { panic!("{:?}", sent.attempts) };
    assert_eq!(attempt.outcome(), attempt::Outcome::PartiallySent);
    let letters = server.journal().letters;
    let sizes: Vec<usize> = letters.iter().map(|letter| letter.recipients.len()).collect();
    assert_eq!(sizes, [100, 99, 50]);
    let got: BTreeSet<String> = letters.iter().flat_map(|letter| letter.recipients.clone()).collect();
    assert_eq!(got.len(), 249);
    for letter in &letters {
        assert_eq!(letter.content, letters[0].content, "the same letter for all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_under_way_is_shown_as_such_and_wait_ends_in_time() {
    let (release, _) = tokio::sync::watch::channel(false);
    let (released, ordinary) = (release.clone(), Arc::new(Behaviour::default()));
    let server = Server::scripted(move |mut peer: Peer| {
        let (mut released, ordinary) = (released.subscribe(), Arc::clone(&ordinary));
        async move {
            if peer.number == 0 {
                return ordinary.serve(peer).await;
            }
            peer.hello(&[]).await?;
            loop {
                peer.envelope().await?;
                let content = peer.content().await?;
                peer.take(Received { content, ..Received::default() });
                // A sender that is gone is the end of the test.
                let _ = released.wait_for(|released| *released).await;
                peer.say("250 2.0.0 taken\r\n").await?;
            }
        }
    })
    .await;
    let postroom = start(&server).await;
    let mut send = postroom.send();
    let with_wait = |nanos| SendMessageRequest {
        wait: Some(prost_types::Duration { seconds: 0, nanos }),
        ..request("ann@example.org")
    };
    let taken = send.send_message(with_wait(0)).await.expect("taken").into_inner().message.expect("set");
    assert!(matches!(taken.state(), State::Queued | State::Sending), "{taken:?}");
    server.wait_until(|journal| journal.letters.len() == 1).await;
    let sending = postroom.message(&taken.name).await;
    assert_eq!(sending.state(), State::Sending, "{sending:?}");
    assert!(sending.next_attempt_time.is_none() && sending.final_time.is_none());

    // This one has the same fate; the call comes back when its time is over and not when the server has decided.
    let start = std::time::Instant::now();
    let wait = Duration::from_millis(300);
    let again = send.send_message(with_wait(300_000_000)).await.expect("taken").into_inner();
    assert!(start.elapsed() >= wait, "{:?}", start.elapsed());
    assert!(matches!(again.message.expect("set").state(), State::Queued | State::Sending));
    release.send_replace(true);
    // And this one goes on until the outcome is known, long before the time is over.
    let done = postroom.send_and_wait(letter(FROM, &["bob@example.org"])).await;
    assert_eq!(done.state(), State::Sent, "{done:?}");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}
