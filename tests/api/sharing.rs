//! Several servers over one database: they share the work, and nobody gets a letter twice; so too after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{Account, Limits, ListMessagesRequest, SendMessageRequest};
use tokio::task::JoinSet;
use tonic::Code;

use crate::bulk::send_all;
use crate::scripted::ordinary::Behaviour;
use crate::scripted::{Journal, Server};
use crate::sink::{Sink, most_at_once};
use crate::support::{PATIENCE, Postroom, SITE, account_at, letter, plain_account, reason};

const FROM: &str = "shop@example.com";
/// How long the server takes for a letter: longer than it takes to hand one in, so that they pile up.
const SLOW: Duration = Duration::from_millis(60);

async fn start(server: &Server) -> Postroom {
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(server, FROM)).await;
    postroom
}

async fn send(postroom: &Postroom, numbers: std::ops::Range<usize>) {
    let letters = numbers.map(|number| letter(FROM, &[&format!("{number}@example.org")])).collect();
    send_all(&[postroom], letters).await;
}

/// Every letter that a site has in this state.
async fn count(postroom: &Postroom, state: State) -> usize {
    let request = ListMessagesRequest {
        parent: SITE.to_owned(),
        page_size: 1_000,
        states: vec![state.into()],
        ..ListMessagesRequest::default()
    };
    postroom.send().list_messages(request).await.expect("listed").into_inner().messages.len()
}

/// Waits until so many letters are recorded as sent.
async fn wait_until_sent(postroom: &Postroom, expected: usize) {
    let start = std::time::Instant::now();
    loop {
        let sent = count(postroom, State::Sent).await;
        if sent >= expected {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{sent} letters of {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until so many letters are recorded as sent, then asserts that each was taken once.
async fn assert_each_once(postroom: &Postroom, server: &Server, expected: usize) -> Journal {
    wait_until_sent(postroom, expected).await;
    let journal = server.journal();
    let recipients: BTreeSet<_> = journal.letters.iter().flat_map(|letter| &letter.recipients).collect();
    assert_eq!((journal.letters.len(), recipients.len()), (expected, expected));
    journal
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_the_sessions_of_an_account_and_nothing_is_sent_twice() {
    const LETTERS: usize = 200;
    const SESSIONS: usize = 8;
    let sink = Sink::start(SLOW).await;
    let first = Postroom::start().await;
    let limits = Some(Limits { max_connections: Some(8), ..Limits::default() });
    first.create_account(Account { limits, ..account_at(sink.port(), FROM) }).await;
    let checks = sink.connections().len();
    let mut second = first.another().await;
    tokio::join!(send(&first, 0..LETTERS / 2), send(&second, LETTERS / 2..LETTERS));
    sink.wait_for(LETTERS, PATIENCE).await;
    let transactions = sink.transactions();
    let recipients: BTreeSet<_> = transactions.iter().flat_map(|t| &t.recipients).collect();
    assert_eq!((transactions.len(), recipients.len()), (LETTERS, LETTERS));
    let most = most_at_once(&sink.connections()[checks..]);
    // Each of them alone would open as many: the letters pile up.
    assert!((2..=SESSIONS).contains(&most), "{most} sessions at once");
    wait_until_sent(&second, LETTERS).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_on_two_servers_at_once_is_one_letter() {
    const CALLS: usize = 100;
    let server = Behaviour::default().start().await;
    let first = start(&server).await;
    let mut second = first.another().await;
    let mut calls = JoinSet::new();
    let clients = [first.send(), second.send()];
    for number in 0..CALLS {
        let mut send = clients[number % 2].clone();
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter(FROM, &["ann@example.org"])),
            request_id: "order-4711".to_owned(),
            ..SendMessageRequest::default()
        };
        calls.spawn(async move {
            loop {
                match send.send_message(request.clone()).await {
                    Ok(answer) => return answer.into_inner().message.expect("set"),
                    // What a busy store answers; the same request tells then.
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
            }
        });
    }
    let answers = calls.join_all().await;
    let names: BTreeSet<_> = answers.iter().map(|m| (&m.name, &m.message_id)).collect();
    assert_eq!((answers.len(), names.len()), (CALLS, 1));
    assert_each_once(&first, &server, 1).await;

    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &["bob@example.org"])),
        request_id: "order-4711".to_owned(),
        ..SendMessageRequest::default()
    };
    let refused = second.send().send_message(request).await.expect_err("another letter");
    assert_eq!(reason(&refused), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_under_way_and_hands_back_the_rest() {
    const LETTERS: usize = 120;
    let server = Behaviour::default().delay("dot", SLOW).start().await;
    let mut postroom = start(&server).await;
    send(&postroom, 0..LETTERS).await;
    server.wait_until(|journal| journal.letters.len() >= 10).await;
    postroom.stop().await;
    let before = server.journal();
    assert!(before.letters.len() < LETTERS, "all was sent before the stop: nothing was tested");
    let ended = server.wait_until(|journal| journal.ended == journal.connections);
    tokio::time::timeout(PATIENCE, ended).await.expect("no connection is left open");
    // Whatever the server took is known to be sent before the end, so that it is not sent again; the rest waits.
    postroom.restart().await;
    assert_each_once(&postroom, &server, LETTERS).await;
    let interrupted = postroom
        .send()
        .list_messages(ListMessagesRequest {
            parent: SITE.to_owned(),
            page_size: 1_000,
            ..ListMessagesRequest::default()
        })
        .await
        .expect("listed")
        .into_inner()
        .messages
        .iter()
        .filter(|message| message.attempts.len() != 1)
        .count();
    assert_eq!(interrupted, 0, "an attempt was counted that was none");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_stops_hands_back_the_other_one_sends() {
    const LETTERS: usize = 120;
    let server = Behaviour::default().delay("dot", SLOW).start().await;
    let mut first = start(&server).await;
    let second = first.another().await;
    send(&first, 0..LETTERS).await;
    server.wait_until(|journal| journal.letters.len() >= 10).await;
    first.stop().await;
    assert_each_once(&second, &server, LETTERS).await;
}
