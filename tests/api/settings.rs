//! Sites and their settings: ids, pages, masks, etags, ranges, and what switching a site off does.

use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, AccountPriority, CreateSiteRequest, DeleteAccountRequest, GetSettingsRequest, GetSiteRequest,
    ListAccountsRequest, ListSitesRequest, LogLevel, SendMessageRequest, Settings, Site,
    UpdateAccountRequest, UpdateSettingsRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{Options, Postroom, SITE, bad_fields, letter, plain_account, reason};

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

async fn current(postroom: &Postroom) -> Settings {
    let request = GetSettingsRequest { name: format!("{SITE}/settings") };
    postroom.settings().get_settings(request).await.expect("settings").into_inner().settings.expect("set")
}

async fn update(postroom: &Postroom, settings: Settings, paths: &[&str]) -> Result<Settings, Status> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let settings = Settings { name: format!("{SITE}/settings"), ..settings };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: Some(FieldMask { paths }) };
    let updated = postroom.settings().update_settings(request).await?;
    Ok(updated.into_inner().settings.expect("set"))
}

async fn create_site(postroom: &Postroom, id: &str, display_name: &str) -> Result<Site, Status> {
    let site = Site { display_name: display_name.to_owned(), ..Site::default() };
    let request = CreateSiteRequest { site_id: id.to_owned(), site: Some(site) };
    Ok(postroom.settings().create_site(request).await?.into_inner().site.expect("set"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_created_once_and_found() {
    let postroom = Postroom::start().await;
    let created = create_site(&postroom, "portal-2", "Портал 2").await.expect("a site");
    assert_eq!((created.name.as_str(), created.display_name.as_str()), ("sites/portal-2", "Портал 2"));
    let request = GetSiteRequest { name: "sites/portal-2".to_owned() };
    let found = postroom.settings().get_site(request).await.expect("found").into_inner().site;
    assert_eq!(found, Some(created));

    let again = create_site(&postroom, "portal-2", "").await.expect_err("there is one");
    assert_eq!(reason(&again), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    let request = GetSiteRequest { name: "sites/other".to_owned() };
    let missing = postroom.settings().get_site(request).await.expect_err("there is none");
    assert_eq!(reason(&missing), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_names_of_sites_have_rules() {
    let postroom = Postroom::start().await;
    let long = "a".repeat(64);
    for id in ["", "-", "-a", "Shop", "a_b", "a.b", "a/b", "a b", "sité", "a\n", long.as_str()] {
        let refused = create_site(&postroom, id, "").await.expect_err(id);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{id:?}");
        assert_eq!(bad_fields(&refused), ["site_id"], "{id:?}");
    }
    for id in ["0", "a-", &long[1..]] {
        create_site(&postroom, id, &"ж".repeat(200)).await.expect(id);
    }
    let both = create_site(&postroom, "A", "two\nlines").await.expect_err("two faults");
    assert_eq!(bad_fields(&both), ["site_id", "site.display_name"]);
    let long = create_site(&postroom, "long", &"a".repeat(201)).await.expect_err("too long");
    assert_eq!(bad_fields(&long), ["site.display_name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_in_pages_by_id() {
    let postroom = Postroom::start().await;
    for id in ["zoo", "a-1", "a0", "b"] {
        create_site(&postroom, id, "").await.expect(id);
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListSitesRequest { page_size: 2, page_token };
        let page = postroom.settings().list_sites(request).await.expect("a page").into_inner();
        names.push(page.sites.into_iter().map(|site| site.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, [vec!["sites/a-1", "sites/a0"], vec!["sites/b", "sites/shop"], vec!["sites/zoo"]]);

    let request = ListSitesRequest { page_size: -1, page_token: String::new() };
    let negative = postroom.settings().list_sites(request).await.expect_err("negative");
    assert_eq!(bad_fields(&negative), ["page_size"]);
    let request = ListSitesRequest { page_size: i32::MAX, page_token: String::new() };
    let all = postroom.settings().list_sites(request).await.expect("1,000 at most").into_inner();
    assert_eq!(all.sites.len(), 5);
    for token in ["x", "AAAAAAAAAAAAAAAAAAAAAGEw", "ü", "===="] {
        let request = ListSitesRequest { page_size: 0, page_token: token.to_owned() };
        let forged = postroom.settings().list_sites(request).await.expect_err("forged");
        assert_eq!(bad_fields(&forged), ["page_token"], "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_begin_as_the_contract_says() {
    let postroom = Postroom::start().await;
    let settings = current(&postroom).await;
    assert_eq!(settings.enabled, Some(true));
    assert_eq!(settings.connection_timeout, Some(seconds(10)));
    assert_eq!(settings.save_logs, Some(true));
    assert_eq!(settings.log_level, Some(LogLevel::ClientServer.into()));
    let hours: Vec<i64> = settings.retry_intervals.iter().map(|interval| interval.seconds / 1_800).collect();
    assert_eq!(hours, [1, 2, 4, 8, 16, 32, 48, 48, 48]);
    assert_eq!(settings.update_time, None);
    let request = GetSettingsRequest { name: "sites/other/settings".to_owned() };
    let missing = postroom.settings().get_settings(request).await.expect_err("no such site");
    assert_eq!(reason(&missing).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mask_what_is_present_changes() {
    let postroom = Postroom::start().await;
    let change = Settings { save_logs: Some(false), ..Settings::default() };
    let changed = update(&postroom, change, &[]).await.expect("changed");
    assert_eq!(changed.save_logs, Some(false));
    assert_eq!(changed.enabled, Some(true));
    assert!(changed.update_time.is_some());
    let change = Settings { log_level: Some(LogLevel::LowLevel.into()), ..Settings::default() };
    update(&postroom, change, &[]).await.expect("changed");
    let settings = current(&postroom).await;
    assert_eq!(settings.save_logs, Some(false), "kept");
    assert_eq!(settings.log_level, Some(LogLevel::LowLevel.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_decides_what_changes() {
    let postroom = Postroom::start_with(Options::default()).await;
    let before = current(&postroom).await;
    let all = Settings {
        enabled: Some(false),
        user_accounts_enabled: Some(false),
        require_confirmed_sender: Some(false),
        account_priority: Some(AccountPriority::AdminFirst.into()),
        send_test_on_save: Some(true),
        connection_timeout: Some(seconds(77)),
        save_logs: Some(false),
        log_level: Some(LogLevel::Client.into()),
        retry_intervals: vec![seconds(1_800), seconds(7_200)],
        ..Settings::default()
    };
    let one = update(&postroom, all.clone(), &["connection_timeout"]).await.expect("changed");
    let expected = Settings { connection_timeout: Some(seconds(77)), ..before.clone() };
    assert_eq!(Settings { etag: String::new(), update_time: None, ..one }, without_version(expected));

    let everything = update(&postroom, all.clone(), &["*"]).await.expect("changed");
    let expected = Settings { name: before.name.clone(), ..all };
    assert_eq!(without_version(everything), expected);

    // A path without a value sets the default.
    for path in [
        "enabled",
        "user_accounts_enabled",
        "require_confirmed_sender",
        "account_priority",
        "send_test_on_save",
        "connection_timeout",
        "save_logs",
        "log_level",
        "retry_intervals",
    ] {
        update(&postroom, Settings::default(), &[path]).await.expect(path);
    }
    assert_eq!(without_version(current(&postroom).await), without_version(before));
}

fn without_version(settings: Settings) -> Settings {
    Settings { etag: String::new(), update_time: None, ..settings }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_cannot_be_changed_are_refused() {
    let postroom = Postroom::start().await;
    let before = current(&postroom).await;
    for path in ["name", "update_time", "retry", "settings.enabled", "enabled.x", "", "Enabled"] {
        let change = Settings { enabled: Some(false), ..Settings::default() };
        let refused = update(&postroom, change, &["enabled", path]).await.expect_err(path);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{path:?}");
        assert_eq!(bad_fields(&refused), ["update_mask.paths[1]"], "{path:?}");
    }
    assert_eq!(current(&postroom).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_etag_is_refused_and_a_save_without_change_is_none() {
    let postroom = Postroom::start().await;
    let first = current(&postroom).await;
    let change =
        |etag: &str, on| Settings { etag: etag.to_owned(), save_logs: Some(on), ..Settings::default() };
    let second = update(&postroom, change(&first.etag, false), &[]).await.expect("fresh");
    assert_ne!(second.etag, first.etag);
    let stale = update(&postroom, change(&first.etag, true), &[]).await.expect_err("stale");
    assert_eq!(reason(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));

    let same = update(&postroom, change(&second.etag, false), &[]).await.expect("no change");
    assert_eq!(same, second);
    let explicit = Settings { connection_timeout: second.connection_timeout, ..Settings::default() };
    let same = update(&postroom, explicit, &[]).await.expect("what it is already");
    assert_eq!(same, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_has_its_range() {
    let postroom =
        Postroom::start_with(Options { retry_floor: Duration::from_mins(30), ..Options::default() }).await;
    let timeout = |seconds, nanos| Settings {
        connection_timeout: Some(prost_types::Duration { seconds, nanos }),
        ..Settings::default()
    };
    let intervals = |all: &[i64]| Settings {
        retry_intervals: all.iter().copied().map(seconds).collect(),
        ..Settings::default()
    };
    for right in [timeout(1, 0), timeout(600, 0), intervals(&[1_800]), intervals(&[2_592_000; 32])] {
        update(&postroom, right, &[]).await.expect("in range");
    }
    let level = |level| Settings { log_level: Some(level), ..Settings::default() };
    for (wrong, field) in [
        (timeout(0, 999_999_999), "settings.connection_timeout"),
        (timeout(600, 1), "settings.connection_timeout"),
        (timeout(-1, 0), "settings.connection_timeout"),
        (timeout(2, -1), "settings.connection_timeout"),
        (timeout(0, 2_000_000_000), "settings.connection_timeout"),
        (timeout(i64::MAX, i32::MAX), "settings.connection_timeout"),
        (timeout(i64::MIN, i32::MIN), "settings.connection_timeout"),
        (intervals(&[1_799]), "settings.retry_intervals[0]"),
        (intervals(&[1_800, 2_592_001]), "settings.retry_intervals[1]"),
        (intervals(&[1_800, 1_800, -5]), "settings.retry_intervals[2]"),
        (intervals(&[1_800; 33]), "settings.retry_intervals"),
        (level(99), "settings.log_level"),
        (level(-1), "settings.log_level"),
    ] {
        let refused = update(&postroom, wrong, &[]).await.expect_err(field);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
        assert_eq!(bad_fields(&refused), [field]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_told_at_once() {
    let postroom =
        Postroom::start_with(Options { retry_floor: Duration::from_mins(30), ..Options::default() }).await;
    let wrong = Settings {
        connection_timeout: Some(seconds(0)),
        log_level: Some(7),
        retry_intervals: vec![seconds(1), seconds(1_800), seconds(2)],
        ..Settings::default()
    };
    let refused = update(&postroom, wrong, &["*", "name"]).await.expect_err("five faults");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    let expected = [
        "settings.connection_timeout",
        "settings.log_level",
        "settings.retry_intervals[0]",
        "settings.retry_intervals[2]",
        "update_mask.paths[1]",
    ];
    assert_eq!(fields, expected);
    // However many there are, at most 20 are told.
    let wrong = Settings { retry_intervals: vec![seconds(1); 32], ..Settings::default() };
    let refused = update(&postroom, wrong, &[]).await.expect_err("32 faults");
    assert_eq!(bad_fields(&refused).len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_off_neither_sends_nor_changes_accounts() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    postroom.change_settings(Settings { enabled: Some(false), ..Settings::default() }).await;
    let connections = server.journal().connections;

    let off = (Code::FailedPrecondition, "SITE_DISABLED".to_owned());
    let request = |validate_only| SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        validate_only,
        ..SendMessageRequest::default()
    };
    for validate_only in [false, true] {
        let refused = postroom.send().send_message(request(validate_only)).await.expect_err("off");
        assert_eq!(reason(&refused), off);
    }
    let refused = postroom.try_account(plain_account(&server, "b@example.com")).await.expect_err("off");
    assert_eq!(reason(&refused), off);
    let change = Account { name: account.name.clone(), sender_name: "Shop".to_owned(), ..Account::default() };
    let request = UpdateAccountRequest { account: Some(change), ..UpdateAccountRequest::default() };
    assert_eq!(reason(&postroom.accounts().update_account(request).await.expect_err("off")), off);
    let request = DeleteAccountRequest { name: account.name.clone(), ..DeleteAccountRequest::default() };
    assert_eq!(reason(&postroom.accounts().delete_account(request).await.expect_err("off")), off);
    assert_eq!(server.journal().connections, connections, "nobody was called");

    // Reading stays possible.
    let request = ListAccountsRequest { parent: SITE.to_owned(), ..ListAccountsRequest::default() };
    let accounts = postroom.accounts().list_accounts(request).await.expect("read").into_inner().accounts;
    assert_eq!(accounts, [account]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_site_that_is_off_waits_until_it_is_on_again() {
    let later = "451 4.3.0 later\r\n";
    let server = Behaviour::default().once("RCPT TO:<waits@", later, Then::GoOn).once(
        "RCPT TO:<passes@",
        later,
        Then::GoOn,
    );
    let server = server.start().await;
    let postroom = Postroom::start().await;
    create_site(&postroom, "other", "").await.expect("a site");
    let account = plain_account(&server, "shop@example.com");
    postroom.create_account(account.clone()).await;
    let request = postroom::api::proto::CreateAccountRequest {
        parent: "sites/other".to_owned(),
        account: Some(account),
        ..postroom::api::proto::CreateAccountRequest::default()
    };
    postroom.accounts().create_account(request).await.expect("an account");
    for (site, wait) in [(SITE, 1), ("sites/other", 2)] {
        let settings = Settings {
            name: format!("{site}/settings"),
            retry_intervals: vec![seconds(wait), seconds(60)],
            ..Settings::default()
        };
        let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
        postroom.settings().update_settings(request).await.expect("settings");
    }
    let send = |site: &str, to: &str, wait| SendMessageRequest {
        parent: site.to_owned(),
        message: Some(letter("shop@example.com", &[to])),
        request_id: "one".to_owned(),
        wait: Some(seconds(wait)),
        ..SendMessageRequest::default()
    };
    postroom.send().send_message(send(SITE, "waits@example.org", 0)).await.expect("taken");
    server.wait_until(|journal| journal.faults.len() == 1).await;
    postroom.change_settings(Settings { enabled: Some(false), ..Settings::default() }).await;

    // The other site's letter is due later: when it is sent, ours has been due for long.
    let passed = postroom.send().send_message(send("sites/other", "passes@example.org", 30)).await;
    let passed = passed.expect("taken").into_inner().message.expect("set");
    assert_eq!(passed.state(), State::Sent);
    assert_eq!(passed.attempts.len(), 2);
    let list = postroom::api::proto::ListMessagesRequest { parent: SITE.to_owned(), ..Default::default() };
    let waiting = postroom.send().list_messages(list).await.expect("read").into_inner().messages;
    assert_eq!(waiting[0].state(), State::Queued);
    assert_eq!(waiting[0].attempts.len(), 1);
    assert!(waiting[0].next_attempt_time.map(|due| due.seconds) <= passed.final_time.map(|end| end.seconds));

    postroom.change_settings(Settings { enabled: Some(true), ..Settings::default() }).await;
    let sent = postroom.send().send_message(send(SITE, "waits@example.org", 30)).await;
    assert_eq!(sent.expect("taken").into_inner().message.expect("set").state(), State::Sent);
}
