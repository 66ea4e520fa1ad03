//! Deleting sites: refused while mail waits, gone at once for every caller, then gone altogether; and nothing of it in the
//! next site of that id.

use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::tail_log_entries_request::Start as TailStart;
use postroom::api::proto::watch_events_request::Start as WatchStart;
use postroom::api::proto::{
    CreateSiteRequest, DeleteSiteRequest, GetMessageRequest, GetSettingsRequest, GetSiteRequest,
    ListAccountsRequest, ListLogsRequest, ListMessagesRequest, ListSendersRequest, ListSitesRequest, Message,
    SendMessageRequest, Sender, Settings, Site, TailLogEntriesRequest, WatchEventsRequest,
};
use postroom::domain::access::{Role, Scope};
use postroom::store::departures::{self, Begun};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::binary::{DataDir, Serving};
use crate::desk::{FROM, count, execute, in_millis, settle, shop, start, waiting};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, patiently, plain_account, reason, variable};

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
    use sqlx::{AssertSqlSafe, Connection as _};
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
    let mut settings =
        postroom::api::proto::settings_service_client::SettingsServiceClient::new(first.channel(&operator));
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
    use postroom::api::proto::logs_service_client::LogsServiceClient;
    use postroom::api::proto::send_service_client::SendServiceClient;
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
    let mut settings =
        postroom::api::proto::settings_service_client::SettingsServiceClient::new(second.channel(&own));
    settings.delete_site(DeleteSiteRequest { name: SITE.to_owned(), force: false }).await.expect("deleted");
    let ends = tokio::time::timeout(crate::support::PATIENCE, ends.join_all()).await.expect("all end");
    for end in &ends {
        assert!([Code::NotFound, Code::Unauthenticated].contains(&end.code()), "{end:?}");
    }
    eventually("its keys are dead", async || {
        let request = GetSiteRequest { name: SITE.to_owned() };
        settings.clone().get_site(request).await.err().filter(|end| end.code() == Code::Unauthenticated)
    })
    .await;
}

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
    postroom
        .change_settings(Settings { save_logs: Some(true), log_max_size_mib: Some(3), ..Settings::default() })
        .await;
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
    let mut with_old_key =
        postroom::api::proto::settings_service_client::SettingsServiceClient::new(postroom.channel(&own));
    let dead = with_old_key.get_site(GetSiteRequest { name: SITE.to_owned() }).await.expect_err("dead");
    assert_eq!(dead.code(), Code::Unauthenticated);
}

/// The letter under way comes to its end; those in hand behind it are not begun, and nothing is written into the void.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_under_way_ends_quietly() {
    let server = Behaviour::default().delay("dot", Duration::from_secs(1)).start().await;
    let postroom = Postroom::start().await;
    let limits = Some(postroom::api::proto::Limits { max_connections: Some(1), ..Default::default() });
    postroom.create_account(postroom::api::proto::Account { limits, ..plain_account(&server, FROM) }).await;
    for number in 0..12 {
        let message =
            Message { tags: vec!["x".to_owned()], ..letter(FROM, &[&format!("{number}@example.org")]) };
        crate::desk::submit(&postroom, message).await;
    }
    server.wait_until(|journal| journal.commands.iter().any(|command| command.starts_with("DATA"))).await;
    delete(&postroom, SITE, true).await.expect("deleted");
    wait_until_gone(&postroom, "shop").await;
    assert!(server.journal().letters.len() < 12, "letters in hand were sent on");
    // The recorder goes on: what another site sends is recorded.
    postroom.create_site("other").await;
    postroom.create_account_in("sites/other", plain_account(&server, FROM)).await;
    let request = SendMessageRequest {
        parent: "sites/other".to_owned(),
        message: Some(letter(FROM, &["ann@example.org"])),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..SendMessageRequest::default()
    };
    let sent = postroom.send().send_message(request).await.expect("taken").into_inner().message.expect("set");
    assert_eq!(sent.state(), State::Sent);
    assert_eq!(rows(&postroom, "shop").await, []);
}

/// What is accepted at the moment at which the site is deleted is a reason not to, or is not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn no_letter_slips_in_while_a_site_is_deleted() {
    const ROUNDS: usize = 12;
    let server = Behaviour::default().start().await;
    let first = Postroom::start().await;
    let second = first.another().await;
    let (mut deleted, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let site = first.create_site(&format!("s{round}")).await;
        first.create_account_in(&site, plain_account(&server, FROM)).await;
        let mut sending = JoinSet::new();
        for number in 0..6 {
            let mut send = [&first, &second][number % 2].send();
            let message = Message { send_time: in_millis(3_600_000), ..letter(FROM, &["ann@example.org"]) };
            let request =
                SendMessageRequest { parent: site.clone(), message: Some(message), ..Default::default() };
            sending.spawn(async move { send.send_message(request).await.map(|_| ()) });
        }
        // Each round a little later.
        tokio::time::sleep(Duration::from_millis(u64::try_from(round).expect("few") * 2)).await;
        let answer = delete(&second, &site, false).await;
        let taken = sending.join_all().await.into_iter().filter(Result::is_ok).count();
        match answer {
            Ok(()) => {
                deleted += 1;
                assert_eq!(taken, 0, "letters were accepted and thrown away");
            }
            Err(status) => {
                kept += 1;
                assert_eq!(reason(&status).1, "STATE_CONFLICT");
                let id = site.strip_prefix("sites/").expect("a name");
                let stored =
                    count(&first, &format!("select count(*) from queue where site_id = '{id}'")).await;
                assert_eq!(usize::try_from(stored), Ok(taken));
            }
        }
    }
    assert_eq!(deleted + kept, ROUNDS);
}

