//! Logs under load: many that are written at once keep their limit, and nothing that empties, deletes or cleans at the same
//! time stands in the way or takes what it should not.

use std::sync::Arc;
use std::time::Duration;

use postroom::api::proto::{
    Account, DeleteAccountRequest, SendMessageRequest, Settings, UpdateAccountRequest,
};
use postroom::domain::settings::EffectiveSettings;
use postroom::store::{Store, StoreError, cleaning, logs};
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::Code;

use crate::desk::{FROM, count, execute, now, shop, start_unswept};
use crate::scripted::Server;
use crate::support::{Postroom, SITE, letter, plain_account, reason};
use crate::transcripts::{Stepped, chunk, clear, download, listed, log_name};

/// Accounts beside the first one.
const ACCOUNTS: usize = 50;
/// The limit of each log in this file.
const LIMIT: i64 = 1024 * 1024;
/// Text of a chunk; so many chunks are recorded at once, so often, that each log begins afresh once and is half full.
const TEXT_BYTES: usize = 12_000;
const CHUNKS: usize = 13;
const ROUNDS: usize = 10;

/// Accounts 2 to 51, which are never asked to send.
async fn create_accounts(postroom: &Postroom) {
    let statement = format!(
        "insert into accounts (site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security)
         select 'shop', n, false, '', 'a' || n || '@example.com', 'a' || n || '@example.com', '127.0.0.1', 25, 'none'
         from generate_series(2, {LAST}) as n;
         update sites set last_account_id = {LAST}",
    );
    execute(postroom, &statement).await;
}

/// The logs whose size is not the sum of what of them can be read.
const WRONG_SIZES: &str = "
    select count(*)
    from logs l
    where size_bytes <> (
        select coalesce(sum(c.size_bytes), 0)
        from log_chunks c
        where c.site_id = l.site_id and c.log_id = l.log_id and c.position >= l.start_position
    )";

#[tokio::test(flavor = "multi_thread")]
async fn fifty_logs_at_once_keep_their_limit() {
    let (_server, postroom) = start_unswept().await;
    create_accounts(&postroom).await;
    postroom.change_settings(Settings { log_max_size_mib: Some(1), ..Settings::default() }).await;
    let store = postroom.store();
    let mut writers = JoinSet::new();
    for account in 2..2 + ACCOUNTS {
        let (store, shop) = (store.clone(), shop());
        writers.spawn(async move {
            let log = format!("send-admin-{account}");
            for round in 0..ROUNDS {
                let texts: Vec<String> = (0..CHUNKS)
                    .map(|number| format!("{} {}", round * CHUNKS + number, "x".repeat(TEXT_BYTES)))
                    .collect();
                let chunks: Vec<_> = texts.iter().map(|text| chunk(&log, now(), &[text])).collect();
                persistently(|| logs::record(&store, &shop, &[], &chunks)).await;
            }
        });
    }
    // Whoever looks meanwhile sees no log past its limit.
    let mut database = PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let mut looks = 0;
    loop {
        let question = AssertSqlSafe("select coalesce(max(size_bytes), 0) from logs".to_owned());
        let largest: i64 = sqlx::query_scalar(question).fetch_one(&mut database).await.expect("a size");
        assert!(largest <= LIMIT, "{largest}");
        looks += 1;
        match writers.try_join_next() {
            Some(written) => written.expect("no panic"),
            None if writers.is_empty() => break,
            None => tokio::task::yield_now().await,
        }
    }
    assert!(looks > ROUNDS);
    database.close().await.expect("closed");
    assert_eq!(count(&postroom, WRONG_SIZES).await, 0);
    let sending: Vec<_> =
        listed(&postroom).await.into_iter().filter(|log| log.name.contains("send-")).collect();
    assert_eq!(sending.len(), ACCOUNTS);
    for log in &sending {
        let text = download(&postroom, log.name.rsplit('/').next().expect("an id")).await;
        assert_eq!(usize::try_from(log.size_bytes), Ok(text.len()), "{}", log.name);
        // What came last is there, without a gap.
        let numbers: Vec<usize> = text
            .lines()
            .map(|line| line.split(": ").nth(1).and_then(|text| text.split(' ').next()).expect("a number"))
            .map(|number| number.parse().expect("a number"))
            .collect();
        let expected: Vec<usize> = (ROUNDS * CHUNKS - numbers.len()..ROUNDS * CHUNKS).collect();
        assert_eq!(numbers, expected, "{}", log.name);
        assert!(numbers.len() < ROUNDS * CHUNKS, "it began afresh");
    }
    Stepped::over(&postroom).sweep().await;
    let readable: i64 = sending.iter().map(|log| log.size_bytes).sum();
    let left = "select sum(size_bytes)::bigint from log_chunks where log_id like 'send-%'";
    assert_eq!(count(&postroom, left).await, readable, "what was before is gone");
    assert_eq!(count(&postroom, WRONG_SIZES).await, 0);
    store.close().await;
}

