//! Logs as text: the size that is shown is what is downloaded, line for line what is listed; who may have it, and how a
//! download ends before its end.

use std::sync::Arc;

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::{
    Account, CheckAccountRequest, ClearLogRequest, DownloadLogRequest, DownloadLogResponse,
    ListLogEntriesRequest, ListLogsRequest, LogEntry, LogLevel, Settings, TailLogEntriesRequest,
    UpdateAccountRequest, check_account_request::Target,
};
use postroom::domain::access::{Role, Scope};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::desk::{FROM, execute, nanos, now, shop, start_unswept};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{PATIENCE, Postroom, SITE, letter, plain_account, reason, with_login};
use crate::transcripts::{Stepped, chunk, clear, download, listed, log_name, open_download, responses};

/// Texts of a log that is larger than what is on its way to a reader that does not read: a window of 2 MiB, and what the
/// server holds ready.
const LARGE: usize = 512;
/// A response is whole lines of some chunks.
const RESPONSE_BYTES: usize = 512 * 1024;

/// A line of a download, made from an entry as it is listed.
fn line(entry: &LogEntry) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos(&entry.time.expect("set"))).expect("a time");
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let time = time.format(format).expect("a time");
    let who = match entry.kind() {
        Kind::Client => "CLIENT -> SERVER",
        Kind::Server => "SERVER -> CLIENT",
        Kind::Connection => "CONNECTION",
        Kind::Data => "DATA",
        Kind::Error => "ERROR",
        other => panic!("{other:?}"),
    };
    let session = &entry.session[entry.session.len() - 8..];
    format!("{time} [{session}] {who}: {}\n", entry.text)
}

