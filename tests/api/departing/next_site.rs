//! The next site of an id: it shares nothing with the one before.

use std::sync::Arc;

use postroom::api::proto::message::State;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::tail_log_entries_request::Start as TailStart;
use postroom::api::proto::watch_events_request::Start as WatchStart;
use postroom::api::proto::{
    GetMessageRequest, GetSettingsRequest, GetSiteRequest, ListAccountsRequest, ListLogsRequest,
    SendMessageRequest, Sender, Settings, TailLogEntriesRequest, WatchEventsRequest,
};
use postroom::domain::access::{Role, Scope};
use tokio::sync::Notify;
use tonic::{Code, Status};

use super::{create, create_again, delete, not_found};
use crate::desk::{FROM, shop, start};
use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, plain_account, reason};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_site_of_that_id_shares_nothing_with_it() {
    let (server, postroom) = start().await;
    let own = postroom.make_key(Scope::Site(shop()), &[Role::Admin]).await;
    let tail = async |start: Option<TailStart>| -> Result<String, Status> {
        let request =
            TailLogEntriesRequest { parent: SITE.to_owned(), start, ..TailLogEntriesRequest::default() };
        let mut stream = postroom.logs().tail_log_entries(request).await?.into_inner();
        Ok(stream.message().await?.expect("a response").resume_token)
    };
    let watch = async |start: Option<WatchStart>| -> Result<String, Status> {
        let request = WatchEventsRequest { parent: SITE.to_owned(), start, ..WatchEventsRequest::default() };
        let mut stream = postroom.send().watch_events(request).await?.into_inner();
        Ok(stream.message().await?.expect("a response").resume_token)
    };
    let early = (tail(None).await.expect("a token"), watch(None).await.expect("a token"));
    let request = |to: &str| SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &[to])),
        request_id: "order-1".to_owned(),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..SendMessageRequest::default()
    };
    let old = postroom.send().send_message(request("ann@example.org")).await.expect("taken").into_inner();
    let old = old.message.expect("set");
    let sender = Sender {
        sender_email: "box@example.com".to_owned(),
        user: "ann".to_owned(),
        source: postroom::api::proto::sender::Source::Mailbox.into(),
        ..Sender::default()
    };
    let create_sender = async || {
        let request = postroom::api::proto::CreateSenderRequest {
            parent: SITE.to_owned(),
            sender: Some(sender.clone()),
            request_id: "sender-1".to_owned(),
        };
        postroom
            .accounts()
            .create_sender(request)
            .await
            .expect("a sender")
            .into_inner()
            .sender
            .expect("set")
            .name
    };
    let old_sender = create_sender().await;
    let late = (tail(None).await.expect("a token"), watch(None).await.expect("a token"));
    let etag = async || {
        let request = GetSettingsRequest { name: format!("{SITE}/settings") };
        let settings = postroom.settings().get_settings(request).await.expect("settings").into_inner();
        settings.settings.expect("set").etag
    };
    let first = etag().await;
    postroom.change_settings(Settings { log_max_size_mib: Some(3), ..Settings::default() }).await;
    let etags = [first, etag().await];
    delete(&postroom, SITE, false).await.expect("deleted");
    let refused = create(&postroom).await.expect_err("not yet gone");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    let site = create_again(&postroom).await;
    assert_eq!(site.name, SITE);

    // It is empty, with the settings of a new one.
    let settings = GetSettingsRequest { name: format!("{SITE}/settings") };
    let settings =
        postroom.settings().get_settings(settings).await.expect("new").into_inner().settings.expect("set");
    assert_eq!((settings.log_max_size_mib, settings.update_time), (Some(10), None));
    assert!(!etags.contains(&settings.etag), "an etag of before would count");
    not_found(
        "the letter of before",
        postroom.send().get_message(GetMessageRequest { name: old.name.clone() }).await.map(|_| ()),
    );
    let logs = ListLogsRequest { parent: SITE.to_owned(), ..ListLogsRequest::default() };
    assert_eq!(postroom.logs().list_logs(logs).await.expect("listed").into_inner().logs, []);
    // Places of before are none here.
    for token in [&early.0, &late.0] {
        let expired = tail(Some(TailStart::ResumeToken(token.clone()))).await.expect_err("of another site");
        assert_eq!(reason(&expired), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned()));
    }
    for token in [&early.1, &late.1] {
        let expired = watch(Some(WatchStart::ResumeToken(token.clone()))).await.expect_err("of another site");
        assert_eq!(reason(&expired), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned()));
    }
    // Places of its own are, from the first one on.
    let (token, event) = (tail(None).await.expect("a token"), watch(None).await.expect("a token"));
    tail(Some(TailStart::ResumeToken(token))).await.expect("goes on");
    watch(Some(WatchStart::ResumeToken(event))).await.expect("goes on");
    // Nor do its ids and request ids mean what they meant.
    let account = postroom.create_account(plain_account(&server, FROM)).await;
    assert_eq!(account.name, format!("{SITE}/accounts/2"));
    assert_ne!(create_sender().await, old_sender);
    let new =
        postroom.send().send_message(request("bob@example.org")).await.expect("a new request").into_inner();
    let new = new.message.expect("set");
    assert_eq!((new.state(), new.recipients[0].address.as_str()), (State::Sent, "bob@example.org"));
    let logs = ListLogsRequest { parent: SITE.to_owned(), ..ListLogsRequest::default() };
    let logs = postroom.logs().list_logs(logs).await.expect("listed").into_inner().logs;
    assert!(logs.iter().all(|log| !log.name.ends_with("-1")), "{logs:?}");
    // And its keys are dead, now as before.
    let mut with_old_key = SettingsServiceClient::new(postroom.channel(&own));
    let dead = with_old_key.get_site(GetSiteRequest { name: SITE.to_owned() }).await.expect_err("dead");
    assert_eq!(dead.code(), Code::Unauthenticated);
}

