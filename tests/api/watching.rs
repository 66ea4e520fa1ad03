//! The live tail: what is said while a session runs, and places in it that survive a reconnect and a restart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{LogEntry, SendMessageRequest, TailLogEntriesRequest, TailLogEntriesResponse};
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{PATIENCE, Postroom, SITE, bad_fields, letter, plain_account, reason};

const FROM: &str = "shop@example.com";
/// A response that comes at once comes well before the first heartbeat, which is after 15 s.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A reader of one stream, with the place it has come to.
struct Reader {
    stream: Streaming<TailLogEntriesResponse>,
    token: String,
}

impl Reader {
    async fn open(postroom: &Postroom, request: TailLogEntriesRequest) -> Result<Self, Status> {
        let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..request };
        let stream = postroom.logs().tail_log_entries(request).await?.into_inner();
        Ok(Self { stream, token: String::new() })
    }

    /// From now on.
    async fn start(postroom: &Postroom) -> Self {
        let mut reader = Self::open(postroom, TailLogEntriesRequest::default()).await.expect("a stream");
        assert_eq!(reader.next().await.expect("the first response"), []);
        reader
    }

    async fn next(&mut self) -> Result<Vec<LogEntry>, Status> {
        let response = timeout(PATIENCE, self.stream.message()).await.expect("a response in time")?;
        let response = response.expect("it ends with a status");
        assert_ne!(response.resume_token, "");
        self.token = response.resume_token;
        Ok(response.entries)
    }

    /// At least so many entries.
    async fn read(&mut self, count: usize) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.next().await.expect("open"));
        }
        entries
    }

    /// All entries up to the first of this kind and text.
    async fn until(&mut self, kind: Kind, text: &str) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        while !entries.iter().any(|e: &LogEntry| e.kind() == kind && e.text.contains(text)) {
            entries.extend(self.next().await.expect("open"));
        }
        entries
    }
}

fn from_token(token: &str) -> TailLogEntriesRequest {
    TailLogEntriesRequest { start: Some(Start::ResumeToken(token.to_owned())), ..Default::default() }
}

fn from_the_beginning() -> TailLogEntriesRequest {
    let beginning = prost_types::Timestamp { seconds: 0, nanos: 0 };
    TailLogEntriesRequest { start: Some(Start::StartTime(beginning)), ..Default::default() }
}

async fn with_account() -> (Postroom, Server) {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    (postroom, server)
}

