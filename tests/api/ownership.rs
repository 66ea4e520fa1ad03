//! Accounts of users: mailbox and CRM, the switch, presets, and logs that begin anew with a change.

use postroom::api::proto::{
    Account, CreateAccountRequest, ListAccountsRequest, ListLogEntriesRequest, ListLogsRequest,
    ListProvidersRequest, Origin, Settings, UpdateAccountRequest, UpdateSettingsRequest,
};

use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason};

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_takes_over_the_crm_account() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let crm = Account {
        origin: Origin::Crm.into(),
        user: "140".to_owned(),
        sender_name: "Ann".to_owned(),
        ..plain_account(&server, "ann@example.com")
    };
    let crm = postroom.create_account(crm).await;
    let wanted = Account {
        sender_email: "Ann@example.com".to_owned(),
        origin: Origin::Mailbox.into(),
        user: "140".to_owned(),
        shared: Some(true),
        ..Account::default()
    };
    let create = async |wanted: Account| {
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(wanted),
            request_id: "take-over".to_owned(),
            validate_only: false,
        };
        postroom
            .accounts()
            .create_account(request)
            .await
            .expect("an account")
            .into_inner()
            .account
            .expect("set")
    };
    let mailbox = create(wanted.clone()).await;
    assert_eq!(create(wanted).await, mailbox, "the same call answers the same");
    assert_eq!((&mailbox.name, mailbox.origin()), (&crm.name, Origin::Mailbox));
    assert_eq!((&*mailbox.sender_name, &mailbox.host, mailbox.shared()), ("Ann", &crm.host, true));
    let list = ListAccountsRequest { parent: SITE.to_owned(), user: "140".to_owned(), ..Default::default() };
    assert_eq!(postroom.accounts().list_accounts(list).await.expect("listed").into_inner().accounts.len(), 1);
    let logs = ListLogsRequest { parent: SITE.to_owned(), ..Default::default() };
    let logs = postroom.logs().list_logs(logs).await.expect("listed").into_inner().logs;
    let names: Vec<_> = logs.iter().map(|log| (log.file_name.as_str(), log.tags.join(""))).collect();
    let own = ("check_users_smtp_1.log", "[Check][Mail]".to_owned());
    let audit = ("audit.log", "[Audit]".to_owned());
    assert_eq!(names, [("check_users_smtp_0.log", "[Check]".to_owned()), own, audit]);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_demanded_and_never_change() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = |origin: Origin, user: &str| Account {
        origin: origin.into(),
        user: user.to_owned(),
        ..plain_account(&server, "ann@example.com")
    };
    for wrong in [account(Origin::Mailbox, ""), account(Origin::Admin, "140"), account(Origin::Crm, "1\n")] {
        let refused = postroom.try_account(wrong).await.expect_err("wrong");
        assert_eq!(bad_fields(&refused), ["account.user"]);
    }
    let mine = postroom.create_account(account(Origin::Crm, "140")).await;
    let change = Account {
        name: mine.name.clone(),
        origin: Origin::Admin.into(),
        user: "7".to_owned(),
        ..Account::default()
    };
    let request = UpdateAccountRequest { account: Some(change), ..Default::default() };
    let refused = postroom.accounts().update_account(request).await.expect_err("fixed");
    assert_eq!(bad_fields(&refused), ["account.origin", "account.user"]);
    // Switched off, nothing of users is created or changed; what exists goes on.
    let settings = Settings {
        name: format!("{SITE}/settings"),
        user_accounts_enabled: Some(false),
        ..Settings::default()
    };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    postroom.settings().update_settings(request).await.expect("changed");
    let refused = postroom.try_account(account(Origin::Mailbox, "8")).await.expect_err("off");
    assert_eq!(reason(&refused).1, "USER_ACCOUNTS_DISABLED");
    let change = Account { name: mine.name, sender_name: "Ann".to_owned(), ..Account::default() };
    let request = UpdateAccountRequest { account: Some(change), ..Default::default() };
    let refused = postroom.accounts().update_account(request).await.expect_err("off");
    assert_eq!(reason(&refused).1, "USER_ACCOUNTS_DISABLED");
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_an_account_begin_anew_with_a_change() {
    let server = Behaviour::default().start().await;
    let other = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let names = async || {
        let request = ListLogsRequest { parent: SITE.to_owned(), ..Default::default() };
        let logs = postroom.logs().list_logs(request).await.expect("listed").into_inner().logs;
        logs.into_iter().map(|log| log.name).collect::<Vec<_>>()
    };
    let (check, checks_of_new, send, audit) = (
        format!("{SITE}/logs/check-admin-1"),
        format!("{SITE}/logs/check-admin-0"),
        format!("{SITE}/logs/send-admin-1"),
        format!("{SITE}/logs/audit"),
    );
    assert_eq!(names().await, [checks_of_new.clone(), send.clone(), audit.clone()]);
    let change = |port: u16| {
        let account = Account { name: account.name.clone(), port: port.into(), ..Account::default() };
        UpdateAccountRequest { account: Some(account), ..Default::default() }
    };
    // A change that fails changes nothing; its check is told.
    let refused = postroom.accounts().update_account(change(1)).await.expect_err("nobody there");
    assert_eq!(reason(&refused).1, "CHECK_FAILED");
    assert_eq!(names().await, [checks_of_new.clone(), check.clone(), send, audit.clone()]);
    // One that is saved empties both, and then writes its own check.
    postroom.accounts().update_account(change(other.port())).await.expect("changed");
    assert_eq!(names().await, [checks_of_new, check.clone(), audit]);
    let request = ListLogEntriesRequest { name: check, ..Default::default() };
    let entries = postroom.logs().list_log_entries(request).await.expect("listed").into_inner().entries;
    assert_eq!(entries.iter().filter(|entry| entry.text.starts_with("EHLO")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_listed_and_fill_in_the_host() {
    let postroom = Postroom::start().await;
    let list = async |email: &str| {
        let request = ListProvidersRequest { email: email.to_owned() };
        postroom.accounts().list_providers(request).await.map(|answer| answer.into_inner().providers)
    };
    let all = list("").await.expect("listed");
    assert!(all.len() >= 40, "{}", all.len());
    assert!(all.iter().all(|p| !p.name.is_empty() && !p.host.is_empty() && p.port > 0));
    let gmail = list("Ann <ann@gmail.com>").await.expect("listed");
    assert_eq!(gmail.len(), 1);
    assert!(gmail[0].files_sent_copies && gmail[0].advice.contains("app password"), "{gmail:?}");
    assert_eq!(list("ann@unknown.example").await.expect("listed"), []);
    assert_eq!(bad_fields(&list("ann").await.expect_err("no address")), ["email"]);

    let without_host =
        |email: &str| Account { sender_email: email.to_owned(), active: Some(false), ..Account::default() };
    let saved = postroom.create_account(without_host("ann@gmail.com")).await;
    assert_eq!((&saved.host, saved.port, saved.security), (&gmail[0].host, gmail[0].port, gmail[0].security));
    let refused = postroom.try_account(without_host("ann@unknown.example")).await.expect_err("unknown");
    assert_eq!(bad_fields(&refused), ["account.host"]);
}