/// Looks whether every log that is listed has the size that is downloaded, and the lines that are listed.
async fn is_of_one_piece(postroom: &Postroom) {
    let logs = listed(postroom).await;
    assert!(!logs.is_empty());
    for log in logs {
        let id = log.name.rsplit('/').next().expect("an id");
        let texts = responses(postroom, &log.name).await.expect("a log");
        for text in &texts {
            assert!(text.ends_with('\n') && text.len() <= RESPONSE_BYTES, "{}: {}", id, text.len());
        }
        let text = texts.concat();
        assert_eq!(usize::try_from(log.size_bytes), Ok(text.len()), "{id}");
        let lines: String = postroom.entries(id).await.iter().map(line).collect();
        assert_eq!(text, lines, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_that_is_shown_is_what_is_downloaded() {
    let from = "shop@example.com";
    let server = Behaviour::default()
        .login("shop", "geheim")
        .on("RCPT TO:<niemand@", "550 5.1.1 Postfach „niemand“ gibt es nicht \u{2603}\r\n")
        .on("RCPT TO:<latin@", b"550 5.1.1 f\xfcr immer \x07 fort\r\n".as_slice())
        .start()
        .await;
    let postroom = Postroom::start().await;
    postroom.create_account(with_login(plain_account(&server, from), "shop", "geheim")).await;
    is_of_one_piece(&postroom).await;
    for level in [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel] {
        postroom.change_settings(Settings { log_level: Some(level.into()), ..Settings::default() }).await;
        for to in ["ann@example.org", "niemand@example.org", "latin@example.org", "zoë@bücher.example"] {
            postroom.send_and_wait(letter(from, &[to])).await;
        }
        let request = CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(Target::Name(format!("{SITE}/accounts/1"))),
            ..CheckAccountRequest::default()
        };
        postroom.accounts().check_account(request).await.expect("checked");
        is_of_one_piece(&postroom).await;
        let text = download(&postroom, "send-admin-1").await;
        assert!(text.contains("„niemand“"), "{level:?}: {text}");
        assert!(!text.contains("geheim") && !text.contains('\x07') && !text.contains('\r'));
        match level {
            LogLevel::ClientServer => clear(&postroom, "send-admin-1").await.expect("cleared"),
            LogLevel::Connection => {
                let account = Account {
                    name: format!("{SITE}/accounts/1"),
                    sender_name: "Neu".to_owned(),
                    ..Account::default()
                };
                let request = UpdateAccountRequest { account: Some(account), ..Default::default() };
                postroom.accounts().update_account(request).await.expect("changed");
            }
            _ => {}
        }
    }
    assert_eq!(listed(&postroom).await.len(), 3);
}

/// A log of several MiB, with long and short lines.
async fn large(postroom: &Postroom) {
    postroom.change_settings(Settings { log_max_size_mib: Some(0), ..Settings::default() }).await;
    let store = Stepped::over(postroom);
    let long = "ü☃".repeat(3_000);
    for round in 0..8 {
        let chunks: Vec<_> = (0..LARGE / 8)
            .map(|number| {
                let text = format!("{round} {number} {long}");
                chunk("send-admin-1", now(), &[&text, "", "250 ok", &text])
            })
            .collect();
        store.put(&chunks).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_log_comes_in_bounded_responses() {
    let (_server, postroom) = start_unswept().await;
    large(&postroom).await;
    let texts = responses(&postroom, &log_name("send-admin-1")).await.expect("a log");
    assert!(texts.len() > 10, "{}", texts.len());
    for text in &texts {
        assert!(text.ends_with('\n') && text.len() <= RESPONSE_BYTES, "{}", text.len());
    }
    let text = texts.concat();
    let shown = listed(&postroom).await.into_iter().find(|log| log.name == log_name("send-admin-1"));
    assert_eq!(shown.map(|log| log.size_bytes), i64::try_from(text.len()).ok());
    // A page takes no more than most clients do, however many entries were asked for.
    let (mut lines, mut page_token) = (String::new(), String::new());
    loop {
        let name = log_name("send-admin-1");
        let request =
            ListLogEntriesRequest { name, page_size: 1_000, page_token, ..ListLogEntriesRequest::default() };
        let page = postroom.logs().list_log_entries(request).await.expect("a page").into_inner();
        lines.extend(page.entries.iter().map(line));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(text == lines, "{} and {} bytes", text.len(), lines.len());
    let (first, last) = (text.lines().next().expect("a line"), text.lines().next_back().expect("a line"));
    assert!(first.contains(": 0 0 ü☃") && last.contains(": 7 63 ü☃"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_meanwhile_is_left_out() {
    let (_server, postroom) = start_unswept().await;
    large(&postroom).await;
    let size = crate::transcripts::size(&postroom, "send-admin-1").await;
    let mut stream = open_download(&postroom, &log_name("send-admin-1")).await.expect("a log");
    let first = stream.message().await.expect("open").expect("text").text;
    Stepped::over(&postroom).put(&[chunk("send-admin-1", now(), &["later"])]).await;
    let rest = rest(stream).await.expect("whole");
    assert_eq!(first.len() + rest.len(), size);
    assert!(!rest.contains("later") && download(&postroom, "send-admin-1").await.contains("later"));
}

/// What comes until the end of the stream.
async fn rest(mut stream: Streaming<DownloadLogResponse>) -> Result<String, Status> {
    let mut text = String::new();
    while let Some(response) = timeout(PATIENCE, stream.message()).await.expect("in time")? {
        text.push_str(&response.text);
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_afresh_meanwhile_ends_its_download() {
    let (_server, postroom) = start_unswept().await;
    for act in ["clear", "change", "delete"] {
        large(&postroom).await;
        let stream = open_download(&postroom, &log_name("send-admin-1")).await.expect("a log");
        match act {
            "clear" => clear(&postroom, "send-admin-1").await.expect("cleared"),
            "change" => {
                let account = Account {
                    name: format!("{SITE}/accounts/1"),
                    sender_name: "New".to_owned(),
                    ..Account::default()
                };
                let request = UpdateAccountRequest { account: Some(account), ..Default::default() };
                postroom.accounts().update_account(request).await.expect("changed");
            }
            _ => {
                let name = format!("{SITE}/accounts/1");
                let request = postroom::api::proto::DeleteAccountRequest { name, ..Default::default() };
                postroom.accounts().delete_account(request).await.expect("deleted");
            }
        }
        // Also where what it held is gone from the store.
        Stepped::over(&postroom).sweep().await;
        let end = rest(stream).await.expect_err("not the whole of it");
        assert_eq!(reason(&end), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()), "{act}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_when_its_key_is_revoked() {
    let (_server, postroom) = start_unswept().await;
    large(&postroom).await;
    let key = postroom.make_key(Scope::Site(shop()), &[Role::Auditor]).await;
    let logs = LogsServiceClient::new(postroom.channel(&key));
    let request = DownloadLogRequest { name: log_name("send-admin-1") };
    let stream = logs.clone().download_log(request.clone()).await.expect("a log").into_inner();
    execute(&postroom, "update keys set revoke_time = now() where roles = '{auditor}'").await;
    // A key is remembered for a moment.
    eventually("the key is dead", async || logs.clone().download_log(request.clone()).await.err()).await;
    let end = rest(stream).await.expect_err("not the whole of it");
    assert_eq!(reason(&end), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_download() {
    let (_server, mut postroom) = start_unswept().await;
    large(&postroom).await;
    let stream = open_download(&postroom, &log_name("send-admin-1")).await.expect("a log");
    let stopped = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&stopped);
    let address = postroom.address.clone();
    let reading = async move {
        // It stops listening first.
        told.notified().await;
        eventually("it stops", async || tokio::net::TcpStream::connect(&address).await.err()).await;
        rest(stream).await
    };
    let stopping = async {
        stopped.notify_one();
        postroom.stop().await;
    };
    let (end, ()) = tokio::join!(reading, stopping);
    let end = end.expect_err("not the whole of it");
    assert_eq!(reason(&end), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
}

/// What each rpc about logs answers to a call about this log of this site.
async fn answers(postroom: &Postroom, key: &str, site: &str, log: &str) -> [Result<(), Status>; 5] {
    let logs = || LogsServiceClient::new(postroom.channel(key));
    let (parent, name) = (format!("sites/{site}"), format!("sites/{site}/logs/{log}"));
    let account = String::new();
    let list = ListLogsRequest { parent: parent.clone(), account, ..ListLogsRequest::default() };
    let entries = ListLogEntriesRequest { name: name.clone(), ..ListLogEntriesRequest::default() };
    let tail = TailLogEntriesRequest { parent, logs: vec![name.clone()], ..TailLogEntriesRequest::default() };
    let download = async {
        let stream = logs().download_log(DownloadLogRequest { name: name.clone() }).await?.into_inner();
        rest(stream).await.map(|_| ())
    };
    [
        logs().list_logs(list).await.map(|_| ()),
        logs().list_log_entries(entries).await.map(|_| ()),
        logs().tail_log_entries(tail).await.map(|_| ()),
        download.await,
        logs().clear_log(ClearLogRequest { name: name.clone() }).await.map(|_| ()),
    ]
}

fn codes(answers: &[Result<(), Status>; 5]) -> [Code; 5] {
    answers.each_ref().map(|answer| answer.as_ref().map_or_else(Status::code, |()| Code::Ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_right_learns_nothing() {
    let (_server, postroom) = start_unswept().await;
    postroom.create_site("other").await;
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let (ok, denied, missing) = (Code::Ok, Code::PermissionDenied, Code::NotFound);
    // ListLogs, ListLogEntries, TailLogEntries, DownloadLog, ClearLog; of a log that is there, and of one that is not.
    for (role, there, nowhere) in [
        (Role::Admin, [ok; 5], [ok, missing, ok, missing, missing]),
        (Role::Operator, [ok; 5], [ok, missing, ok, missing, missing]),
        (Role::Auditor, [ok, ok, ok, ok, denied], [ok, missing, ok, missing, denied]),
        (Role::Sender, [denied; 5], [denied; 5]),
    ] {
        let key = postroom.make_key(Scope::Site(shop()), &[role]).await;
        let own = answers(&postroom, &key, "shop", "send-admin-1").await;
        assert_eq!(codes(&own), there, "{role:?}");
        let gone = answers(&postroom, &key, "shop", "send-admin-9").await;
        assert_eq!(codes(&gone), nowhere, "{role:?}");
        if role != Role::Admin {
            let audit = answers(&postroom, &key, "shop", "audit").await;
            assert_eq!(codes(&audit)[1..], [denied; 4], "{role:?}: {audit:?}");
        }
        // In a site of others, in one that is nowhere: the same words for all of it.
        let others = [
            answers(&postroom, &key, "other", "send-admin-1").await,
            answers(&postroom, &key, "other", "check-admin-0").await,
            answers(&postroom, &key, "nowhere", "send-admin-1").await,
        ];
        for other in others {
            assert_eq!(codes(&other), [denied; 5], "{role:?}");
            let words = |status: &Status| {
                assert_eq!(reason(status).1, "PERMISSION_DENIED");
                status.message().replace("sites/other", "").replace("sites/nowhere", "")
            };
            let told: Vec<String> =
                other.iter().map(|answer| words(answer.as_ref().expect_err("denied"))).collect();
            // ClearLog is another right, and says so.
            assert!(told[..4].iter().all(|text| *text == told[0]), "{told:?}");
        }
        if role == Role::Sender {
            for (own, gone) in own.iter().zip(&gone) {
                let words =
                    |answer: &Result<(), Status>| answer.as_ref().expect_err("denied").message().to_owned();
                assert_eq!(words(own), words(gone));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_exist_is_not_found() {
    let (_server, postroom) = start_unswept().await;
    for log in ["send-admin-1", "check-admin-1", "send-users-1", "check-users-0", "send-admin-9"] {
        let name = log_name(log);
        for refused in [
            responses(&postroom, &name).await.expect_err("no such log"),
            clear(&postroom, log).await.expect_err("no such log"),
        ] {
            assert_eq!(reason(&refused), (Code::NotFound, "NOT_FOUND".to_owned()), "{log}");
            assert!(refused.message().contains(&name), "{refused:?}");
        }
    }
    for name in ["", "x", "sites/shop/logs/x", "sites/shop/logs/send-admin-01", "sites/shop"] {
        let refused = responses(&postroom, name).await.expect_err("no name");
        assert_eq!(reason(&refused).0, Code::InvalidArgument, "{name}");
    }
    // One that is empty is there.
    for _ in 0..2 {
        clear(&postroom, "check-admin-0").await.expect("cleared");
    }
    assert_eq!(responses(&postroom, &log_name("check-admin-0")).await.expect("a log"), [""; 0]);
    assert_eq!(postroom.entries("check-admin-0").await, []);
    assert_eq!(listed(&postroom).await, []);
}
