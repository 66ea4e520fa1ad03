//! Each deed appears once, with who did it, in order.

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{
    Account, CreateAccountRequest, DeleteAccountRequest, Limits, ListLogEntriesRequest, LogLevel, Origin,
    Settings, TailLogEntriesRequest,
};
use postroom::domain::access::{Role, Scope};
use postroom::store::keys;

use super::{Auditor, Person};
use crate::desk::{FROM, count, execute, start};
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, plain_account};

pub(super) fn creation(account: Account) -> CreateAccountRequest {
    CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(account),
        ..CreateAccountRequest::default()
    }
}

pub(super) fn deletion(id: i64, force: bool) -> DeleteAccountRequest {
    DeleteAccountRequest { name: format!("{SITE}/accounts/{id}"), force, etag: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_deed_is_told_with_who_did_it_in_order() {
    let (server, postroom) = start().await;
    let auditor = Auditor::new(&postroom).await;
    let before = auditor.texts().await;
    let operator = Person::new(&postroom, Role::Operator).await;
    let reader = Person::new(&postroom, Role::Auditor).await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;

    operator
        .accounts()
        .create_account(creation(plain_account(&server, "b@example.com")))
        .await
        .expect("made");
    let account = |id: i64| Account { name: format!("{SITE}/accounts/{id}"), ..Account::default() };
    let limits = Some(Limits { per_day: Some(9), ..Limits::default() });
    let change = Account { sender_name: "Shop".to_owned(), shared: Some(true), limits, ..account(2) };
    operator.change_account(change).await.expect("changed");
    let settings = Settings {
        save_logs: Some(true),
        log_level: Some(LogLevel::Connection.into()),
        send_in_parts: Some(true),
        ..Settings::default()
    };
    operator.change_settings(settings).await.expect("changed");
    reader.entries("send-admin-1").await.expect("entries");
    let name = format!("{SITE}/logs/send-admin-1");
    let about = ListLogEntriesRequest { name: name.clone(), message: sent.clone(), ..Default::default() };
    reader.logs().list_log_entries(about).await.expect("entries");
    let any = TailLogEntriesRequest::default;
    let first = reader.tail(any()).await.expect("a tail");
    reader.tail(TailLogEntriesRequest { account: account(1).name, ..any() }).await.expect("a tail");
    let logs = vec![format!("{SITE}/logs/check-admin-2"), name];
    reader.tail(TailLogEntriesRequest { logs, message: sent.clone(), ..any() }).await.expect("a tail");
    reader.download("send-admin-1").await.expect("text");
    operator.content(&sent).await.expect("content");
    let token = Some(Start::ResumeToken(first.token));
    operator
        .tail(TailLogEntriesRequest { start: token, ..any() })
        .await
        .expect("goes on where another ended");
    operator.clear("send-admin-1").await.expect("cleared");
    operator.accounts().delete_account(deletion(2, false)).await.expect("deleted");
    operator.accounts().delete_account(deletion(1, true)).await.expect("deleted");
    let store = postroom.store();
    assert!(keys::revoke(&store, reader.id).await.expect("revoked"));
    store.close().await;

    let entries = auditor.entries().await;
    let made = |person: &Person| {
        let role = person.role.name();
        format!("the command line made key {} for {SITE} with the role {role}", person.id)
    };
    let expected = [
        made(&operator),
        made(&reader),
        operator.did("created sites/shop/accounts/2"),
        operator.did("changed sites/shop/accounts/2: sender_name, shared, limits.per_day"),
        operator.did("changed sites/shop/settings: log_level, send_in_parts"),
        reader.did("read sites/shop/logs/send-admin-1"),
        reader.did(&format!("read sites/shop/logs/send-admin-1 about {sent}")),
        reader.did("tailed all logs of sites/shop"),
        reader.did("tailed the logs of sites/shop/accounts/1"),
        reader
            .did(&format!("tailed sites/shop/logs/send-admin-1, sites/shop/logs/check-admin-2 about {sent}")),
        reader.did("downloaded sites/shop/logs/send-admin-1"),
        operator.did(&format!("read the content of {sent}")),
        operator.did("tailed all logs of sites/shop"),
        operator.did("cleared sites/shop/logs/send-admin-1"),
        operator.did("deleted sites/shop/accounts/2"),
        operator.did("deleted sites/shop/accounts/1 (force)"),
        format!("the command line revoked key {} for {SITE}", reader.id),
    ];
    let texts: Vec<_> = entries.iter().map(|entry| entry.text.clone()).collect();
    assert_eq!(texts, [before, expected.to_vec()].concat());
    for entry in &entries {
        assert_eq!((entry.kind(), entry.log.as_str()), (Kind::Audit, "sites/shop/logs/audit"));
        assert_eq!((entry.session.as_str(), entry.attempt), ("", 0));
        let message = if entry.text.contains(&sent) { sent.as_str() } else { "" };
        assert_eq!(entry.message, message, "{}", entry.text);
    }
    // Commands have clocks of their own.
    let by_keys = entries.iter().filter(|entry| entry.text.starts_with("key "));
    let times: Vec<_> = by_keys.map(|entry| entry.time.map(|time| (time.seconds, time.nanos))).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_is_told_as_such() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let (auditor, operator) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let crm = Account {
        origin: Origin::Crm.into(),
        user: "140".to_owned(),
        ..plain_account(&server, "ann@example.com")
    };
    operator.accounts().create_account(creation(crm)).await.expect("made");
    let mailbox = Account {
        sender_name: "Ann".to_owned(),
        sender_email: "ann@example.com".to_owned(),
        origin: Origin::Mailbox.into(),
        user: "140".to_owned(),
        ..Account::default()
    };
    // The same call answers the same, and is noted once.
    let request = CreateAccountRequest { request_id: "one".to_owned(), ..creation(mailbox) };
    for _ in 0..2 {
        operator.accounts().create_account(request.clone()).await.expect("taken over");
    }
    let told = auditor.texts().await.split_off(1);
    let turned = "turned sites/shop/accounts/1 from CRM into MAILBOX: sender_name";
    assert_eq!(told, [operator.did("created sites/shop/accounts/1"), operator.did(turned)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_settings_nor_a_site_that_is_off_stop_it() {
    let (_server, postroom) = start().await;
    let (auditor, operator) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let off = Settings {
        save_logs: Some(false),
        enabled: Some(false),
        log_level: Some(LogLevel::Client.into()),
        ..Settings::default()
    };
    operator.change_settings(off).await.expect("changed");
    operator.entries("check-admin-0").await.expect("entries");
    operator.clear("check-admin-0").await.expect("cleared");
    operator.change_settings(Settings { enabled: Some(true), ..Settings::default() }).await.expect("changed");
    operator
        .change_account(Account {
            name: format!("{SITE}/accounts/1"),
            sender_name: "X".to_owned(),
            ..Account::default()
        })
        .await
        .expect("changed");
    let expected = [
        "changed sites/shop/settings: enabled, save_logs, log_level",
        "read sites/shop/logs/check-admin-0",
        "cleared sites/shop/logs/check-admin-0",
        "changed sites/shop/settings: enabled",
        "changed sites/shop/accounts/1: sender_name",
    ];
    let told = auditor.texts().await;
    assert_eq!(told[told.len() - 5..], expected.map(|deed| operator.did(deed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_all_sites_is_told_to_each() {
    // More than are told in one transaction, and not a multiple of it.
    const SITES: usize = 230;
    let postroom = Postroom::start_with(Options::default()).await;
    let sites = format!(
        "with s as (insert into sites (site_id) select 'site-' || n from generate_series(2, {SITES}) as n returning site_id)
         insert into settings (site_id) select site_id from s"
    );
    execute(&postroom, &sites).await;
    let told = async |text: &str| {
        let question =
            format!("select count(*) from log_chunks where log_id = 'audit' and lines like '%{text}%'");
        usize::try_from(count(&postroom, &question).await).expect("a count")
    };
    let everywhere = Person::of(&postroom, Role::Operator, Scope::AllSites).await;
    let made = format!("the command line made key {} for all sites with the role operator", everywhere.id);
    assert_eq!(told(&made).await, SITES);
    let one = Person::new(&postroom, Role::Operator).await;
    assert_eq!(told(&format!("made key {} for sites/shop", one.id)).await, 1);
    let store = postroom.store();
    for key in [everywhere.id, one.id] {
        assert!(keys::revoke(&store, key).await.expect("revoked"));
        assert!(!keys::revoke(&store, key).await.expect("answered"), "once");
    }
    store.close().await;
    assert_eq!(told(&format!("the command line revoked key {} for all sites", everywhere.id)).await, SITES);
    assert_eq!(told(&format!("the command line revoked key {} for sites/shop", one.id)).await, 1);
    let sites = "select count(distinct site_id) from log_chunks where log_id = 'audit'";
    assert_eq!(count(&postroom, sites).await, i64::try_from(SITES).expect("few"));
}
