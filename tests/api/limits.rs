//! Limits of accounts: kept and answered, their ranges, masks, and that a change of them is one without a check.

use postroom::api::proto::{
    Account, CreateAccountRequest, GetAccountRequest, Limits, Origin, UpdateAccountRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, plain_account, reason};

/// Limits that differ from every default.
const ALL: Limits = Limits {
    per_minute: Some(30),
    per_hour: Some(500),
    per_day: Some(2_000),
    recipients_per_day: Some(10_000),
    max_connections: Some(2),
    max_recipients: Some(50),
    reserve_percent: Some(20),
};

/// What counts where nothing is set.
const DEFAULTS: Limits = Limits {
    per_minute: None,
    per_hour: None,
    per_day: None,
    recipients_per_day: None,
    max_connections: Some(5),
    max_recipients: Some(100),
    reserve_percent: Some(0),
};

fn limited(server: &Server, limits: Limits) -> Account {
    Account { limits: Some(limits), ..plain_account(server, "shop@example.com") }
}

async fn get(postroom: &Postroom, name: &str) -> Account {
    let request = GetAccountRequest { name: name.to_owned() };
    postroom.accounts().get_account(request).await.expect("found").into_inner().account.expect("set")
}

async fn update(
    postroom: &Postroom,
    name: &str,
    limits: Option<Limits>,
    paths: &[&str],
) -> Result<Account, Status> {
    let account = Account { name: name.to_owned(), limits, ..Account::default() };
    let paths = paths.iter().map(ToString::to_string).collect();
    let request = UpdateAccountRequest {
        account: Some(account),
        update_mask: Some(FieldMask { paths }),
        validate_only: false,
    };
    Ok(postroom.accounts().update_account(request).await?.into_inner().account.expect("set"))
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_kept_and_defaults_filled_in() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let without = postroom.create_account(plain_account(&server, "plain@example.com")).await;
    assert_eq!(without.limits, Some(DEFAULTS));
    let created = postroom.create_account(limited(&server, ALL)).await;
    assert_eq!(created.limits, Some(ALL));
    assert_eq!(get(&postroom, &created.name).await, created);
    let one = Limits { per_day: Some(7), ..Limits::default() };
    let created = postroom.create_account(limited(&server, one)).await;
    assert_eq!(created.limits, Some(Limits { per_day: Some(7), ..DEFAULTS }));

    let validated = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(limited(&server, ALL)),
        validate_only: true,
        ..CreateAccountRequest::default()
    };
    let validated = postroom.accounts().create_account(validated).await.expect("it works").into_inner();
    assert_eq!(validated.account.expect("set").limits, Some(ALL));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_has_its_range() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let created = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let count = 1_000_000_000;
    let most = Limits {
        per_minute: Some(count),
        per_hour: Some(count),
        per_day: Some(count),
        recipients_per_day: Some(count),
        max_connections: Some(100),
        max_recipients: Some(1_000),
        reserve_percent: Some(99),
    };
    let least = Limits {
        per_minute: Some(1),
        per_hour: Some(1),
        per_day: Some(1),
        recipients_per_day: Some(1),
        max_connections: Some(1),
        max_recipients: Some(1),
        reserve_percent: Some(0),
    };
    for right in [most, least] {
        let changed = update(&postroom, &created.name, Some(right), &[]).await.expect("in range");
        assert_eq!(changed.limits, Some(right));
    }
    let before = get(&postroom, &created.name).await;
    let none = Limits::default();
    for (wrong, field) in [
        (Limits { per_minute: Some(0), ..none }, "per_minute"),
        (Limits { per_minute: Some(count + 1), ..none }, "per_minute"),
        (Limits { per_hour: Some(0), ..none }, "per_hour"),
        (Limits { per_hour: Some(u32::MAX), ..none }, "per_hour"),
        (Limits { per_day: Some(0), ..none }, "per_day"),
        (Limits { per_day: Some(count + 1), ..none }, "per_day"),
        (Limits { recipients_per_day: Some(0), ..none }, "recipients_per_day"),
        (Limits { recipients_per_day: Some(count + 1), ..none }, "recipients_per_day"),
        (Limits { max_connections: Some(0), ..none }, "max_connections"),
        (Limits { max_connections: Some(101), ..none }, "max_connections"),
        (Limits { max_recipients: Some(0), ..none }, "max_recipients"),
        (Limits { max_recipients: Some(1_001), ..none }, "max_recipients"),
        (Limits { reserve_percent: Some(100), ..none }, "reserve_percent"),
        (Limits { reserve_percent: Some(u32::MAX), ..none }, "reserve_percent"),
    ] {
        let refused = update(&postroom, &created.name, Some(wrong), &[]).await.expect_err(field);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{wrong:?}");
        assert_eq!(bad_fields(&refused), [format!("account.limits.{field}")], "{wrong:?}");
    }
    assert_eq!(get(&postroom, &created.name).await, before);

    // Told together with whatever else is wrong, before anybody is called.
    let connections = server.journal().connections;
    let wrong = Limits { per_minute: Some(0), reserve_percent: Some(100), ..none };
    let wrong = Account { sender_name: "a\nb".to_owned(), ..limited(&server, wrong) };
    let refused = postroom.try_account(wrong).await.expect_err("three faults");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    assert_eq!(
        fields,
        ["account.limits.per_minute", "account.limits.reserve_percent", "account.sender_name"]
    );
    assert_eq!(server.journal().connections, connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_name_all_limits_or_single_ones() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let name = postroom.create_account(limited(&server, ALL)).await.name;
    let other = Limits { per_minute: Some(1), per_hour: Some(2), ..Limits::default() };
    let changed = async |limits, paths: &[&str]| {
        update(&postroom, &name, limits, paths).await.expect("changed").limits.expect("set")
    };

    assert_eq!(changed(Some(other), &["sender_name"]).await, ALL, "not named");
    let one = changed(Some(other), &["limits.per_minute"]).await;
    assert_eq!(one, Limits { per_minute: Some(1), ..ALL });
    let two = changed(Some(other), &["limits.per_hour", "limits.max_connections"]).await;
    assert_eq!(two, Limits { per_hour: Some(2), max_connections: Some(5), ..one });
    // A path without a value sets the default.
    assert_eq!(changed(None, &["limits.per_day"]).await, Limits { per_day: None, ..two });
    for path in ["per_minute", "per_hour", "recipients_per_day", "max_recipients", "reserve_percent"] {
        changed(None, &[&format!("limits.{path}")]).await;
    }
    assert_eq!(get(&postroom, &name).await.limits, Some(DEFAULTS));

    // The message is replaced whole: named, with everything, or present without a mask.
    let whole = Limits { per_minute: Some(1), per_hour: Some(2), ..DEFAULTS };
    for paths in [["limits"].as_slice(), &["limits", "limits.per_day"], &[]] {
        assert_eq!(changed(Some(ALL), &["limits"]).await, ALL);
        assert_eq!(changed(Some(other), paths).await, whole, "{paths:?}");
    }
    assert_eq!(changed(Some(ALL), &[]).await, ALL);
    assert_eq!(changed(None, &[]).await, ALL, "absent without a mask");
    assert_eq!(changed(None, &["limits"]).await, DEFAULTS);

    for path in ["limits.", "limits.per_week", "limits.per_minute.x", "per_minute", "Limits", "parking"] {
        let refused = update(&postroom, &name, Some(ALL), &["limits", path]).await.expect_err(path);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{path:?}");
        assert_eq!(bad_fields(&refused), ["update_mask.paths[1]"], "{path:?}");
    }
    assert_eq!(get(&postroom, &name).await.limits, Some(DEFAULTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_limits_is_a_change_without_a_check() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let first = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let connections = server.journal().connections;
    let second = update(&postroom, &first.name, Some(ALL), &[]).await.expect("changed");
    assert_ne!(second.etag, first.etag);
    assert_ne!(second.update_time, first.update_time);
    assert_eq!(second.check, first.check, "the check still counts");

    // What is read and written back is no change, and neither is a default that is written out.
    let same = update(&postroom, &first.name, second.limits, &[]).await.expect("no change");
    assert_eq!(same, second);
    let third = update(&postroom, &first.name, None, &["limits"]).await.expect("changed");
    assert_ne!(third.etag, second.etag);
    let same = update(&postroom, &first.name, Some(DEFAULTS), &["limits"]).await.expect("no change");
    assert_eq!(same, third);
    assert_eq!(server.journal().connections, connections, "nobody was called");

    let stale = Account { etag: first.etag, limits: Some(ALL), name: first.name, ..Account::default() };
    let request = UpdateAccountRequest { account: Some(stale), ..UpdateAccountRequest::default() };
    let refused = postroom.accounts().update_account(request).await.expect_err("stale");
    assert_eq!(reason(&refused), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_takes_a_crm_account_over_keeps_its_limits() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let personal = |origin: Origin, limits| Account {
        origin: origin.into(),
        user: "7".to_owned(),
        limits,
        ..plain_account(&server, "ann@example.com")
    };
    let crm = postroom.create_account(personal(Origin::Crm, Some(ALL))).await;
    let mailbox = postroom.create_account(personal(Origin::Mailbox, None)).await;
    assert_eq!((mailbox.name, mailbox.origin), (crm.name, Origin::Mailbox.into()));
    assert_eq!(mailbox.limits, Some(ALL));
}