/// Again where fifty writers wait for one another longer than the store lets them; not where the database found them in
/// each other's way for good.
async fn persistently<T, Work: Future<Output = Result<T, StoreError>>>(work: impl Fn() -> Work) -> T {
    loop {
        match work().await {
            Ok(done) => return done,
            Err(StoreError::Unavailable(error)) => assert!(!is_deadlock(&error), "{error}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "40P01")
}

/// Rounds of each task of the test that follows.
const TURNS: usize = 60;
/// The account that nobody touches.
const LAST: usize = ACCOUNTS + 1;

#[tokio::test(flavor = "multi_thread")]
async fn recording_clearing_changing_deleting_and_cleaning_get_along() {
    let (server, postroom) = start_unswept().await;
    create_accounts(&postroom).await;
    postroom.change_settings(Settings { log_max_size_mib: Some(1), ..Settings::default() }).await;
    let store = postroom.store();
    let cleaners = async { tokio::join!(keep_cleaning(&store), keep_cleaning(&store)) };
    let writers = async { tokio::join!(keep_writing(&store, 0), keep_writing(&store, 1)) };
    let clearing = async {
        for _ in 0..TURNS {
            for log in ["send-admin-2", "send-admin-3"] {
                let refused = clear(&postroom, log).await.err().map(|status| status.code());
                assert!([None, Some(Code::NotFound)].contains(&refused), "{refused:?}");
            }
        }
    };
    let changing = async {
        for turn in 0..TURNS {
            for account in [4, 2] {
                let account = Account {
                    name: format!("{SITE}/accounts/{account}"),
                    sender_name: format!("Name {turn}"),
                    ..Account::default()
                };
                let request = UpdateAccountRequest { account: Some(account), ..Default::default() };
                postroom.accounts().update_account(request).await.expect("changed");
            }
        }
    };
    let deleting = async {
        for account in (5..LAST).rev() {
            let name = format!("{SITE}/accounts/{account}");
            let request = DeleteAccountRequest { name, ..Default::default() };
            postroom.accounts().delete_account(request).await.expect("deleted");
            // New accounts take the site's row, as forgetting does.
            postroom.create_account(plain_account(&server, &format!("new{account}@example.com"))).await;
        }
    };
    tokio::join!(cleaners, writers, clearing, changing, deleting);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(count(&postroom, deadlocks).await, 0);
    assert_eq!(count(&postroom, WRONG_SIZES).await, 0);
    let marks: Vec<String> =
        postroom.entries(&format!("send-admin-{LAST}")).await.into_iter().map(|e| e.text).collect();
    assert_eq!(marks.len(), TURNS * 4, "nothing of a log that nobody empties is lost");
    for writer in 0..2 {
        let own: Vec<_> = marks.iter().filter(|mark| mark.starts_with(&format!("{writer}-"))).collect();
        let expected: Vec<String> = (0..TURNS * 2).map(|turn| format!("{writer}-{turn}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>(), "in their order");
    }
    for account in [5, 6] {
        let log = format!("send-admin-{account}");
        assert!(listed(&postroom).await.iter().all(|listed| listed.name != log_name(&log)));
        assert_eq!(reason(&clear(&postroom, &log).await.expect_err("gone")).0, Code::NotFound);
    }
    Stepped::over(&postroom).sweep().await;
    let left = "select count(*) from log_chunks where log_id in ('send-admin-5', 'send-admin-6')";
    assert_eq!(count(&postroom, left).await, 0);
    let leavings = "select count(*)
                    from log_chunks c
                    join logs l on l.site_id = c.site_id and l.log_id = c.log_id
                    where c.position < l.start_position or l.has_leavings";
    assert_eq!(count(&postroom, leavings).await, 0);
    store.close().await;
}

/// Records into a log that nobody empties, and into those that others empty.
async fn keep_writing(store: &Store, writer: usize) {
    let shop = shop();
    for turn in 0..TURNS * 2 {
        let filler = |account| chunk(&format!("send-admin-{account}"), now(), &["filler"; 20]);
        let mut chunks: Vec<_> = [2, 3, 4, 5, 6].map(filler).to_vec();
        chunks.push(chunk(&format!("send-admin-{LAST}"), now(), &[&format!("{writer}-{turn}")]));
        // As a batch of the recorder has it: in any order.
        chunks.rotate_left(turn % 6);
        persistently(|| logs::record(store, &shop, &[], &chunks)).await;
    }
}

/// Cleans as if a week had passed, so that logs of deleted accounts are forgotten, too.
async fn keep_cleaning(store: &Store) {
    let (shop, retention) = (shop(), EffectiveSettings::default().message_retention);
    for _ in 0..TURNS {
        persistently(|| logs::restart_due(store, &shop, now())).await;
        let later = now() + Duration::from_hours(8 * 24);
        persistently(|| cleaning::clean(store, &shop, retention, later)).await;
        for site in persistently(|| logs::sites_with_leavings(store)).await {
            persistently(|| logs::drop_leavings(store, &site)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_was_broken_off_leaves_the_rest_to_the_next() {
    let (_server, postroom) = start_unswept().await;
    let store = Stepped::over(&postroom);
    let chunks: Vec<_> = (0..30).map(|_| chunk("send-admin-1", now(), &["old"])).collect();
    store.put(&chunks).await;
    clear(&postroom, "send-admin-1").await.expect("cleared");
    // Another server is deleting them: whoever comes second must not note that nothing is left.
    let mut other = PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let mut transaction = other.begin().await.expect("begun");
    let delete = "delete from log_chunks
                  where position in (select position from log_chunks where log_id = 'send-admin-1' limit 10)";
    sqlx::raw_sql(delete).execute(&mut *transaction).await.expect("deleted");
    store.sweep().await;
    transaction.rollback().await.expect("broken off");
    let left = count(&postroom, "select count(*) from log_chunks where log_id = 'send-admin-1'").await;
    assert_eq!(left, 10, "nobody waited, and what the other was at was left to it");
    store.sweep().await;
    assert_eq!(count(&postroom, "select count(*) from log_chunks where log_id = 'send-admin-1'").await, 0);
    assert_eq!(count(&postroom, "select count(*) from logs where has_leavings").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_although_no_answer_came_is_not_recorded_twice() {
    let (_server, postroom) = start_unswept().await;
    let store = postroom.store();
    let long = "x".repeat(10_000);
    let first = chunk("send-admin-1", now(), &["said once", &long, &long, &long]);
    let second = chunk("send-admin-1", now(), &["said once, in another session"]);
    logs::record(&store, &shop(), &[], std::slice::from_ref(&first)).await.expect("recorded");
    // The answer to that was lost: the recorder tries again, with what came meanwhile.
    for _ in 0..2 {
        logs::record_again(&store, &shop(), &[], &[first.clone(), second.clone()]).await.expect("recorded");
    }
    let texts: Vec<String> =
        postroom.entries("send-admin-1").await.into_iter().map(|entry| entry.text).collect();
    assert_eq!(texts, ["said once", &long, &long, &long, "said once, in another session"]);
    assert_eq!(count(&postroom, WRONG_SIZES).await, 0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_outlives_its_account_leaves_no_log() {
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
            peer.fault("taken");
            peer.say("250 taken\r\n").await?;
            peer.hold().await.map(|_| ())
        }
    })
    .await;
    let mut postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &["ann@example.org"])),
        ..SendMessageRequest::default()
    };
    postroom.send().send_message(request).await.expect("taken");
    // Part of it is stored while the session still runs.
    let part = "select count(*) from log_chunks where log_id = 'send-admin-1'";
    let look = async || (count(&postroom, part).await > 0).then_some(());
    crate::eventually::eventually("part of the transcript", look).await;
    let request = DeleteAccountRequest {
        name: format!("{SITE}/accounts/1"),
        force: true,
        ..DeleteAccountRequest::default()
    };
    postroom.accounts().delete_account(request).await.expect("deleted");
    gate.notify_one();
    server.wait_until(|journal| journal.faults.contains(&"taken".to_owned())).await;
    // A stop waits until all that was said is recorded.
    postroom.restart().await;
    assert!(listed(&postroom).await.iter().all(|log| log.name != log_name("send-admin-1")));
    assert_eq!(reason(&clear(&postroom, "send-admin-1").await.expect_err("gone")).0, Code::NotFound);
    Stepped::over(&postroom).sweep().await;
    assert_eq!(count(&postroom, part).await, 0);
}
