//! Logs that begin afresh: by period, by size, with their account and by hand. What they held is gone at once wherever
//! one looks, and every tail that could have told of it is told so once.

mod periods;

use std::time::Duration;

use postroom::api::proto::restart::Cause;
use postroom::api::proto::{
    Account, CheckAccountRequest, DeleteAccountRequest, GetAccountRequest, LogEntry, LogRewritePeriod,
    Settings, TailLogEntriesRequest, UpdateAccountRequest, check_account_request::Target,
};
use time::OffsetDateTime;
use tonic::Code;

use crate::desk::{FROM, count, execute, nanos, now, start_unswept};
use crate::scripted::Server;
use crate::support::{Postroom, SITE, letter, plain_account, reason};
use crate::transcripts::{Stepped, Tail, about, chunk, clear, download, listed, log_name, responses, size};

const OTHER: &str = "other@example.com";
const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);
/// Rather more than half a MiB.
const HALF: usize = 550_000;

/// Account 1 for [`FROM`] and account 2 for [`OTHER`], a letter sent through each, and a server that does not clean.
async fn two_accounts() -> (Server, Postroom, [String; 2]) {
    let (server, postroom) = start_unswept().await;
    postroom.create_account(plain_account(&server, OTHER)).await;
    let one = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let two = postroom.send_and_wait(letter(OTHER, &["bob@example.org"])).await.name;
    (server, postroom, [one, two])
}

async fn rename(postroom: &Postroom, name: &str) {
    let account =
        Account { name: format!("{SITE}/accounts/1"), sender_name: name.to_owned(), ..Account::default() };
    let request = UpdateAccountRequest { account: Some(account), ..UpdateAccountRequest::default() };
    postroom.accounts().update_account(request).await.expect("changed");
}

async fn delete_account(postroom: &Postroom, id: u8) {
    let name = format!("{SITE}/accounts/{id}");
    let request = DeleteAccountRequest { name, ..DeleteAccountRequest::default() };
    postroom.accounts().delete_account(request).await.expect("deleted");
}

/// When the account was changed last.
async fn change_time(postroom: &Postroom, id: u8) -> OffsetDateTime {
    let request = GetAccountRequest { name: format!("{SITE}/accounts/{id}") };
    let account = postroom.accounts().get_account(request).await.expect("found").into_inner().account;
    let time = account.and_then(|account| account.update_time).expect("set");
    OffsetDateTime::from_unix_timestamp_nanos(nanos(&time)).expect("a time")
}

async fn period(postroom: &Postroom, period: LogRewritePeriod) {
    let settings = Settings { log_rewrite_period: Some(period.into()), ..Settings::default() };
    postroom.change_settings(settings).await;
}

async fn limit(postroom: &Postroom, mebibytes: u32) {
    postroom.change_settings(Settings { log_max_size_mib: Some(mebibytes), ..Settings::default() }).await;
}

/// Makes all that account 1 and its log tell of as much older.
async fn age(postroom: &Postroom, hours: u32) {
    let statement = format!(
        "update accounts set update_time = update_time - interval '{hours} hours' where account_id = 1;
         update logs set first_time = first_time - interval '{hours} hours',
                         update_time = update_time - interval '{hours} hours' where log_id = 'send-admin-1';
         update log_chunks set first_time = first_time - interval '{hours} hours',
                               last_time = last_time - interval '{hours} hours' where log_id = 'send-admin-1'"
    );
    execute(postroom, &statement).await;
}

async fn texts(postroom: &Postroom, log: &str) -> Vec<String> {
    postroom.entries(log).await.into_iter().map(|entry| entry.text).collect()
}

/// Tails that can tell of the log `send-admin-1`, and tails that cannot.
fn tails([one, two]: &[String; 2]) -> (Vec<TailLogEntriesRequest>, Vec<TailLogEntriesRequest>) {
    let any = TailLogEntriesRequest::default;
    let of_log = |id: &str| TailLogEntriesRequest { logs: vec![log_name(id)], ..any() };
    let of_account = |id: u8| TailLogEntriesRequest { account: format!("{SITE}/accounts/{id}"), ..any() };
    let of_letter = |name: &String| TailLogEntriesRequest { message: name.clone(), ..any() };
    let both =
        TailLogEntriesRequest { logs: vec![log_name("send-admin-2"), log_name("send-admin-1")], ..any() };
    (
        vec![any(), of_log("send-admin-1"), both, of_account(1), of_letter(one)],
        vec![of_log("send-admin-2"), of_log("check-admin-1"), of_account(2), of_letter(two)],
    )
}

