//! Word between servers over one database: what one of them records, sends or has no session for, the others hear at once.
//!
//! Letters go one by one, each when the one before was seen. Whoever only looked each second would see one a second; so
//! the time for all of them tells, however busy the machine is.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::{Account, Limits, TailLogEntriesRequest, TailLogEntriesResponse};
use postroom::private_postgres;
use tokio::time::timeout;
use tonic::Streaming;

use crate::cluster::open_store;
use crate::desk::{FROM, count, start};
use crate::eventually::eventually;
use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, PATIENCE, Postroom, SITE, letter, plain_account, vault};

/// Letters sent one by one.
const LETTERS: u32 = 20;
/// What a letter may take on average: a tenth of it is usual, a second the least where it is only looked for (but for the
/// first, which may come just before the look).
const EACH: Duration = Duration::from_millis(800);

/// A tail of all logs from now on, as soon as there is one.
async fn tail(postroom: &Postroom) -> Streaming<TailLogEntriesResponse> {
    eventually("a tail", async || {
        let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
        let mut stream = postroom.logs().tail_log_entries(request).await.ok()?.into_inner();
        stream.message().await.ok()?.map(|_| stream)
    })
    .await
}

/// Reads until the server has taken a letter.
async fn taken(stream: &mut Streaming<TailLogEntriesResponse>) {
    let reading = async {
        loop {
            let entries = stream.message().await.expect("open").expect("it ends with a status").entries;
            if entries.iter().any(|entry| entry.kind() == Kind::Server && entry.text.contains("2.0.0 taken"))
            {
                return;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("entries in time");
}

/// Sends letters at one server, each when a tail at another one has told of the one before.
async fn send_and_follow(sender: &Postroom, stream: &mut Streaming<TailLogEntriesResponse>) {
    let began = Instant::now();
    for number in 0..LETTERS {
        let sent = sender.send_and_wait(letter(FROM, &[&format!("r{number}@example.org")])).await;
        assert_eq!(sent.state(), State::Sent);
        taken(stream).await;
    }
    assert!(began.elapsed() < EACH * LETTERS, "{:?} for {LETTERS} letters", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_hears_at_once_of_a_session_at_another_server() {
    let (_server, first) = start().await;
    let second = first.another().await;
    let mut stream = tail(&second).await;
    send_and_follow(&first, &mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_finds_no_session_here_goes_at_once_through_the_one_elsewhere() {
    let server = Behaviour::default().start().await;
    let first = Postroom::start().await;
    let limits = Some(Limits { max_connections: Some(1), ..Limits::default() });
    first.create_account(Account { limits, ..plain_account(&server, FROM) }).await;
    let second = first.another().await;
    // The first server keeps its session for the next letter.
    let holder = async || count(&first, "select hashtext(holder::text)::bigint from lane_sessions").await;
    first.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let held = holder().await;
    let began = Instant::now();
    for number in 0..LETTERS {
        // Handed in there, sent here, waited for there.
        let sent = second.send_and_wait(letter(FROM, &[&format!("r{number}@example.org")])).await;
        assert_eq!(sent.state(), State::Sent);
    }
    assert!(began.elapsed() < EACH * LETTERS, "{:?} for {LETTERS} letters", began.elapsed());
    assert_eq!(holder().await, held, "the session changed hands: nothing was tested");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_the_database_word_comes_again() {
    let folder = tempfile::Builder::new()
        .prefix("postroom-test")
        // The cluster's user must pass through.
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .expect("a folder");
    let cluster = private_postgres::start(folder.path()).await.expect("a private PostgreSQL");
    let database_url = cluster.database_url();
    let (_keys, vault) = vault();
    let store = open_store(&database_url, vault);
    store.migrate().await.expect("migrations");
    store.close().await;
    let options = Options { database_url: Some(database_url), ..Options::default() };
    let first = Postroom::start_with(options).await;
    let server: Server = Behaviour::default().start().await;
    first.create_account(plain_account(&server, FROM)).await;
    let second = first.another().await;
    let mut before = tail(&second).await;
    send_and_follow(&first, &mut before).await;

    cluster.stop().await.expect("stopped");
    let cluster = private_postgres::start(folder.path()).await.expect("the same PostgreSQL");
    let mut after = tail(&second).await;
    send_and_follow(&first, &mut after).await;
    drop((first, second));
    cluster.stop().await.expect("stopped");
}
