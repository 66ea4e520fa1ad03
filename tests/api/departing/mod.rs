//! Deleting sites: refused while mail waits, gone at once for every caller, then gone altogether; and nothing of it in the
//! next site of that id.

mod going;
mod next_site;

use std::time::{Duration, Instant};

use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::message::State;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    CreateSiteRequest, DeleteSiteRequest, GetMessageRequest, GetSettingsRequest, GetSiteRequest,
    ListAccountsRequest, ListLogsRequest, ListMessagesRequest, ListSendersRequest, ListSitesRequest,
    SendMessageRequest, Site, TailLogEntriesRequest, WatchEventsRequest,
};
use postroom::domain::access::{Role, Scope};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::desk::{FROM, settle, shop, start, waiting};
use crate::eventually::eventually;
use crate::support::{PATIENCE, Postroom, SITE, letter, patiently, reason, variable};

/// A site goes five seconds after it was deleted, and then by its size.
const UNTIL_NOTHING_IS_LEFT: Duration = Duration::from_mins(3);

async fn delete(postroom: &Postroom, name: &str, force: bool) -> Result<(), Status> {
    let request = DeleteSiteRequest { name: name.to_owned(), force };
    patiently(async || postroom.settings().delete_site(request.clone()).await).await.map(|_| ())
}

async fn create(postroom: &Postroom) -> Result<Site, Status> {
    let request = CreateSiteRequest { site_id: "shop".to_owned(), site: None };
    Ok(postroom.settings().create_site(request).await?.into_inner().site.expect("set"))
}