/// Lets the log `send-admin-1` begin afresh, and looks whether every tail is told of it once that can tell of it, be it
/// open or come back with an old token, and goes on; and no other.
async fn is_told(postroom: &Postroom, letters: &[String; 2], cause: Cause, act: impl AsyncFnOnce()) {
    let (concerned, others) = tails(letters);
    let requests =
        || concerned.iter().map(|request| (request, true)).chain(others.iter().map(|r| (r, false)));
    let mut open = Vec::new();
    for (request, _) in requests() {
        open.push(Tail::open(postroom, request).await);
    }
    let old: Vec<String> = open.iter().map(|tail| tail.token.clone()).collect();
    let begin = now();
    act().await;
    let end = now();
    // Entries of what the logs hold now: behind them nothing is told of what was before.
    let store = Stepped::over(postroom);
    let mark = |log, letter: &String| about(chunk(log, now(), &["marked"]), letter);
    let checked = chunk("check-admin-1", now(), &["marked"]);
    store.put(&[mark("send-admin-2", &letters[1]), checked, mark("send-admin-1", &letters[0])]).await;
    let expected = [("send-admin-1".to_owned(), cause)];
    for (((request, is_concerned), mut open), token) in requests().zip(open).zip(old) {
        let again = Tail::resume(postroom, request, &token).await;
        for tail in [&mut open, &mut { again }] {
            tail.until("marked").await;
            let told = tail.told();
            assert_eq!(told, expected[..usize::from(is_concerned)], "{request:?}");
            for restart in &tail.restarts {
                let time = nanos(&restart.time.expect("set"));
                let (begin, end) = (begin.unix_timestamp_nanos(), end.unix_timestamp_nanos());
                // The database keeps microseconds.
                assert!(begin / 1_000 <= time / 1_000 && time <= end, "{begin} {time} {end}");
            }
            let rest = Tail::resume(postroom, request, &tail.token).await;
            assert_eq!(rest.told(), [], "once: {request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cleared_is_empty_wherever_one_looks() {
    let (_server, postroom, letters) = two_accounts().await;
    let other = (texts(&postroom, "send-admin-2").await, size(&postroom, "send-admin-2").await);
    assert!(size(&postroom, "send-admin-1").await > 0);
    is_told(&postroom, &letters, Cause::Cleared, async || {
        clear(&postroom, "send-admin-1").await.expect("cleared");
        assert_eq!(texts(&postroom, "send-admin-1").await, [""; 0]);
        assert_eq!(download(&postroom, "send-admin-1").await, "");
        assert!(listed(&postroom).await.iter().all(|log| log.name != log_name("send-admin-1")));
        let history = TailLogEntriesRequest {
            logs: vec![log_name("send-admin-1")],
            history: 100,
            ..TailLogEntriesRequest::default()
        };
        assert_eq!(Tail::open(&postroom, &history).await.entries, []);
        // Nothing to clear: nobody is told of that.
        clear(&postroom, "send-admin-1").await.expect("cleared again");
    })
    .await;
    assert_eq!(texts(&postroom, "send-admin-1").await, ["marked"]);
    let after = texts(&postroom, "send-admin-2").await;
    assert_eq!(after[..after.len() - 1], other.0);
    assert!(size(&postroom, "send-admin-2").await > other.1);
    let sent = postroom.send_and_wait(letter(FROM, &["cee@example.org"])).await.name;
    let entries = postroom.entries("send-admin-1").await;
    assert!(entries.len() > 1 && entries[1..].iter().all(|entry| entry.message == sent), "{entries:?}");
    // What was cleared is not there any more once the sweep has passed, and the rest is.
    let before = count(&postroom, "select count(*) from log_chunks").await;
    let texts_before = [texts(&postroom, "send-admin-1").await, after];
    Stepped::over(&postroom).sweep().await;
    assert!(count(&postroom, "select count(*) from log_chunks").await < before);
    assert_eq!(
        [texts(&postroom, "send-admin-1").await, texts(&postroom, "send-admin-2").await],
        texts_before
    );
    assert_eq!(count(&postroom, "select count(*) from logs where has_leavings").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_account_empties_its_logs_and_its_own_check_stands_in_them() {
    let (server, postroom, letters) = two_accounts().await;
    is_told(&postroom, &letters, Cause::AccountChanged, async || {
        rename(&postroom, "The Shop").await;
        assert_eq!(texts(&postroom, "send-admin-1").await, [""; 0]);
    })
    .await;
    // The name reaches no server. A port does, and so the account is checked.
    let moved = crate::scripted::ordinary::Behaviour::default().start().await;
    let change = async |port: u16| {
        let account =
            Account { name: format!("{SITE}/accounts/1"), port: u32::from(port), ..Account::default() };
        let request = UpdateAccountRequest { account: Some(account), ..UpdateAccountRequest::default() };
        postroom.accounts().update_account(request).await.map(|_| ())
    };
    let mut tail = Tail::open(
        &postroom,
        &TailLogEntriesRequest { account: format!("{SITE}/accounts/1"), ..Default::default() },
    )
    .await;
    let of_letter = TailLogEntriesRequest { message: letters[0].clone(), ..Default::default() };
    let mut of_letter = Tail::open(&postroom, &of_letter).await;
    for port in [moved.port(), server.port()] {
        change(port).await.expect("changed");
        let check = postroom.entries("check-admin-1").await;
        let greetings = check.iter().filter(|entry| entry.text.starts_with("220 ")).count();
        assert_eq!(greetings, 1, "its own check alone: {check:?}");
        assert!(check.iter().all(|entry| entry.text != "marked"), "{check:?}");
        assert_eq!(texts(&postroom, "send-admin-1").await, [""; 0]);
        assert_eq!(size(&postroom, "check-admin-1").await, download(&postroom, "check-admin-1").await.len());
    }
    tail.until_restarts(3).await;
    let mut told = tail.told();
    told.sort();
    // The log of sessions held nothing at the second change.
    let changed = |id: &str| (id.to_owned(), Cause::AccountChanged);
    assert_eq!(told, [changed("check-admin-1"), changed("check-admin-1"), changed("send-admin-1")]);
    of_letter.until_restarts(1).await;
    assert_eq!(of_letter.told(), [changed("send-admin-1")], "a letter stands in no log of checks");
    // A check that fails changes nothing, and empties nothing.
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    change(1).await.expect_err("nobody listens there");
    // So does a save that changes nothing.
    rename(&postroom, "The Shop").await;
    // Or of the end of a session, which belongs to no letter.
    let is_new = |entry: &LogEntry| entry.message == sent || entry.message.is_empty();
    assert!(postroom.entries("send-admin-1").await.iter().all(is_new));
    assert!(size(&postroom, "send-admin-1").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_a_deleted_account_go_with_it() {
    let (_server, postroom, letters) = two_accounts().await;
    let (concerned, others) = tails(&letters);
    let mut open = Vec::new();
    for request in concerned.iter().chain(&others) {
        open.push(Tail::open(&postroom, request).await);
    }
    let old: Vec<String> = open.iter().map(|tail| tail.token.clone()).collect();
    delete_account(&postroom, 1).await;
    let store = Stepped::over(&postroom);
    // What comes from its last session belongs to nobody.
    let late = about(chunk("send-admin-1", now(), &["late"]), &letters[0]);
    let other = about(chunk("send-admin-2", now(), &["marked"]), &letters[1]);
    store.put(&[late.clone(), chunk("check-admin-1", now(), &["late"])]).await;
    store.put(&[late, other]).await;
    let expected = [("send-admin-1".to_owned(), Cause::AccountDeleted)];
    for ((request, open), token) in concerned.iter().zip(&mut open).zip(&old) {
        let mut again = Tail::resume(&postroom, request, token).await;
        for tail in [&mut again, open] {
            tail.until_restarts(1).await;
            if *request == concerned[0] {
                tail.until("marked").await;
            }
            assert_eq!(tail.told(), expected, "{request:?}");
            assert!(tail.entries.iter().all(|entry| entry.text != "late"), "{request:?}");
            assert_eq!(Tail::resume(&postroom, request, &tail.token).await.told(), [], "once: {request:?}");
        }
    }
    for (request, tail) in others.iter().zip(&mut open[concerned.len()..]) {
        // The log of its checks held nothing.
        if request.logs != [log_name("check-admin-1")] {
            tail.until("marked").await;
            assert_eq!(tail.told(), [], "{request:?}");
        }
    }
    for log in ["send-admin-1", "check-admin-1"] {
        let refused = responses(&postroom, &log_name(log)).await.expect_err("gone");
        assert_eq!(reason(&refused).0, Code::NotFound);
        assert_eq!(reason(&clear(&postroom, log).await.expect_err("gone")).0, Code::NotFound);
        assert!(listed(&postroom).await.iter().all(|listed| listed.name != log_name(log)));
    }
    store.sweep().await;
    let left =
        "select count(*) from log_chunks where log_id not in ('send-admin-2', 'check-admin-0', 'audit')";
    assert_eq!(count(&postroom, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_begins_afresh_before_it_grows_past_its_size() {
    let (_server, postroom, letters) = two_accounts().await;
    let store = Stepped::over(&postroom);
    let half = "ü".repeat(HALF / 2);
    limit(&postroom, 1).await;
    store.put(&[about(chunk("send-admin-1", now(), &["first", &half]), &letters[0])]).await;
    let full = size(&postroom, "send-admin-1").await;
    assert!(full > HALF && texts(&postroom, "send-admin-1").await.contains(&"first".to_owned()));
    is_told(&postroom, &letters, Cause::Size, async || {
        store.put(&[about(chunk("send-admin-1", now(), &[&half]), &letters[0])]).await;
        assert_eq!(texts(&postroom, "send-admin-1").await, std::slice::from_ref(&half));
        assert!(size(&postroom, "send-admin-1").await < full);
    })
    .await;
    // At once more than it takes: the end of it is kept.
    let many: Vec<String> = (0..60).map(|number| format!("{number} {}", "x".repeat(30_000))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    store.put(&[chunk("send-admin-1", now(), &many), chunk("send-admin-1", now(), &["last"])]).await;
    let kept = texts(&postroom, "send-admin-1").await;
    assert_eq!(kept.last().map(String::as_str), Some("last"));
    assert_eq!(kept[..kept.len() - 1], many[many.len() - kept.len() + 1..], "its end, without a gap");
    let shown = size(&postroom, "send-admin-1").await;
    assert!(shown <= 1024 * 1024, "{shown}");
    assert_eq!(download(&postroom, "send-admin-1").await.len(), shown);
    // 0 is no limit.
    limit(&postroom, 0).await;
    for _ in 0..3 {
        store.put(&[chunk("send-admin-1", now(), &many)]).await;
    }
    assert!(size(&postroom, "send-admin-1").await > 4 * 1024 * 1024);
    // A smaller limit counts from the next entry on.
    limit(&postroom, 1).await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    // Or of the end of a session, which belongs to no letter.
    let is_new = |entry: &LogEntry| entry.message == sent || entry.message.is_empty();
    assert!(postroom.entries("send-admin-1").await.iter().all(is_new));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_logs_nothing_is_added_and_what_is_there_stays() {
    let (_server, mut postroom, _) = two_accounts().await;
    // A stop ends the session that is open, which would tell of its end later.
    postroom.restart().await;
    let check = async || {
        let target = Some(Target::Name(format!("{SITE}/accounts/1")));
        let parent = SITE.to_owned();
        let request = CheckAccountRequest { parent, target, ..CheckAccountRequest::default() };
        postroom.accounts().check_account(request).await.expect("checked");
    };
    check().await;
    let before = listed(&postroom).await;
    assert_eq!(before.len(), 4, "{before:?}");
    let save = async |save| {
        postroom.change_settings(Settings { save_logs: Some(save), ..Settings::default() }).await;
    };
    save(false).await;
    check().await;
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(listed(&postroom).await, before);
    // They still begin afresh when their time is over.
    age(&postroom, 24).await;
    Stepped::over(&postroom).restart_due(now()).await;
    assert_eq!(size(&postroom, "send-admin-1").await, 0);
    save(true).await;
    check().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let entries = postroom.entries("send-admin-1").await;
    let is_new = |entry: &LogEntry| entry.message == sent || entry.message.is_empty();
    assert!(!entries.is_empty() && entries.iter().all(is_new), "{entries:?}");
    assert!(size(&postroom, "check-admin-1").await > 0);
}