async fn send(postroom: &Postroom, count: usize) {
    for number in 0..count {
        let sent = postroom.send_and_wait(letter(FROM, &[&format!("r{number}@example.org")])).await;
        assert_eq!(sent.state(), State::Sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_while_the_session_still_runs() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::scripted(move |mut peer| {
        let gate = Arc::clone(&opened);
        async move {
            peer.hello(&[]).await?;
            // The first connection is the account's check.
            if peer.number == 0 {
                for _ in 0..3 {
                    peer.answer("250 ok\r\n").await?;
                }
                return peer.answer("221 bye\r\n").await.map(|_| ());
            }
            peer.answer("250 sender ok\r\n").await?;
            peer.command().await?;
            gate.notified().await;
            peer.say("250 recipient ok\r\n").await?;
            peer.answer("354 go ahead\r\n").await?;
            peer.content().await?;
            gate.notified().await;
            peer.say("250 taken\r\n").await?;
            peer.hold().await.map(|_| ())
        }
    })
    .await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let mut reader = Reader::start(&postroom).await;
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &["ann@example.org"])),
        ..SendMessageRequest::default()
    };
    let taken = postroom.send().send_message(request).await.expect("taken").into_inner().message;
    let name = taken.expect("set").name;

    // The server does not go on before this was seen, so that it cannot have come from the end.
    let entries = reader.until(Kind::Client, "RCPT TO:<ann@example.org>").await;
    assert!(entries.iter().any(|e| e.kind() == Kind::Server && e.text.contains("sender ok")), "{entries:?}");
    assert!(entries.iter().all(|e| e.message == name && e.attempt == 1 && !e.session.is_empty()));
    assert!(entries.iter().all(|e| e.log == format!("{SITE}/logs/send-admin-1")), "{entries:?}");
    assert_eq!(postroom.message(&name).await.state(), State::Sending);
    gate.notify_one();
    let entries = reader.until(Kind::Server, "354 go ahead").await;
    assert!(!entries.iter().any(|e| e.text.contains("taken")), "{entries:?}");
    assert_eq!(postroom.message(&name).await.state(), State::Sending);
    gate.notify_one();
    reader.until(Kind::Server, "250 taken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_seen_while_it_runs() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::scripted(move |mut peer| {
        let gate = Arc::clone(&opened);
        async move {
            peer.hello(&[]).await?;
            peer.command().await?;
            gate.notified().await;
            peer.say("250 sender ok\r\n").await?;
            for _ in 0..2 {
                peer.answer("250 ok\r\n").await?;
            }
            peer.answer("221 bye\r\n").await.map(|_| ())
        }
    })
    .await;
    let postroom = Postroom::start().await;
    let mut reader = Reader::start(&postroom).await;
    // The server does not go on before this was seen.
    let watching = async {
        let entries = reader.until(Kind::Client, "MAIL FROM:").await;
        assert!(entries.iter().all(|entry| entry.log == format!("{SITE}/logs/check-admin-0")), "{entries:?}");
        gate.notify_one();
    };
    tokio::join!(watching, postroom.create_account(plain_account(&server, FROM)));
    let entries = reader.until(Kind::Server, "221 bye").await;
    assert!(entries.iter().any(|entry| entry.text == "250 sender ok"), "{entries:?}");
    let stored = postroom.entries("check-admin-0").await;
    let sessions: BTreeSet<_> = stored.iter().map(|entry| &entry.session).collect();
    assert_eq!(sessions.len(), 1, "one session in parts: {stored:?}");
    assert_eq!(stored.iter().filter(|entry| entry.text.starts_with("MAIL FROM:")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_response_comes_at_once() {
    let postroom = Postroom::start().await;
    for request in [TailLogEntriesRequest::default(), from_the_beginning()] {
        let opened = Instant::now();
        let mut reader = Reader::open(&postroom, request).await.expect("a stream");
        assert_eq!(reader.next().await.expect("open"), []);
        assert!(opened.elapsed() < AT_ONCE, "{:?}", opened.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_the_last_entries() {
    let (postroom, _server) = with_account().await;
    send(&postroom, 12).await;
    let logs = vec![format!("{SITE}/logs/send-admin-1")];
    let stored = postroom.entries("send-admin-1").await;
    assert!(stored.len() > 30, "{}", stored.len());
    let last = i32::try_from(stored.len()).expect("few");
    for count in [0, 1, 7, last - 1, last, 1_000] {
        let request =
            TailLogEntriesRequest { logs: logs.clone(), history: count, ..TailLogEntriesRequest::default() };
        let mut reader = Reader::open(&postroom, request).await.expect("a stream");
        let told = reader.next().await.expect("open");
        let expected = usize::try_from(count.min(last)).expect("not negative");
        assert_eq!(told, stored[stored.len() - expected..], "{count}");
    }
    for count in [-1, 1_001, i32::MAX] {
        let request = TailLogEntriesRequest { history: count, ..TailLogEntriesRequest::default() };
        let refused = Reader::open(&postroom, request).await.map(|_| ()).expect_err("out of range");
        assert_eq!(bad_fields(&refused), ["history"]);
    }
    let request = TailLogEntriesRequest { history: 1, ..from_the_beginning() };
    let refused = Reader::open(&postroom, request).await.map(|_| ()).expect_err("one or the other");
    assert_eq!(bad_fields(&refused), ["history"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_at_the_time_it_is_told() {
    let (postroom, _server) = with_account().await;
    send(&postroom, 3).await;
    let stored = postroom.entries("send-admin-1").await;
    let middle = stored[stored.len() / 2].time.expect("set");
    let after = |entry: &&LogEntry| {
        let time = entry.time.expect("set");
        (time.seconds, time.nanos) >= (middle.seconds, middle.nanos)
    };
    let expected: Vec<_> = stored.iter().filter(after).cloned().collect();
    assert!(expected.len() < stored.len());
    let request = TailLogEntriesRequest { start: Some(Start::StartTime(middle)), ..Default::default() };
    let mut reader = Reader::open(&postroom, request).await.expect("a stream");
    assert_eq!(reader.read(expected.len()).await, expected);
    let never = Some(Start::StartTime(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }));
    let request = TailLogEntriesRequest { start: never, ..Default::default() };
    let refused = Reader::open(&postroom, request).await.map(|_| ()).expect_err("no time");
    assert_eq!(bad_fields(&refused), ["start_time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_reconnects_misses_nothing_and_sees_nothing_twice() {
    let (postroom, server) = with_account().await;
    let mut reader = Reader::start(&postroom).await;
    let mut seen = Vec::new();
    let sending = async {
        // A few at once.
        let each = async |first: usize| {
            let mut sent = Vec::new();
            for number in (first..30).step_by(3) {
                sent.push(postroom.send_and_wait(letter(FROM, &[&format!("r{number}@example.org")])).await);
            }
            sent
        };
        let (one, two, three) = tokio::join!(each(0), each(1), each(2));
        [one, two, three].concat()
    };
    // Leaves after each response, while letters are being sent.
    let reading = async {
        loop {
            seen.extend(reader.next().await.expect("open"));
            let ends = seen.iter().filter(|e: &&LogEntry| e.text.contains("2.0.0 taken")).count();
            if ends == 30 {
                break;
            }
            reader = Reader::open(&postroom, from_token(&reader.token)).await.expect("resumed");
        }
    };
    tokio::join!(sending, reading);
    assert_eq!(server.journal().letters.len(), 30);
    let stored = postroom.entries("send-admin-1").await;
    assert_eq!(seen, stored[..seen.len()], "each entry once, in its order");
    let rest = reader.token;
    let mut reader = Reader::open(&postroom, from_token(&rest)).await.expect("resumed");
    assert_eq!(reader.read(stored.len() - seen.len()).await, stored[seen.len()..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_for_the_call_they_were_made_for() {
    let (postroom, _server) = with_account().await;
    let token = Reader::start(&postroom).await.token;
    Reader::open(&postroom, from_token(&token)).await.expect("its own call");
    let mut forged = vec![String::new(), "x".to_owned(), "ü".to_owned(), "A".repeat(2_000)];
    forged.push(format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' }));
    let message = format!("{SITE}/messages/01890c5e-7a3c-7c3e-9d2b-0f1e2d3c4b5a");
    let others = [
        TailLogEntriesRequest { logs: vec![format!("{SITE}/logs/send-admin-1")], ..from_token(&token) },
        TailLogEntriesRequest { account: format!("{SITE}/accounts/1"), ..from_token(&token) },
        TailLogEntriesRequest { message, ..from_token(&token) },
    ];
    for request in forged.iter().map(|token| from_token(token)).chain(others) {
        let refused = Reader::open(&postroom, request.clone()).await.map(|_| ()).expect_err("not its token");
        let expected = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned());
        assert_eq!(reason(&refused), expected, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_tells_only_what_it_was_asked_for() {
    let (postroom, server) = with_account().await;
    postroom.create_account(plain_account(&server, "b@example.com")).await;
    let first = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let second = postroom.send_and_wait(letter(FROM, &["bob@example.org"])).await.name;
    postroom.send_and_wait(letter("b@example.com", &["cee@example.org"])).await;
    let (one, two) = (postroom.entries("send-admin-1").await, postroom.entries("send-admin-2").await);
    let of = |name: &str| one.iter().filter(|entry| entry.message == name).cloned().collect::<Vec<_>>();
    let log = |id: &str| format!("{SITE}/logs/{id}");
    let whole = from_the_beginning;
    for (request, expected) in [
        (TailLogEntriesRequest { account: format!("{SITE}/accounts/2"), ..whole() }, two.clone()),
        (TailLogEntriesRequest { message: first.clone(), ..whole() }, of(&first)),
        (
            TailLogEntriesRequest { logs: vec![log("send-admin-1")], message: second.clone(), ..whole() },
            of(&second),
        ),
        (
            TailLogEntriesRequest { logs: vec![log("send-admin-1"), log("send-admin-2")], ..whole() },
            [one.clone(), two].concat(),
        ),
        (TailLogEntriesRequest { logs: vec![log("check-admin-7")], ..whole() }, Vec::new()),
    ] {
        let mut reader = Reader::open(&postroom, request.clone()).await.expect("a stream");
        let told = if expected.is_empty() {
            reader.next().await.expect("open")
        } else {
            reader.read(expected.len()).await
        };
        assert_eq!(told, expected, "{request:?}");
    }
    let wrong = TailLogEntriesRequest {
        logs: vec![log("send-admin-1"), "sites/other/logs/send-admin-1".to_owned(), log("x")],
        account: "sites/other/accounts/1".to_owned(),
        message: "x".to_owned(),
        history: -1,
        ..TailLogEntriesRequest::default()
    };
    let refused = Reader::open(&postroom, wrong).await.map(|_| ()).expect_err("five faults");
    assert_eq!(bad_fields(&refused), ["logs[1]", "logs[2]", "account", "message", "history"]);
    let many = TailLogEntriesRequest { logs: vec![log("send-admin-1"); 101], ..whole() };
    assert_eq!(bad_fields(&Reader::open(&postroom, many).await.map(|_| ()).expect_err("too many")), ["logs"]);
    let apart = TailLogEntriesRequest {
        logs: vec![log("send-admin-1")],
        account: format!("{SITE}/accounts/2"),
        ..whole()
    };
    assert_eq!(bad_fields(&Reader::open(&postroom, apart).await.map(|_| ()).expect_err("apart")), ["logs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_stream_and_the_place_is_kept() {
    let (mut postroom, _server) = with_account().await;
    let mut reader = Reader::start(&postroom).await;
    send(&postroom, 1).await;
    reader.until(Kind::Server, "2.0.0 taken").await;
    let ending = async {
        loop {
            if let Err(end) = reader.next().await {
                return end;
            }
        }
    };
    let (end, ()) = tokio::join!(ending, postroom.restart());
    assert_eq!(reason(&end), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
    assert!(end.get_error_details().retry_info().is_some());
    send(&postroom, 1).await;
    let mut reader = Reader::open(&postroom, from_token(&reader.token)).await.expect("resumed");
    let entries = reader.until(Kind::Server, "2.0.0 taken").await;
    assert!(entries.iter().any(|entry| entry.text.contains("RCPT TO:<r0@")), "{entries:?}");
    assert_eq!(entries.iter().filter(|entry| entry.text.contains("RCPT TO:<r0@")).count(), 1);
}