/// Creates the site again as soon as its id is free.
async fn create_again(postroom: &Postroom) -> Site {
    let start = Instant::now();
    loop {
        match create(postroom).await {
            Ok(site) => return site,
            Err(status) => {
                assert_eq!(reason(&status), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
                let details = status.get_error_details();
                assert!(details.retry_info().is_some(), "it is worth to try again");
            }
        }
        assert!(start.elapsed() < UNTIL_NOTHING_IS_LEFT, "the id is not free");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Rows that a site has in any table, and the tables.
async fn rows(postroom: &Postroom, site: &str) -> Vec<(String, i64)> {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text
         from information_schema.columns
         where table_schema = 'public' and column_name = 'site_id' and table_name <> 'former_sites'
         order by table_name",
    )
    .fetch_all(&mut database)
    .await
    .expect("tables");
    assert!(tables.len() > 15, "{tables:?}");
    let mut rows = Vec::new();
    for table in tables {
        let question = format!("select count(*) from {table} where site_id = '{site}'");
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut database).await.expect("an answer");
        if count > 0 {
            rows.push((table, count));
        }
    }
    database.close().await.expect("closed");
    rows
}

async fn wait_until_gone(postroom: &Postroom, site: &str) {
    let start = Instant::now();
    loop {
        let left = rows(postroom, site).await;
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < UNTIL_NOTHING_IS_LEFT, "{left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn not_found(what: &str, answer: Result<(), Status>) {
    let status = answer.expect_err(what);
    assert_eq!(reason(&status), (Code::NotFound, "NOT_FOUND".to_owned()), "{what}");
}

/// Whether calls of each kind answer that there is no such site.
async fn assert_gone(postroom: &Postroom, message: &str) {
    let parent = SITE.to_owned();
    let name = SITE.to_owned();
    not_found("GetSite", postroom.settings().get_site(GetSiteRequest { name }).await.map(|_| ()));
    let request = GetSettingsRequest { name: format!("{SITE}/settings") };
    not_found("GetSettings", postroom.settings().get_settings(request).await.map(|_| ()));
    let request = ListAccountsRequest { parent: parent.clone(), ..ListAccountsRequest::default() };
    not_found("ListAccounts", postroom.accounts().list_accounts(request).await.map(|_| ()));
    let request = ListSendersRequest { parent: parent.clone(), ..ListSendersRequest::default() };
    not_found("ListSenders", postroom.accounts().list_senders(request).await.map(|_| ()));
    let request = ListMessagesRequest { parent: parent.clone(), ..ListMessagesRequest::default() };
    not_found("ListMessages", postroom.send().list_messages(request).await.map(|_| ()));
    let request = GetMessageRequest { name: message.to_owned() };
    not_found("GetMessage", postroom.send().get_message(request).await.map(|_| ()));
    let message = Some(letter(FROM, &["ann@example.org"]));
    let request = SendMessageRequest { parent: parent.clone(), message, ..SendMessageRequest::default() };
    not_found("SendMessage", postroom.send().send_message(request).await.map(|_| ()));
    let request = ListLogsRequest { parent: parent.clone(), ..ListLogsRequest::default() };
    not_found("ListLogs", postroom.logs().list_logs(request).await.map(|_| ()));
    let request = TailLogEntriesRequest { parent: parent.clone(), ..TailLogEntriesRequest::default() };
    not_found("TailLogEntries", postroom.logs().tail_log_entries(request).await.map(|_| ()));
    let request = WatchEventsRequest { parent, ..WatchEventsRequest::default() };
    not_found("WatchEvents", postroom.send().watch_events(request).await.map(|_| ()));
    not_found("DeleteSite", delete(postroom, SITE, true).await);
    let sites =
        postroom.settings().list_sites(ListSitesRequest::default()).await.expect("listed").into_inner();
    assert!(sites.sites.iter().all(|site| site.name != SITE), "{sites:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_mail_waits_is_not_deleted_by_mistake() {
    let (_server, first) = start().await;
    let second = first.another().await;
    let queued = waiting(&first, &["ann@example.org"]).await;
    let held = waiting(&first, &["bob@example.org"]).await;
    settle(&first, &held, "uncertain", "uncertain", true).await;
    let sent = first.send_and_wait(letter(FROM, &["eve@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    let before = rows(&first, "shop").await;
    let refused = delete(&first, SITE, false).await.expect_err("two letters wait");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    assert_eq!((variable(&refused, "count"), variable(&refused, "name")), ("2".to_owned(), SITE.to_owned()));
    assert_eq!(rows(&first, "shop").await, before, "all as it was");
    not_found("another site", delete(&first, "sites/other", true).await);

    // Those who may not, of this site and of another one.
    let operator = first.make_key(Scope::Site(shop()), &[Role::Operator]).await;
    let mut settings = SettingsServiceClient::new(first.channel(&operator));
    let request = DeleteSiteRequest { name: SITE.to_owned(), force: true };
    let denied = settings.delete_site(request).await.expect_err("an operator");
    assert_eq!(denied.code(), Code::PermissionDenied);

    first.create_site("other").await;
    let kept = rows(&first, "other").await;
    delete(&first, SITE, true).await.expect("deleted");
    assert_gone(&first, &queued.name).await;
    eventually("gone on the other server", async || {
        let request = GetMessageRequest { name: queued.name.clone() };
        let answer = second.send().get_message(request).await;
        answer.err().filter(|status| status.code() == Code::NotFound)
    })
    .await;
    assert_gone(&second, &queued.name).await;
    wait_until_gone(&first, "shop").await;
    assert_eq!(rows(&first, "other").await, kept);
    assert_gone(&second, &queued.name).await;
}

/// The end of a stream, and how.
async fn end_of<T>(mut stream: tonic::Streaming<T>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream ended without a reason"),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_site_end_with_it() {
    let (_server, first) = start().await;
    let second = first.another().await;
    let own = first.make_key(Scope::Site(shop()), &[Role::Admin]).await;
    let mut ends = JoinSet::new();
    for postroom in [&first, &second] {
        for key in [&postroom.key, &own] {
            let request =
                TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
            let mut logs = LogsServiceClient::new(postroom.channel(key));
            ends.spawn(end_of(logs.tail_log_entries(request).await.expect("a stream").into_inner()));
            let request = WatchEventsRequest { parent: SITE.to_owned(), ..WatchEventsRequest::default() };
            let mut send = SendServiceClient::new(postroom.channel(key));
            ends.spawn(end_of(send.watch_events(request).await.expect("a stream").into_inner()));
        }
    }
    // By the site's own admin.
    let mut settings = SettingsServiceClient::new(second.channel(&own));
    settings.delete_site(DeleteSiteRequest { name: SITE.to_owned(), force: false }).await.expect("deleted");
    let ends = tokio::time::timeout(PATIENCE, ends.join_all()).await.expect("all end");
    for end in &ends {
        assert!([Code::NotFound, Code::Unauthenticated].contains(&end.code()), "{end:?}");
    }
    eventually("its keys are dead", async || {
        let request = GetSiteRequest { name: SITE.to_owned() };
        settings.clone().get_site(request).await.err().filter(|end| end.code() == Code::Unauthenticated)
    })
    .await;
}
