//! Many readers of logs at once: over several servers, coming and going, and some that do not read; and what other
//! transactions have to do with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{LogEntry, TailLogEntriesRequest, TailLogEntriesResponse};
use sqlx::Connection as _;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::bulk::send_all;
use crate::scripted::ordinary::Behaviour;
use crate::sink::Sink;
use crate::support::{PATIENCE, Postroom, SITE, account_at, cluster, letter, plain_account};

/// What a letter's transcript ends with.
const TAKEN: &str = "250 2.0.0 taken";

/// Opens a tail of all logs, from now on or behind a token.
async fn open(postroom: &Postroom, token: Option<String>) -> Streaming<TailLogEntriesResponse> {
    let request = TailLogEntriesRequest {
        parent: SITE.to_owned(),
        start: token.map(Start::ResumeToken),
        ..TailLogEntriesRequest::default()
    };
    let start = Instant::now();
    loop {
        match postroom.logs().tail_log_entries(request.clone()).await {
            Ok(stream) => return stream.into_inner(),
            // A busy store is asked again, as any client does.
            Err(busy) if busy.code() == Code::Unavailable && start.elapsed() < PATIENCE => {}
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

async fn next(stream: &mut Streaming<TailLogEntriesResponse>) -> TailLogEntriesResponse {
    try_next(stream).await.expect("an open stream")
}

async fn try_next(stream: &mut Streaming<TailLogEntriesResponse>) -> Result<TailLogEntriesResponse, Status> {
    let response = timeout(PATIENCE, stream.message()).await.expect("a response in time")?;
    Ok(response.expect("it ends with a status"))
}

/// The entries of letters, session by session; what ends a session belongs to none.
fn by_session(entries: &[LogEntry]) -> BTreeMap<(String, String), Vec<LogEntry>> {
    let mut sessions: BTreeMap<_, Vec<LogEntry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.message.is_empty()) {
        sessions.entry((entry.log.clone(), entry.session.clone())).or_default().push(entry.clone());
    }
    sessions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_readers_that_come_and_go_see_everything_once_and_in_order() {
    const READERS: usize = 100;
    const WRITERS: usize = 3;
    const LETTERS: usize = 20;
    // Slower than an attempt that is written in one go: transcripts come in parts.
    let sink = Sink::start(Duration::from_millis(80)).await;
    let first = Arc::new(Postroom::start().await);
    let senders: Vec<String> = (0..WRITERS).map(|number| format!("w{number}@example.com")).collect();
    for sender in &senders {
        first.create_account(account_at(sink.port(), sender)).await;
    }
    let servers = [Arc::clone(&first), Arc::new(first.another().await)];
    let mut readers = JoinSet::new();
    let (mut cut, mut opened) = (0, 0);
    for number in 0..READERS {
        let servers = servers.clone();
        let mut stream = open(&servers[number % 2], None).await;
        let mut token = next(&mut stream).await.resume_token;
        readers.spawn(async move {
            let (mut seen, mut taken, mut streams) = (Vec::new(), 0, 1);
            while taken < WRITERS * LETTERS {
                // Leaves after a few responses, sometimes with more on the way, and comes back to any server.
                for _ in 0..rand::random_range(1..4) {
                    let response = match try_next(&mut stream).await {
                        Ok(response) => response,
                        // A busy store ends the stream: one more reason to come back.
                        Err(end) if end.code() == Code::Unavailable => break,
                        Err(end) => panic!("{end:?}"),
                    };
                    assert!(response.restarts.is_empty(), "{:?}", response.restarts);
                    taken += response.entries.iter().filter(|entry| entry.text.starts_with(TAKEN)).count();
                    seen.extend(response.entries);
                    token = response.resume_token;
                    if taken == WRITERS * LETTERS {
                        break;
                    }
                }
                stream = open(&servers[rand::random_range(0..2)], Some(token.clone())).await;
                streams += 1;
            }
            (seen, streams)
        });
    }
    let letters = |server: usize| -> Vec<_> {
        let numbers = (0..LETTERS * WRITERS).filter(|number| number % 2 == server);
        numbers.map(|n| letter(&senders[n % WRITERS], &[&format!("r{n}@example.org")])).collect()
    };
    let [one, two] = [[&*servers[0]], [&*servers[1]]];
    tokio::join!(send_all(&one, letters(0)), send_all(&two, letters(1)));
    let mut all_seen = Vec::new();
    while let Some(reader) = readers.join_next().await {
        let (seen, streams) = reader.expect("no panic");
        opened += streams;
        cut += usize::from(streams > 1);
        all_seen.push(seen);
    }
    assert_eq!(cut, READERS, "every reader came back at least once, {opened} streams in all");
    let mut stored = Vec::new();
    for number in 1..=WRITERS {
        stored.extend(first.entries(&format!("send-admin-{number}")).await);
    }
    let stored = by_session(&stored);
    assert!(stored.len() >= WRITERS, "{} sessions", stored.len());
    for seen in all_seen {
        let seen = by_session(&seen);
        assert!(seen.keys().eq(stored.keys()), "every session");
        for (session, entries) in seen {
            assert_eq!(entries, stored[&session], "every entry of {session:?}, once and in order");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_hold_up_nobody() {
    const LETTERS: usize = 100;
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(open(&postroom, None).await);
    }
    let mut reader = open(&postroom, None).await;
    let recipients: Vec<String> = (0..50).map(|number| format!("r{number}@example.org")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let letters = (0..LETTERS).map(|_| letter("shop@example.com", &recipients)).collect();
    let reading = async {
        let mut seen = Vec::new();
        while seen.iter().filter(|entry: &&LogEntry| entry.text.starts_with(TAKEN)).count() < LETTERS {
            seen.extend(next(&mut reader).await.entries);
        }
        seen
    };
    let servers = [&postroom];
    let (seen, _) = tokio::join!(reading, send_all(&servers, letters));
    assert!(seen.len() > LETTERS * 100, "{}", seen.len());
    // Whoever reads in the end is served from the store, and misses nothing.
    let seen = by_session(&seen);
    for stream in &mut stalled[..3] {
        let mut late = Vec::new();
        while late.iter().filter(|entry: &&LogEntry| entry.text.starts_with(TAKEN)).count() < LETTERS {
            late.extend(next(stream).await.entries);
        }
        assert_eq!(by_session(&late), seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_follow_the_order_of_commits() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let mut reader = open(&postroom, None).await;
    next(&mut reader).await;
    // A writer that has its position, and takes its time to commit.
    let mut slow = PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let mut transaction = slow.begin().await.expect("a transaction");
    sqlx::raw_sql(
        "select pg_advisory_xact_lock(1886352244, hashtext('shop'));
         insert into log_chunks (site_id, log_id, session_id, attempt, first_time, last_time, size_bytes, lines)
         select site_id, log_id, gen_random_uuid(), 0, now(), now(), 10, E'0 S slow but first\\n'
         from logs where log_id = 'send-admin-1';",
    )
    .execute(&mut *transaction)
    .await
    .expect("inserted");
    let sending = postroom.send_and_wait(letter("shop@example.com", &["bob@example.org"]));
    let reading = async {
        let committed = AtomicBool::new(false);
        let commit = async {
            // The letter is with the server, whose writer now stands in line.
            while server.journal().letters.len() < 2 {
                tokio::task::yield_now().await;
            }
            committed.store(true, Ordering::SeqCst);
            transaction.commit().await.expect("committed");
        };
        let read = async {
            let mut seen: Vec<LogEntry> = Vec::new();
            while !seen.iter().any(|entry| entry.text.starts_with(TAKEN)) {
                seen.extend(next(&mut reader).await.entries);
                assert!(committed.load(Ordering::SeqCst), "nothing is told before: {seen:?}");
            }
            seen
        };
        tokio::join!(read, commit).0
    };
    let (_, seen) = tokio::join!(sending, reading);
    assert_eq!(seen[0].text, "slow but first");
    assert_eq!(seen.iter().filter(|entry| entry.text == "slow but first").count(), 1);
    assert!(seen.iter().any(|entry| entry.text == "RCPT TO:<bob@example.org>"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_transaction_of_another_database_holds_up_no_tail() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let cluster = cluster().await;
    cluster.create_database("of_somebody_else", None).await.expect("a database");
    let mut other = PgConnection::connect(&cluster.url_of("of_somebody_else")).await.expect("a connection");
    let mut transaction = other.begin().await.expect("a transaction");
    sqlx::raw_sql("create table work (done integer); insert into work values (1);")
        .execute(&mut *transaction)
        .await
        .expect("written");
    let mut reader = open(&postroom, None).await;
    for name in ["ann", "bob"] {
        postroom.send_and_wait(letter("shop@example.com", &[&format!("{name}@example.org")])).await;
        let mut seen: Vec<LogEntry> = Vec::new();
        while !seen.iter().any(|entry| entry.text.starts_with(TAKEN)) {
            seen.extend(next(&mut reader).await.entries);
        }
        assert!(seen.iter().any(|entry| entry.text.contains(name)), "{seen:?}");
    }
    // It was open all the while.
    let done: i32 =
        sqlx::query_scalar("select done from work").fetch_one(&mut *transaction).await.expect("read");
    assert_eq!(done, 1);
    transaction.rollback().await.expect("rolled back");
}