/// What a check of an account that is not saved still has to tell when its site is another one is told to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_outlives_its_site_leaves_no_trace_in_the_next() {
    use postroom::api::proto::check_account_request::Target;
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::scripted(move |mut peer| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            peer.say("554 not for you\r\n").await
        }
    })
    .await;
    let postroom = Postroom::start().await;
    let patient = prost_types::Duration { seconds: 60, nanos: 0 };
    postroom.change_settings(Settings { connection_timeout: Some(patient), ..Settings::default() }).await;
    let check = async |target| {
        let request = postroom::api::proto::CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(Target::Account(Box::new(target))),
            ..Default::default()
        };
        postroom.accounts().check_account(request).await
    };
    let late = async {
        server.wait_until(|journal| journal.connections == 1).await;
        delete(&postroom, SITE, false).await.expect("deleted");
        create_again(&postroom).await;
        gate.notify_one();
    };
    let (checked, ()) = tokio::join!(check(plain_account(&server, FROM)), late);
    checked.expect("a report");
    let logs = async || {
        let request = ListLogsRequest { parent: SITE.to_owned(), ..ListLogsRequest::default() };
        let logs = postroom.logs().list_logs(request).await.expect("listed").into_inner().logs;
        logs.into_iter().map(|log| log.name).filter(|name| !name.ends_with("/audit")).collect::<Vec<_>>()
    };
    assert!(logs().await.is_empty());
    // Its own checks are told.
    let polite = Behaviour::default().start().await;
    check(plain_account(&polite, FROM)).await.expect("a report");
    assert_eq!(logs().await, [format!("{SITE}/logs/check-admin-0")]);
}

/// An account is proven for the site that it was asked for. What is proven when that is gone is saved nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_being_proven_is_not_saved_into_the_next() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::scripted(move |peer| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            Arc::new(Behaviour::default()).serve(peer).await
        }
    })
    .await;
    let postroom = Postroom::start().await;
    let patient = prost_types::Duration { seconds: 60, nanos: 0 };
    postroom.change_settings(Settings { connection_timeout: Some(patient), ..Settings::default() }).await;
    let late = async {
        server.wait_until(|journal| journal.connections == 1).await;
        delete(&postroom, SITE, false).await.expect("deleted");
        create_again(&postroom).await;
        gate.notify_one();
    };
    let (created, ()) = tokio::join!(postroom.try_account(plain_account(&server, FROM)), late);
    assert_eq!(reason(&created.expect_err("not its site")), (Code::NotFound, "NOT_FOUND".to_owned()));
    let request = ListAccountsRequest { parent: SITE.to_owned(), ..ListAccountsRequest::default() };
    let accounts = postroom.accounts().list_accounts(request).await.expect("listed").into_inner().accounts;
    assert!(accounts.is_empty(), "{accounts:?}");
}
