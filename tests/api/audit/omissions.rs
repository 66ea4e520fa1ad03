//! What is not told: what was refused or changed nothing, values and secrets; and what cannot be noted is not done.

use postroom::api::proto::account::Auth;
use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{
    Account, CreateAccountRequest, DeleteAccountRequest, NoAuth, PasswordAuth, RestoreSettingsRequest,
    Settings, TailLogEntriesRequest, UpdateAccountRequest,
};
use postroom::domain::access::{Role, Scope};
use postroom::domain::audit::{Actor, Deed, Note};
use postroom::domain::site::SiteId;
use postroom::store::accounts::Replaced;
use postroom::store::checks::CheckChange;
use postroom::store::{StoreError, accounts, keys, settings};
use tonic::{Code, Status};
use uuid::Uuid;

use super::deeds::{creation, deletion};
use super::{Auditor, Person};
use crate::desk::{FROM, count, execute, shop, start};
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, account_at, letter, plain_account, reason, with_login};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_changes_nothing_leaves_no_entry() {
    let (server, postroom) = start().await;
    let (auditor, operator) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let nobody = Person::new(&postroom, Role::Sender).await;
    postroom.create_site("other").await;
    let other = Scope::Site(SiteId::parse("other").expect("a site"));
    let stranger = Person::of(&postroom, Role::Operator, other).await;
    let account = Account { name: format!("{SITE}/accounts/1"), ..Account::default() };
    operator.entries("check-admin-0").await.expect("noted");
    let before = auditor.texts().await;

    let failed = operator.accounts().create_account(creation(account_at(1, "x@example.com"))).await;
    assert_eq!(reason(&failed.expect_err("nobody listens")).1, "CHECK_FAILED");
    let failed = operator.change_account(Account { port: 1, ..account.clone() }).await;
    assert_eq!(reason(&failed.expect_err("nobody listens")).1, "CHECK_FAILED");
    let stale = Account { etag: "account-9".to_owned(), sender_name: "X".to_owned(), ..account.clone() };
    assert_eq!(reason(&operator.change_account(stale).await.expect_err("stale")).1, "ETAG_MISMATCH");
    let stale = DeleteAccountRequest { etag: "account-9".to_owned(), ..deletion(1, true) };
    let stale = operator.accounts().delete_account(stale).await.expect_err("stale");
    assert_eq!(reason(&stale).1, "ETAG_MISMATCH");
    let missing = operator.accounts().delete_account(deletion(9, true)).await.expect_err("missing");
    assert_eq!(reason(&missing).1, "NOT_FOUND");
    let stale = Settings { etag: "settings-9".to_owned(), save_logs: Some(false), ..Settings::default() };
    assert_eq!(reason(&operator.change_settings(stale).await.expect_err("stale")).1, "ETAG_MISMATCH");
    // Saved as it is, and checked only.
    operator
        .change_settings(Settings { save_logs: Some(true), ..Settings::default() })
        .await
        .expect("as it is");
    operator
        .change_account(Account { sender_email: FROM.to_owned(), ..account.clone() })
        .await
        .expect("as it is");
    let only = CreateAccountRequest { validate_only: true, ..creation(plain_account(&server, FROM)) };
    operator.accounts().create_account(only).await.expect("checked");
    let only = UpdateAccountRequest {
        account: Some(Account { sender_name: "X".to_owned(), ..account.clone() }),
        validate_only: true,
        ..UpdateAccountRequest::default()
    };
    operator.accounts().update_account(only).await.expect("checked");
    // Found to be too late only when it was written.
    let store = postroom.store();
    let note = || Note { by: Actor::CommandLine, deed: Deed::CreateAccount(1) };
    let mut stored = accounts::find(&store, &shop(), 1).await.expect("read").expect("there");
    stored.version += 1;
    let replaced = accounts::replace(&store, &stored, None, CheckChange::Keep, None, &note()).await;
    assert!(matches!(replaced.expect("answered"), Replaced::VersionChanged));
    let same = |now: &postroom::domain::settings::Settings| Ok::<_, StoreError>(now.stored.clone());
    assert!(settings::change(&store, &shop(), same, |_| note()).await.expect("answered").is_some());
    let restored = RestoreSettingsRequest { name: format!("{SITE}/settings"), paths: Vec::new() };
    postroom.settings().restore_settings(restored).await.expect("as it is");
    assert!(!keys::revoke(&store, Uuid::now_v7()).await.expect("answered"));
    store.close().await;
    // Logs that are not there, or empty; and people who may not.
    let missing = |answer: Result<(), Status>| {
        assert_eq!(reason(&answer.expect_err("missing")).1, "NOT_FOUND");
    };
    missing(operator.entries("send-admin-9").await.map(|_| ()));
    missing(operator.download("send-admin-9").await.map(|_| ()));
    missing(operator.clear("send-admin-9").await);
    missing(operator.content(&format!("{SITE}/messages/{}", Uuid::now_v7())).await.map(|_| ()));
    let token = Some(Start::ResumeToken("x".to_owned()));
    let expired = operator.tail(TailLogEntriesRequest { start: token, ..Default::default() }).await;
    assert_eq!(reason(&expired.map(|_| ()).expect_err("none")).1, "RESUME_TOKEN_EXPIRED");
    for person in [&nobody, &stranger] {
        let answers = [
            person.entries("check-admin-0").await.map(|_| ()),
            person.download("check-admin-0").await.map(|_| ()),
            person.clear("check-admin-0").await,
            person.tail(TailLogEntriesRequest::default()).await.map(|_| ()),
            person
                .change_account(Account { sender_name: "X".to_owned(), ..account.clone() })
                .await
                .map(|_| ()),
            person
                .change_settings(Settings { save_logs: Some(false), ..Settings::default() })
                .await
                .map(|_| ()),
        ];
        for answer in answers {
            assert_eq!(answer.expect_err("may not").code(), Code::PermissionDenied);
        }
    }
    assert_eq!(auditor.texts().await, before);
    // The second of these two clears nothing.
    for _ in 0..2 {
        operator.clear("check-admin-0").await.expect("cleared");
    }
    let cleared = operator.did("cleared sites/shop/logs/check-admin-0");
    assert_eq!(auditor.texts().await, [before, vec![cleared]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_or_shown_that_cannot_be_noted() {
    let (server, postroom) = start().await;
    let (auditor, operator) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let before = auditor.texts().await;
    let full = "create function full_disk() returns trigger language plpgsql as $$
                begin
                    if new.log_id = 'audit' then raise exception 'full' using errcode = '53100'; end if;
                    return new;
                end $$;
                create trigger full_disk before insert on log_chunks
                for each row execute function full_disk()";
    execute(&postroom, full).await;

    let account = Account { name: format!("{SITE}/accounts/1"), ..Account::default() };
    let tail = operator.tail(TailLogEntriesRequest::default()).await.map(|_| ());
    let answers = [
        operator.accounts().create_account(creation(plain_account(&server, FROM))).await.map(|_| ()),
        operator.change_account(Account { sender_name: "X".to_owned(), ..account.clone() }).await.map(|_| ()),
        operator.accounts().delete_account(deletion(1, true)).await.map(|_| ()),
        operator
            .change_settings(Settings { send_in_parts: Some(true), ..Settings::default() })
            .await
            .map(|_| ()),
        operator.clear("send-admin-1").await,
        operator.entries("send-admin-1").await.map(|_| ()),
        operator.download("send-admin-1").await.map(|_| ()),
        operator.content(&sent).await.map(|_| ()),
        tail,
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let expected = (Code::Unavailable, "STORE_UNAVAILABLE".to_owned());
        assert_eq!(reason(&answer.expect_err("not noted")), expected, "{number}");
    }
    let store = postroom.store();
    let keys_before = keys::list(&store).await.expect("listed").len();
    for scope in [Scope::AllSites, Scope::Site(shop())] {
        let caller = postroom::domain::access::Caller::new(scope, vec![Role::Admin]);
        keys::create(&store, &caller, &[7; 32]).await.expect_err("not noted");
    }
    keys::revoke(&store, operator.id).await.expect_err("not noted");
    let listed = keys::list(&store).await.expect("listed");
    assert!(listed.len() == keys_before && listed.iter().all(|key| key.revoke_time.is_none()));
    store.close().await;

    execute(&postroom, "drop trigger full_disk on log_chunks").await;
    assert_eq!(auditor.texts().await, before);
    assert_eq!(
        count(&postroom, "select count(*) from accounts where sender_name = '' and version = 1").await,
        1
    );
    assert_eq!(count(&postroom, "select count(*) from accounts").await, 1);
    assert_eq!(count(&postroom, "select version from settings").await, 1);
    assert!(!operator.entries("send-admin-1").await.expect("shown again").is_empty());
    let read = operator.did("read sites/shop/logs/send-admin-1");
    assert_eq!(auditor.texts().await, [before, vec![read]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_secrets_are_never_told() {
    const CANARIES: [&str; 6] =
        ["canary-one", "canary-two", "canary-user", "canary-name", "canary@example.com", "127.0.0.1"];
    let password = "canary-one";
    let server = Behaviour::default().login("canary-user", password).start().await;
    let postroom = Postroom::start().await;
    let (auditor, operator) = (Auditor::new(&postroom).await, Person::new(&postroom, Role::Operator).await);
    let account = with_login(plain_account(&server, "canary@example.com"), "canary-user", password);
    operator.accounts().create_account(creation(account)).await.expect("made");
    let account = Account { name: format!("{SITE}/accounts/1"), ..Account::default() };
    let auth = |username: &str, password: &str| {
        let (username, password) = (username.to_owned(), password.to_owned());
        Some(Auth::Password(PasswordAuth { username, password, password_set: false }))
    };
    let change =
        Account { sender_name: "canary-name".to_owned(), auth: auth("", password), ..account.clone() };
    operator.change_account(change).await.expect("changed");
    // Unchecked, so that another password can be saved.
    let change =
        Account { active: Some(false), auth: auth("canary-user-2", "canary-two"), ..account.clone() };
    operator.change_account(change).await.expect("changed");
    let change = Account { port: 2525, auth: auth("", "canary-two"), ..account.clone() };
    operator.change_account(change).await.expect("changed");
    operator
        .change_account(Account { auth: Some(Auth::None(NoAuth::default())), ..account })
        .await
        .expect("changed");
    let expected = [
        "created sites/shop/accounts/1",
        "changed sites/shop/accounts/1: sender_name, password",
        "changed sites/shop/accounts/1: active, username, password",
        "changed sites/shop/accounts/1: port, password",
        "changed sites/shop/accounts/1: auth",
    ];
    assert_eq!(auditor.texts().await.split_off(1), expected.map(|deed| operator.did(deed)));
    let text = auditor.0.download("audit").await.expect("text");
    let stored = "select count(*) from log_chunks where log_id = 'audit' and (";
    for canary in CANARIES {
        assert!(!text.contains(canary), "{text}");
        let found = format!("{stored} lines like '%{canary}%')");
        assert_eq!(count(&postroom, &found).await, 0, "{canary}");
    }
}
