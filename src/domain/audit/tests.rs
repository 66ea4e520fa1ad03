//! What notes say.

use super::*;
use crate::domain::account::{Origin, Security};
use crate::domain::address::Address;

const KEY: Uuid = Uuid::from_u128(0x0193_5a3c_0000_7000_8000_0000_0000_0001);
const LETTER: Uuid = Uuid::from_u128(0x0193_5a3c_0000_7000_8000_0000_0000_0002);

fn shop() -> SiteId {
    SiteId::parse("shop").expect("a site")
}

fn profile() -> Profile {
    Profile {
        active: true,
        sender_name: "Shop".to_owned(),
        sender_email: Address::parse("shop@example.com").expect("an address"),
        server: Server { host: "mx.example.com".to_owned(), port: 465, security: Security::ImplicitTls },
        login: Login::Password { username: "shop".to_owned() },
        ownership: Ownership::admin(),
        limits: Limits::default(),
    }
}

fn told(deed: Deed) -> (String, Option<(Uuid, i32)>) {
    let by = Actor::Key { id: KEY, roles: vec![Role::Sender, Role::Auditor] };
    let chunk = Note { by, deed }.chunk(&shop(), OffsetDateTime::UNIX_EPOCH);
    assert_eq!((chunk.log, chunk.session, chunk.entries.len()), (LogId::Audit, None, 1));
    assert_eq!(chunk.entries[0].kind, EntryKind::Audit);
    let text = chunk.entries[0].text.strip_prefix(&format!("key {KEY} (sender, auditor) "));
    (text.expect("who it was").to_owned(), chunk.message)
}

#[test]
fn deeds_are_told_in_one_line() {
    let (two, three) = (LogId::send(Origin::Admin, 2), LogId::check(Origin::Crm, 3));
    let end = OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time");
    let of_shop = Scope::Site(shop());
    let key = |scope, roles, expire_time| {
        Deed::MakeKey(Caller { key_id: LETTER, expire_time, ..Caller::new(scope, roles) })
    };
    let tail = |logs, message| Deed::Read(Reading::Tail { logs, message });
    let table = [
        (
            Deed::Read(Reading::Entries { log: two, message: None }),
            "read sites/shop/logs/send-admin-2".to_owned(),
        ),
        (
            Deed::Read(Reading::Entries { log: two, message: Some(LETTER) }),
            format!("read sites/shop/logs/send-admin-2 about sites/shop/messages/{LETTER}"),
        ),
        (tail(Tailed::All, None), "tailed all logs of sites/shop".to_owned()),
        (
            tail(Tailed::All, Some(LETTER)),
            format!("tailed all logs of sites/shop about sites/shop/messages/{LETTER}"),
        ),
        (tail(Tailed::OfAccount(3), None), "tailed the logs of sites/shop/accounts/3".to_owned()),
        (
            tail(Tailed::These(vec![two, three, LogId::Audit]), None),
            "tailed sites/shop/logs/send-admin-2, sites/shop/logs/check-users-3, sites/shop/logs/audit"
                .to_owned(),
        ),
        (Deed::Read(Reading::Download(two)), "downloaded sites/shop/logs/send-admin-2".to_owned()),
        (Deed::Read(Reading::Content(LETTER)), format!("read the content of sites/shop/messages/{LETTER}")),
        (Deed::ClearLog(LogId::Audit), "cleared sites/shop/logs/audit".to_owned()),
        (Deed::CreateAccount(3), "created sites/shop/accounts/3".to_owned()),
        (Deed::DeleteAccount { account: 3, force: false }, "deleted sites/shop/accounts/3".to_owned()),
        (Deed::DeleteAccount { account: 3, force: true }, "deleted sites/shop/accounts/3 (force)".to_owned()),
        (
            Deed::ChangeSettings(vec!["save_logs", "log_level"]),
            "changed sites/shop/settings: save_logs, log_level".to_owned(),
        ),
        (
            key(of_shop.clone(), vec![Role::Sender], Some(end)),
            format!("made key {LETTER} for sites/shop with the role sender, until 2023-11-14T22:13:20Z"),
        ),
        (
            key(Scope::AllSites, vec![Role::Operator, Role::Auditor], None),
            format!("made key {LETTER} for all sites with the roles operator, auditor"),
        ),
        (Deed::Reseal(1), "sealed 1 secret anew".to_owned()),
        (Deed::Reseal(200), "sealed 200 secrets anew".to_owned()),
        (Deed::RevokeKey { key: LETTER, scope: of_shop }, format!("revoked key {LETTER} for sites/shop")),
    ];
    for (deed, words) in table {
        let is_about_a_letter = words.contains("/messages/");
        let (text, message) = told(deed);
        assert_eq!(text, words);
        assert_eq!(message, is_about_a_letter.then_some((LETTER, 0)), "{words}");
    }
    let by = Actor::CommandLine;
    let note = Note { by, deed: Deed::RevokeKey { key: KEY, scope: Scope::AllSites } };
    let text = &note.chunk(&shop(), end).entries[0].text;
    assert_eq!(*text, format!("the command line revoked key {KEY} for all sites"));
}

#[test]
fn the_same_logs_are_tailed_in_whatever_order() {
    let (one, two) = (LogId::send(Origin::Admin, 1), LogId::send(Origin::Admin, 2));
    let all = LogId::of_account(2);
    for (logs, tailed) in [
        (&[] as &[LogId], Tailed::All),
        (&[two, one, two], Tailed::These(vec![one, two])),
        (&all, Tailed::OfAccount(2)),
        (&all[1..], Tailed::of(&all[1..])),
        (&[LogId::Audit], Tailed::These(vec![LogId::Audit])),
    ] {
        assert_eq!(Tailed::of(logs), tailed);
    }
    assert!(matches!(Tailed::of(&all[1..]), Tailed::These(logs) if logs.len() == 3));
}

#[test]
fn changes_name_what_changed_and_no_value() {
    let change = |change: &dyn Fn(&mut Profile), with_password| {
        let mut after = profile();
        change(&mut after);
        told(Deed::change_account(3, &profile(), &after, with_password)).0
    };
    let start = "changed sites/shop/accounts/3: ";
    for (changed, fields) in [
        (change(&|_| {}, true), "password"),
        (
            change(
                &|after| {
                    after.server.host = "other.example.com".to_owned();
                    after.server.port = 25;
                },
                true,
            ),
            "host, port, password",
        ),
        (change(&|after| after.login = Login::None, false), "auth"),
        (
            change(&|after| after.login = Login::Password { username: "x".to_owned() }, true),
            "username, password",
        ),
        (
            change(
                &|after| {
                    after.active = false;
                    after.sender_name = "Other".to_owned();
                    after.limits.per_day = Some(1);
                    after.ownership.shared = true;
                },
                false,
            ),
            "active, sender_name, shared, limits.per_day",
        ),
    ] {
        assert_eq!(changed, format!("{start}{fields}"));
    }
    let mut crm = profile();
    crm.ownership.origin = Origin::Crm;
    let mut mailbox = crm.clone();
    mailbox.ownership.origin = Origin::Mailbox;
    let turned = "turned sites/shop/accounts/3 from CRM into MAILBOX";
    assert_eq!(told(Deed::change_account(3, &crm, &mailbox, false)).0, turned);
    assert_eq!(told(Deed::change_account(3, &crm, &mailbox, true)).0, format!("{turned}: password"));
}
