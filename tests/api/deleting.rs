//! Deleting accounts: mail that waits, the account it finds instead, and the logs that go.

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, DeleteAccountRequest, ListLogEntriesRequest, ListLogsRequest, Message, SendMessageRequest,
    recipient,
};
use postroom::domain::audit::{Actor, Deed, Note};
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, plain_account, reason, variable};

/// A server that takes no letter for now.
async fn busy_server() -> Server {
    Behaviour::default().on("MAIL FROM:<shop@", "451 4.3.0 later\r\n").start().await
}

async fn busy_account(postroom: &Postroom, server: &Server) -> Account {
    let account = Account { active: Some(false), ..plain_account(server, "shop@example.com") };
    let account = postroom.create_account(account).await;
    // The check would be refused as the letter is: it is switched on behind the API's back.
    let store = postroom.store();
    let id = account.name.rsplit('/').next().and_then(|id| id.parse().ok()).expect("a number");
    let site = postroom::domain::site::SiteId::parse("shop").expect("a site");
    let mut stored = postroom::store::accounts::find(&store, &site, id).await.expect("read").expect("there");
    stored.profile.active = true;
    let keep = postroom::store::checks::CheckChange::Keep;
    let note =
        Note { by: Actor::CommandLine, deed: Deed::ChangeAccount { account: id, fields: vec!["active"] } };
    let replaced =
        postroom::store::accounts::replace(&store, &stored, None, keep, None, &note).await.expect("written");
    assert!(matches!(replaced, postroom::store::accounts::Replaced::Saved));
    store.close().await;
    account
}

/// Sends a letter that waits after its first attempt.
async fn waiting_letter(postroom: &Postroom, server: &Server) -> Message {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        request_id: "one".to_owned(),
        ..SendMessageRequest::default()
    };
    postroom.send().send_message(request.clone()).await.expect("taken");
    server.wait_until(|journal| !journal.faults.is_empty()).await;
    // Answers at the next wake-up, which is the attempt's record, or after this second.
    let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let waiting = loop {
        let request = SendMessageRequest { wait, ..request.clone() };
        let message = postroom.send().send_message(request).await.expect("known").into_inner().message;
        if let Some(message) = message.filter(|message| !message.attempts.is_empty()) {
            break message;
        }
    };
    assert_eq!(waiting.state(), State::Queued);
    waiting
}

async fn delete(postroom: &Postroom, name: &str, etag: &str, force: bool) -> Result<(), Status> {
    let request = DeleteAccountRequest { name: name.to_owned(), etag: etag.to_owned(), force };
    postroom.accounts().delete_account(request).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_waiting_mail_is_not_deleted_by_mistake() {
    let server = busy_server().await;
    let postroom = Postroom::start().await;
    let account = busy_account(&postroom, &server).await;
    let waiting = waiting_letter(&postroom, &server).await;
    let refused = delete(&postroom, &account.name, "", false).await.expect_err("mail waits");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    assert_eq!(variable(&refused, "count"), "1");
    assert_eq!(postroom.message(&waiting.name).await.state(), State::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_force_waiting_mail_goes_through_another_account() {
    let (server, other) = (busy_server().await, Behaviour::default().start().await);
    let postroom = Postroom::start().await;
    let substitute = postroom.create_account(plain_account(&other, "SHOP@example.com")).await;
    let account = busy_account(&postroom, &server).await;
    let settings = postroom::api::proto::Settings {
        retry_intervals: vec![prost_types::Duration { seconds: 3, nanos: 0 }],
        ..Default::default()
    };
    postroom.change_settings(settings).await;
    let waiting = waiting_letter(&postroom, &server).await;
    assert_eq!(waiting.account, account.name, "the newer one was chosen");
    delete(&postroom, &account.name, "", true).await.expect("deleted");
    assert_eq!(postroom.message(&waiting.name).await.account, substitute.name);
    other.wait_until(|journal| journal.letters.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_force_waiting_mail_fails_where_no_account_is_left() {
    let server = busy_server().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "other@example.com")).await;
    let account = busy_account(&postroom, &server).await;
    let waiting = waiting_letter(&postroom, &server).await;
    delete(&postroom, &account.name, "", true).await.expect("deleted");
    let failed = postroom.message(&waiting.name).await;
    assert_eq!(failed.state(), State::Failed);
    assert!(failed.final_time.is_some() && failed.next_attempt_time.is_none());
    assert_eq!(failed.recipients[0].state(), recipient::State::Failed);
    let reply = failed.recipients[0].reply.clone().expect("set");
    assert!(reply.text.contains("NO_MATCHING_ACCOUNT"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_deleted_once_and_in_the_version_that_was_meant() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let stale = delete(&postroom, &account.name, "account-7", false).await.expect_err("stale");
    assert_eq!(reason(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    delete(&postroom, &account.name, &account.etag, false).await.expect("deleted");
    let gone = delete(&postroom, &account.name, "", false).await.expect_err("gone");
    assert_eq!(reason(&gone), (Code::NotFound, "NOT_FOUND".to_owned()));
    let gone = delete(&postroom, &account.name, &account.etag, false).await.expect_err("gone");
    assert_eq!(reason(&gone), (Code::NotFound, "NOT_FOUND".to_owned()));
    let nobody = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        ..SendMessageRequest::default()
    };
    let nobody = postroom.send().send_message(nobody).await.expect_err("nobody is left");
    assert_eq!(reason(&nobody), (Code::FailedPrecondition, "NO_MATCHING_ACCOUNT".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_an_account_go_with_it() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let kept = postroom.create_account(plain_account(&server, "kept@example.com")).await;
    for from in ["shop@example.com", "kept@example.com"] {
        postroom.send_and_wait(letter(from, &["ann@example.org"])).await;
    }
    let request = postroom::api::proto::CheckAccountRequest {
        parent: SITE.to_owned(),
        target: Some(postroom::api::proto::check_account_request::Target::Name(account.name.clone())),
        ..Default::default()
    };
    postroom.accounts().check_account(request).await.expect("checked");
    let logs = async |account: &str| -> Vec<String> {
        let request = ListLogsRequest {
            parent: SITE.to_owned(),
            account: account.to_owned(),
            ..ListLogsRequest::default()
        };
        let logs = postroom.logs().list_logs(request).await.expect("a page").into_inner().logs;
        logs.into_iter().map(|log| log.name.replace("sites/shop/logs/", "")).collect()
    };
    assert_eq!(logs("").await, ["check-admin-0", "check-admin-1", "send-admin-1", "send-admin-2", "audit"]);
    assert_eq!(logs(&account.name).await, ["check-admin-1", "send-admin-1"]);
    delete(&postroom, &account.name, "", false).await.expect("deleted");
    assert_eq!(logs("").await, ["check-admin-0", "send-admin-2", "audit"]);
    assert_eq!(logs(&kept.name).await, ["send-admin-2"]);
    let request = ListLogEntriesRequest {
        name: format!("{SITE}/logs/send-admin-1"),
        ..ListLogEntriesRequest::default()
    };
    let gone = postroom.logs().list_log_entries(request).await.expect_err("gone");
    assert_eq!(reason(&gone), (Code::NotFound, "NOT_FOUND".to_owned()));
}
