//! The log `audit` as it is read: by admins alone, live, cleared, and noting its readers now and then.

use std::sync::Arc;
use std::time::Instant;

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{
    ClearLogRequest, DownloadLogRequest, ListLogEntriesRequest, ListLogsRequest, Log, Settings,
    TailLogEntriesRequest, restart,
};
use postroom::domain::access::{Role, Scope};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{Auditor, Person};
use crate::desk::{FROM, count, start};
use crate::support::{PATIENCE, Postroom, SITE, letter, reason};

fn audit_tail() -> TailLogEntriesRequest {
    TailLogEntriesRequest { logs: vec![format!("{SITE}/logs/audit")], ..TailLogEntriesRequest::default() }
}

fn from_the_beginning() -> TailLogEntriesRequest {
    let beginning = prost_types::Timestamp { seconds: 0, nanos: 0 };
    TailLogEntriesRequest { start: Some(Start::StartTime(beginning)), ..TailLogEntriesRequest::default() }
}

async fn list(person: &Person) -> Vec<Log> {
    let request = ListLogsRequest { parent: SITE.to_owned(), ..ListLogsRequest::default() };
    person.logs().list_logs(request).await.expect("a page").into_inner().logs
}

/// Whatever can be asked about a log.
async fn ask(person: &Person, site: &str, log: &str) -> Vec<Result<(), Status>> {
    let name = format!("{site}/logs/{log}");
    let list = ListLogEntriesRequest { name: name.clone(), ..ListLogEntriesRequest::default() };
    let tail = TailLogEntriesRequest {
        parent: site.to_owned(),
        logs: vec![name.clone()],
        ..TailLogEntriesRequest::default()
    };
    vec![
        person.logs().list_log_entries(list).await.map(|_| ()),
        person.logs().download_log(DownloadLogRequest { name: name.clone() }).await.map(|_| ()),
        person.logs().clear_log(ClearLogRequest { name }).await.map(|_| ()),
        person.logs().tail_log_entries(tail).await.map(|_| ()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_admin_learns_nothing_of_it() {
    let (_server, postroom) = start().await;
    let told = |status: &Status| (status.message().to_owned(), status.details().to_vec());
    let nobody = Person::of(&postroom, Role::Sender, Scope::AllSites).await;
    // What a key hears that may read no logs, of one that does not exist.
    let missing = ask(&nobody, SITE, "send-admin-99").await.remove(0).expect_err("no right");
    for role in [Role::Operator, Role::Sender, Role::Auditor] {
        let person = Person::of(&postroom, role, Scope::AllSites).await;
        for site in [SITE, "sites/nowhere"] {
            for answer in ask(&person, site, "audit").await {
                let refused = answer.expect_err("not an admin");
                assert_eq!(reason(&refused), (Code::PermissionDenied, "PERMISSION_DENIED".to_owned()));
                assert_eq!(told(&refused), told(&missing), "{role:?} {site}");
            }
        }
        // Not beside another log either, nor by way of an account.
        let logs = vec![format!("{SITE}/logs/check-admin-0"), format!("{SITE}/logs/audit")];
        let refused = person.tail(TailLogEntriesRequest { logs, ..Default::default() }).await;
        assert_eq!(refused.map(|_| ()).expect_err("no right").code(), Code::PermissionDenied);
        if role != Role::Sender {
            assert_eq!(list(&person).await.len(), 1, "the check of the new account");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_find_it_behind_all_others() {
    let (_server, postroom) = start().await;
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let admin = Person::new(&postroom, Role::Admin).await;
    let logs = list(&admin).await;
    let names: Vec<_> = logs.iter().map(|log| log.file_name.as_str()).collect();
    assert_eq!(names, ["check_admin_smtp_0.log", "send_admin_smtp_1.log", "audit.log"]);
    let audit = logs.last().expect("logs");
    assert_eq!((audit.name.as_str(), &audit.tags), ("sites/shop/logs/audit", &vec!["[Audit]".to_owned()]));
    assert_eq!((&*audit.account, &*audit.sender_name, &*audit.sender_email), ("", "", ""));
    // What is noted of the download itself comes behind what is downloaded.
    let text = admin.download("audit").await.expect("text");
    assert_eq!(usize::try_from(audit.size_bytes).expect("a size"), text.len());
    assert_eq!(text.lines().count(), 2, "the account, and this key: {text}");
    assert!(text.lines().all(|line| line.contains("Z AUDIT: ")), "{text}");
    let after = list(&admin).await.pop().expect("logs").size_bytes;
    let note = admin.did("downloaded sites/shop/logs/audit");
    let line = "2026-11-22T01:11:52.123456Z AUDIT: \n".len() + note.len();
    assert_eq!(after - audit.size_bytes, i64::try_from(line).expect("short"));
    let own = admin.entries("audit").await.expect("entries").split_off(2);
    let own: Vec<_> = own.into_iter().map(|entry| entry.text).collect();
    assert_eq!(own, [note, admin.did("read sites/shop/logs/audit")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_for_those_who_name_it_and_hidden_from_all_others() {
    let (_server, postroom) = start().await;
    let admin = Person::new(&postroom, Role::Admin).await;
    let history = TailLogEntriesRequest { history: 1_000, ..TailLogEntriesRequest::default() };
    let mut others = Vec::new();
    for request in [from_the_beginning(), history] {
        others.push(admin.tail(request).await.expect("a tail"));
    }
    let mut tail = admin.tail(audit_tail()).await.expect("a tail");
    let own = admin.did("tailed sites/shop/logs/audit");
    let first = tail.until(&own).await;
    assert_eq!(first.len(), 1, "that it is tailed, and once: {first:?}");

    let opened = Instant::now();
    let settings = Settings { send_in_parts: Some(true), ..Settings::default() };
    admin.change_settings(settings).await.expect("changed");
    let changed = admin.did("changed sites/shop/settings: send_in_parts");
    let entries = tail.until(&changed).await;
    assert!(opened.elapsed() < PATIENCE / 2);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].kind(), Kind::Audit);
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    for mut other in others {
        let entries = other.until("2.0.0 taken").await;
        assert!(entries.iter().all(|entry| entry.kind() != Kind::Audit), "{entries:?}");
    }
    // One that comes back sees what was noted meanwhile, and then, on another replica, itself.
    let another = postroom.another().await;
    let request = TailLogEntriesRequest { start: Some(Start::ResumeToken(tail.token)), ..audit_tail() };
    let again = Person { channel: another.channel(&postroom.key), ..admin };
    admin_clears(&postroom).await;
    let mut tail = again.tail(request).await.expect("resumed");
    let entries = tail.until("tailed sites/shop/logs/audit").await;
    assert!(entries[0].text.ends_with("cleared sites/shop/logs/check-admin-0"), "{entries:?}");
    assert_eq!(entries.len(), 2, "{entries:?}");
}

async fn admin_clears(postroom: &Postroom) {
    let name = format!("{SITE}/logs/check-admin-0");
    postroom.logs().clear_log(ClearLogRequest { name }).await.expect("cleared");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleared_it_holds_who_cleared_it() {
    let (_server, postroom) = start().await;
    let (admin, reader) =
        (Person::new(&postroom, Role::Admin).await, Person::new(&postroom, Role::Admin).await);
    let mut tail = reader.tail(audit_tail()).await.expect("a tail");
    tail.until("tailed sites/shop/logs/audit").await;
    admin.clear("audit").await.expect("cleared");
    let told = loop {
        let response = tail.next().await.expect("open");
        if !response.restarts.is_empty() {
            break response;
        }
    };
    let restarts: Vec<_> = told.restarts.iter().map(|r| (r.log.as_str(), r.cause())).collect();
    assert_eq!(restarts, [("sites/shop/logs/audit", restart::Cause::Cleared)]);
    let cleared = admin.did("cleared sites/shop/logs/audit");
    let [entry] = told.entries.as_slice() else { panic!("{:?}", told.entries) };
    assert_eq!(entry.text, cleared);
    let text = reader.download("audit").await.expect("text");
    let (_time, told) = text.split_once(" AUDIT: ").expect("an entry");
    assert_eq!(told, format!("{cleared}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_and_again_is_noted_once() {
    let (_server, postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let (auditor, reader) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let reader = Arc::new(reader);
    let before = auditor.texts().await;
    let poll = async || {
        for _ in 0..5 {
            reader.entries("send-admin-1").await.expect("entries");
            reader.download("send-admin-1").await.expect("text");
            reader.tail(TailLogEntriesRequest::default()).await.expect("a tail");
            reader.content(&sent).await.expect("content");
            // Pages of one list are one reading.
            let mut request = ListLogEntriesRequest {
                name: format!("{SITE}/logs/send-admin-1"),
                page_size: 2,
                ..ListLogEntriesRequest::default()
            };
            loop {
                let page =
                    reader.logs().list_log_entries(request.clone()).await.expect("a page").into_inner();
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
        }
    };
    // All at once first, so that most arrive while the first one is being noted.
    let mut reading = JoinSet::new();
    for _ in 0..40 {
        let reader = Arc::clone(&reader);
        reading.spawn(async move {
            loop {
                match reader.download("send-admin-1").await {
                    // A busy store is asked again.
                    Err(status) if status.code() == Code::Unavailable => {}
                    text => return text.expect("text").len(),
                }
            }
        });
    }
    let lengths = timeout(PATIENCE, reading.join_all()).await.expect("an end in time");
    assert!(lengths.iter().all(|length| *length > 0));
    tokio::join!(poll(), poll());
    let mut told = auditor.texts().await.split_off(before.len());
    told.sort_unstable();
    let mut expected = [
        reader.did("read sites/shop/logs/send-admin-1"),
        reader.did("downloaded sites/shop/logs/send-admin-1"),
        reader.did("tailed all logs of sites/shop"),
        reader.did(&format!("read the content of {sent}")),
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
    // Another key is another reader, and changes are told each time.
    let another = Person::new(&postroom, Role::Auditor).await;
    another.entries("send-admin-1").await.expect("entries");
    for on in [true, false, true] {
        let settings = Settings { send_in_parts: Some(on), ..Settings::default() };
        reader.change_settings(settings).await.expect("changed");
    }
    let read = "select count(*) from log_chunks where log_id = 'audit' and lines like '%read sites/shop/logs/send-admin-1%'";
    assert_eq!(count(&postroom, read).await, 2);
    let changed = reader.did("changed sites/shop/settings: send_in_parts");
    let told = auditor.texts().await;
    assert_eq!(told[told.len() - 3..], [changed.clone(), changed.clone(), changed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tail_of_a_site_begins_before_the_site() {
    let postroom = Postroom::start().await;
    let request = TailLogEntriesRequest { parent: "sites/nowhere".to_owned(), ..Default::default() };
    let refused =
        postroom.logs().tail_log_entries(request).await.map(|_| ()).expect_err("it could not be noted");
    assert_eq!(reason(&refused), (Code::NotFound, "NOT_FOUND".to_owned()));
}