/// Deleted in groups, by whoever comes first; what a crash left is gone after the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_site_goes_in_groups_and_after_a_crash() {
    let (_server, mut postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    postroom.stop().await;
    execute(
        &postroom,
        "insert into messages (site_id, message_id, account_id, state, from_address, envelope_sender, rfc_message_id,
                               recipients, attempts, size_bytes, eight_bit, utf8_headers, final_time)
         select 'shop', gen_random_uuid(), m.account_id, m.state, m.from_address, m.envelope_sender, m.rfc_message_id,
                m.recipients, m.attempts, m.size_bytes, false, false, now()
         from messages m, generate_series(1, 100000);
         insert into message_bodies (site_id, message_id, content)
         select 'shop', message_id, convert_to(repeat('x', 1000), 'UTF8') from messages on conflict do nothing;
         insert into log_chunks (site_id, log_id, session_id, attempt, first_time, last_time, size_bytes, lines)
         select 'shop', 'send-admin-1', gen_random_uuid(), 0, now(), now(), 1000, '0 C ' || repeat('x', 1000) || e'\\n'
         from generate_series(1, 20000);
         insert into events (site_id, items) select 'shop', '[{}]' from generate_series(1, 5000);
         insert into lane_usage (site_id, account_id, unit, start_time, transactions, recipients)
         select 'shop', 1, 'minute', now() - n * interval '1 minute', 1, 1 from generate_series(1, 3000) as n",
    )
    .await;
    let store = postroom.store();
    assert_eq!(departures::begin(&store, &shop(), false).await.expect("begun"), Begun::Going { waiting: 0 });
    assert_eq!(departures::begin(&store, &shop(), false).await.expect("answered"), Begun::NotFound);
    assert_eq!(departures::list(&store).await.expect("listed"), [], "not before everybody has noticed");
    // Broken off in the middle of it.
    execute(
        &postroom,
        "update sites set delete_time = now() - interval '1 minute' where site_id = 'shop';
         delete from messages where message_id in (select message_id from messages limit 1000)",
    )
    .await;
    assert_eq!(departures::list(&store).await.expect("listed"), [shop()]);
    store.close().await;
    let begun = Instant::now();
    let first = postroom.another().await;
    let second = postroom.another().await;
    assert_eq!(create(&first).await.expect_err("not yet").code(), Code::FailedPrecondition);
    wait_until_gone(&second, "shop").await;
    println!("100,000 letters and 20,000 chunks were gone after {:?}", begun.elapsed());
    assert_eq!(create(&first).await.expect("free").name, SITE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_deleted_at_the_command_line() {
    let data_dir = DataDir::new();
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
    data_dir.lines(&["key", "create", "--site", SITE, "--role", "admin"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let failed = async |arguments: &[&str], words: &str| {
        let output = data_dir.command(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && errors.contains(words), "{errors}");
    };
    failed(&["site", "delete", "other"], "there is no sites/other").await;
    failed(&["site", "delete", "Shop"], "is no site id").await;
    // Beside a running server, with a letter that waits.
    let server = Behaviour::default().start().await;
    let serving = Serving::start(&data_dir.path(), &[]).await;
    let client = serving.client(&key);
    let request = postroom::api::proto::CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(plain_account(&server, FROM)),
        ..Default::default()
    };
    client.accounts().create_account(request).await.expect("an account");
    let message = Message { send_time: in_millis(3_600_000), ..letter(FROM, &["ann@example.org"]) };
    let request =
        SendMessageRequest { parent: SITE.to_owned(), message: Some(message), ..Default::default() };
    client.send().send_message(request).await.expect("taken");
    failed(&["site", "delete", "shop"], "1 letters of sites/shop wait").await;
    assert_eq!(data_dir.lines(&["site", "delete", "shop", "--force"]).await, [SITE]);
    let name = SITE.to_owned();
    not_found("GetSite", client.settings().get_site(GetSiteRequest { name }).await.map(|_| ()));
    assert!(data_dir.lines(&["site", "list"]).await.is_empty());
    assert_eq!(data_dir.lines(&["key", "list"]).await.len(), 1, "its key went with it");
    // And without one.
    drop(serving);
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
    assert_eq!(data_dir.lines(&["site", "delete", "shop"]).await, [SITE]);
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
}
