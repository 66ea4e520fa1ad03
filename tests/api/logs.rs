//! Stored transcripts: logs and their entries in pages and by filter, the four levels, and none where none are wanted.

use std::collections::BTreeSet;

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::{
    ListLogEntriesRequest, ListLogEntriesResponse, ListLogsRequest, Log, LogEntry, LogLevel, Settings,
};
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason, with_login};

const FROM: &str = "shop@example.com";

async fn with_account() -> (Postroom, Server) {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = plain_account(&server, FROM);
    let account = postroom::api::proto::Account { sender_name: "Der Laden".to_owned(), ..account };
    postroom.create_account(account).await;
    (postroom, server)
}

async fn page(postroom: &Postroom, request: ListLogEntriesRequest) -> Result<ListLogEntriesResponse, Status> {
    let name = format!("{SITE}/logs/send-admin-1");
    let request = ListLogEntriesRequest { name, ..request };
    Ok(postroom.logs().list_log_entries(request).await?.into_inner())
}

fn time(entry: &LogEntry) -> (i64, i32) {
    entry.time.map(|time| (time.seconds, time.nanos)).expect("set")
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_carry_what_portals_show() {
    let (postroom, server) = with_account().await;
    postroom.create_account(plain_account(&server, "b@example.com")).await;
    for from in [FROM, "b@example.com"] {
        postroom.send_and_wait(letter(from, &["ann@example.org"])).await;
    }
    let list = async |page_size, page_token: &str| {
        let page_token = page_token.to_owned();
        let request =
            ListLogsRequest { parent: SITE.to_owned(), page_size, page_token, ..ListLogsRequest::default() };
        postroom.logs().list_logs(request).await.expect("a page").into_inner()
    };
    let all = list(0, "").await;
    assert_eq!(all.next_page_token, "");
    let shown = |log: &Log| {
        let Log { file_name, account, sender_name, sender_email, tags, .. } = log.clone();
        let account = account.replace("sites/shop/accounts/", "");
        [file_name, account, sender_name, sender_email, tags.join(" ")].join("|")
    };
    let expected = [
        "check_admin_smtp_0.log||||[Check]",
        "send_admin_smtp_1.log|1|Der Laden|shop@example.com|[Sending]",
        "send_admin_smtp_2.log|2||b@example.com|[Sending]",
        "audit.log||||[Audit]",
    ];
    assert_eq!(all.logs.iter().map(shown).collect::<Vec<_>>(), expected);
    let first = list(2, "").await;
    let second = list(2, &first.next_page_token).await;
    assert_eq!([first.logs, second.logs].concat(), all.logs);
    assert_eq!(second.next_page_token, "");
    // Reading is noted in the log audit, which grows with it.
    for log in all.logs.iter().filter(|log| log.file_name != "audit.log") {
        let entries = postroom.entries(log.name.rsplit('/').next().expect("an id")).await;
        let texts: usize = entries.iter().map(|entry| entry.text.len()).sum();
        assert!(usize::try_from(log.size_bytes).is_ok_and(|size| size >= texts), "{log:?}");
        let last = entries.iter().map(time).max();
        assert_eq!(log.update_time.map(|time| (time.seconds, time.nanos)), last, "{log:?}");
    }
    let bound = ListLogsRequest {
        parent: SITE.to_owned(),
        page_token: first.next_page_token,
        account: format!("{SITE}/accounts/1"),
        ..ListLogsRequest::default()
    };
    let refused = postroom.logs().list_logs(bound).await.expect_err("another list's token");
    assert_eq!(bad_fields(&refused), ["page_token"]);
    let negative = ListLogsRequest { parent: SITE.to_owned(), page_size: -1, ..ListLogsRequest::default() };
    assert_eq!(bad_fields(&postroom.logs().list_logs(negative).await.expect_err("negative")), ["page_size"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_by_kind_session_letter_and_time() {
    let (mut postroom, _server) = with_account().await;
    let first = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    // A stop ends the session that is open.
    postroom.restart().await;
    let second = postroom.send_and_wait(letter(FROM, &["bob@example.org"])).await.name;
    let any = ListLogEntriesRequest::default;
    let all = page(&postroom, any()).await.expect("a page").entries;
    let sessions: BTreeSet<_> = all.iter().map(|entry| entry.session.clone()).collect();
    assert_eq!(sessions.len(), 2, "{all:?}");
    let session = all.last().expect("entries").session.clone();
    let middle = &all[all.len() / 2];
    for (request, keeps) in [
        (
            ListLogEntriesRequest { kinds: vec![Kind::Client.into()], ..any() },
            &(|entry: &LogEntry| entry.kind() == Kind::Client) as &dyn Fn(&LogEntry) -> bool,
        ),
        (ListLogEntriesRequest { kinds: vec![Kind::Error.into(), Kind::Data.into()], ..any() }, &|_| false),
        (ListLogEntriesRequest { session: session.clone(), ..any() }, &|entry| entry.session == session),
        (ListLogEntriesRequest { message: first.clone(), ..any() }, &|entry| entry.message == first),
        (
            ListLogEntriesRequest { message: second.clone(), kinds: vec![Kind::Server.into()], ..any() },
            &|entry| entry.message == second && entry.kind() == Kind::Server,
        ),
        (ListLogEntriesRequest { start_time: middle.time, ..any() }, &|entry| time(entry) >= time(middle)),
        (ListLogEntriesRequest { end_time: middle.time, ..any() }, &|entry| time(entry) < time(middle)),
        (ListLogEntriesRequest { start_time: middle.time, end_time: middle.time, ..any() }, &|_| false),
    ] {
        let expected: Vec<_> = all.iter().filter(|entry| keeps(entry)).cloned().collect();
        assert_eq!(page(&postroom, request.clone()).await.expect("a page").entries, expected, "{request:?}");
        // The same in small pages.
        let (mut told, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListLogEntriesRequest { page_size: 3, page_token: token, ..request.clone() };
            let part = page(&postroom, request).await.expect("a page");
            assert!(part.entries.len() <= 3);
            told.extend(part.entries);
            token = part.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(told, expected, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_entries_are_bound_to_their_filter() {
    let (postroom, _server) = with_account().await;
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let first = ListLogEntriesRequest { page_size: 2, ..ListLogEntriesRequest::default() };
    let token = page(&postroom, first).await.expect("a page").next_page_token;
    assert_ne!(token, "");
    let other = ListLogEntriesRequest {
        page_token: token.clone(),
        kinds: vec![Kind::Client.into()],
        ..ListLogEntriesRequest::default()
    };
    let refused = page(&postroom, other).await.expect_err("another list's token");
    assert_eq!(bad_fields(&refused), ["page_token"]);
    let name = format!("{SITE}/logs/check-admin-0");
    let other = ListLogEntriesRequest { name, page_token: token, ..ListLogEntriesRequest::default() };
    let refused = postroom.logs().list_log_entries(other).await.expect_err("another log's token");
    assert_eq!(bad_fields(&refused), ["page_token"]);
    for (log, code) in
        [("send-admin-9", Code::NotFound), ("check-admin-1", Code::NotFound), ("x", Code::InvalidArgument)]
    {
        let name = format!("{SITE}/logs/{log}");
        let request = ListLogEntriesRequest { name, ..ListLogEntriesRequest::default() };
        assert_eq!(reason(&postroom.logs().list_log_entries(request).await.expect_err(log)).0, code, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_keeps_more_of_the_same_letter() {
    let password = "correct horse";
    let server = Behaviour::default().login("shop", password).start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(with_login(plain_account(&server, FROM), "shop", password)).await;
    let levels = [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel];
    let kinds = [Kind::Client, Kind::Server, Kind::Connection, Kind::Data];
    let mut counts = Vec::new();
    for (reach, level) in levels.into_iter().enumerate() {
        postroom.change_settings(Settings { log_level: Some(level.into()), ..Settings::default() }).await;
        // A change of the account ends the session, so that each level sees a login.
        let change = postroom::api::proto::Account {
            name: format!("{SITE}/accounts/1"),
            sender_name: format!("Level {reach}"),
            ..Default::default()
        };
        let request =
            postroom::api::proto::UpdateAccountRequest { account: Some(change), ..Default::default() };
        postroom.accounts().update_account(request).await.expect("changed");
        let name = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
        let request =
            ListLogEntriesRequest { message: name, page_size: 1_000, ..ListLogEntriesRequest::default() };
        let entries = page(&postroom, request).await.expect("a page").entries;
        let told: BTreeSet<i32> = entries.iter().map(|entry| entry.kind).collect();
        let expected: BTreeSet<i32> = kinds[..=reach].iter().map(|kind| i32::from(*kind)).collect();
        assert_eq!(told, expected, "{level:?}: {entries:?}");
        let content = entries.iter().any(|entry| entry.text.contains("It travels."));
        assert_eq!(content, level == LogLevel::LowLevel, "content stands at the last level alone");
        assert!(
            entries.iter().any(|entry| entry.text.starts_with("AUTH") && entry.text.contains("<hidden>"))
        );
        let secret = crate::scripted::ordinary::base64(format!("\0shop\0{password}").as_bytes());
        for secret in [password, &secret] {
            assert!(!entries.iter().any(|entry| entry.text.contains(secret)), "{level:?}: {entries:?}");
        }
        counts.push(entries.len());
    }
    assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_kept_at_every_level_and_nothing_where_logs_are_off() {
    let server = Behaviour::default().on("RCPT TO:<nobody@", "550 5.1.1 no such user\r\n").start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    for level in [LogLevel::Client, LogLevel::LowLevel] {
        postroom.change_settings(Settings { log_level: Some(level.into()), ..Settings::default() }).await;
        let name = postroom.send_and_wait(letter(FROM, &["nobody@example.org"])).await.name;
        let kinds = vec![Kind::Error.into()];
        let request = ListLogEntriesRequest { message: name, kinds, ..ListLogEntriesRequest::default() };
        let errors = page(&postroom, request).await.expect("a page").entries;
        assert!(errors.iter().any(|entry| entry.text.contains("550 5.1.1 no such user")), "{errors:?}");
    }
    let before = postroom.entries("send-admin-1").await;
    postroom.change_settings(Settings { save_logs: Some(false), ..Settings::default() }).await;
    for to in ["nobody@example.org", "ann@example.org"] {
        postroom.send_and_wait(letter(FROM, &[to])).await;
    }
    assert_eq!(server.journal().letters.len(), 1);
    // The session of before has said good-bye since, which belongs to no letter; nothing came of a new one.
    let known: BTreeSet<_> = before.iter().map(|entry| entry.session.clone()).collect();
    let after = postroom.entries("send-admin-1").await;
    let (told, ended): (Vec<_>, Vec<_>) = after.into_iter().partition(|entry| !entry.message.is_empty());
    let before: Vec<_> = before.into_iter().filter(|entry| !entry.message.is_empty()).collect();
    assert_eq!(told, before);
    assert!(ended.iter().all(|entry| known.contains(&entry.session)), "{ended:?}");
}
