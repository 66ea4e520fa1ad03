//! Settings of sites: masks, etags, ranges, and what switching a site off does.

use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, AccountPriority, DeleteAccountRequest, GetSettingsRequest, ListAccountsRequest, LogLevel,
    LogRewritePeriod, OnUncertain, SendMessageRequest, Settings, UpdateAccountRequest, UpdateSettingsRequest,
};
use tonic::Code;

use crate::scripted::ordinary::{Behaviour, Then};
use crate::settings_effects::{current, seconds, update};
use crate::support::{Options, Postroom, SITE, bad_fields, letter, plain_account, reason};

#[tokio::test(flavor = "multi_thread")]
async fn settings_begin_as_the_contract_says() {
    let postroom = Postroom::start().await;
    let settings = current(&postroom).await;
    assert_eq!(settings.enabled, Some(true));
    assert_eq!(settings.connection_timeout, Some(seconds(10)));
    assert_eq!(settings.save_logs, Some(true));
    assert_eq!(settings.log_level, Some(LogLevel::ClientServer.into()));
    assert_eq!(settings.log_rewrite_period, Some(LogRewritePeriod::Day.into()));
    assert_eq!(settings.log_max_size_mib, Some(10));
    let hours: Vec<i64> = settings.retry_intervals.iter().map(|interval| interval.seconds / 1_800).collect();
    assert_eq!(hours, [1, 2, 4, 8, 16, 32, 48, 48, 48]);
    assert_eq!(settings.max_messages_per_batch, Some(100));
    assert_eq!(settings.min_batch_interval, Some(seconds(0)));
    assert_eq!(settings.send_in_parts, Some(false));
    assert_eq!(settings.on_uncertain, Some(OnUncertain::Resend.into()));
    assert_eq!(settings.message_retention, Some(seconds(30 * 86_400)));
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
        log_rewrite_period: Some(LogRewritePeriod::Month.into()),
        log_max_size_mib: Some(0),
        retry_intervals: vec![seconds(1_800), seconds(7_200)],
        max_messages_per_batch: Some(7),
        min_batch_interval: Some(prost_types::Duration { seconds: 90, nanos: 5_000_000 }),
        send_in_parts: Some(true),
        on_uncertain: Some(OnUncertain::Hold.into()),
        message_retention: Some(seconds(8 * 86_400)),
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
        "log_rewrite_period",
        "log_max_size_mib",
        "retry_intervals",
        "max_messages_per_batch",
        "min_batch_interval",
        "send_in_parts",
        "on_uncertain",
        "message_retention",
    ] {
        assert_ne!(without_version(current(&postroom).await), without_version(before.clone()), "{path}");
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
    let batch = |count| Settings { max_messages_per_batch: Some(count), ..Settings::default() };
    let between = |seconds, nanos| Settings {
        min_batch_interval: Some(prost_types::Duration { seconds, nanos }),
        ..Settings::default()
    };
    let retention = |seconds, nanos| Settings {
        message_retention: Some(prost_types::Duration { seconds, nanos }),
        ..Settings::default()
    };
    let period = |choice| Settings { log_rewrite_period: Some(choice), ..Settings::default() };
    let log_size = |mib| Settings { log_max_size_mib: Some(mib), ..Settings::default() };
    let uncertain = |choice| Settings { on_uncertain: Some(choice), ..Settings::default() };
    for right in [
        timeout(1, 0),
        timeout(600, 0),
        intervals(&[1_800]),
        intervals(&[2_592_000; 32]),
        batch(1),
        batch(10_000),
        between(0, 0),
        between(86_400, 0),
        retention(604_800, 0),
        retention(3_153_600_000, 0),
        uncertain(0),
        uncertain(2),
        period(0),
        period(4),
        log_size(0),
        log_size(1_048_576),
    ] {
        update(&postroom, right.clone(), &[])
            .await
            .unwrap_or_else(|refused| panic!("{right:?}: {refused:?}"));
    }
    let all = current(&postroom).await;
    assert_eq!(all.max_messages_per_batch, Some(10_000));
    assert_eq!(all.min_batch_interval, Some(seconds(86_400)));
    assert_eq!(all.message_retention, Some(seconds(3_153_600_000)));
    assert_eq!(all.on_uncertain, Some(OnUncertain::Hold.into()));
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
        (period(5), "settings.log_rewrite_period"),
        (period(-1), "settings.log_rewrite_period"),
        (log_size(1_048_577), "settings.log_max_size_mib"),
        (level(99), "settings.log_level"),
        (level(-1), "settings.log_level"),
        (batch(0), "settings.max_messages_per_batch"),
        (batch(10_001), "settings.max_messages_per_batch"),
        (batch(u32::MAX), "settings.max_messages_per_batch"),
        (between(86_400, 1), "settings.min_batch_interval"),
        (between(-1, 0), "settings.min_batch_interval"),
        (between(0, -1), "settings.min_batch_interval"),
        (retention(604_799, 999_999_999), "settings.message_retention"),
        (retention(0, 0), "settings.message_retention"),
        (retention(3_153_600_000, 1), "settings.message_retention"),
        (retention(i64::MAX, i32::MAX), "settings.message_retention"),
        (uncertain(3), "settings.on_uncertain"),
        (uncertain(-1), "settings.on_uncertain"),
    ] {
        let refused = update(&postroom, wrong, &[]).await.expect_err(field);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
        assert_eq!(bad_fields(&refused), [field]);
    }
    assert_eq!(current(&postroom).await, all);
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
    postroom.create_site("other").await;
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
