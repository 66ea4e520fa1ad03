//! Accounts as their callers set them: created, found, listed and changed; requests repeated; secrets kept.

use postroom::api::proto::account::Auth;
use postroom::api::proto::check::State;
use postroom::api::proto::{
    Account, CreateAccountRequest, CreateAccountResponse, GetAccountRequest, ListAccountsRequest, NoAuth,
    PasswordAuth, Security, UpdateAccountRequest,
};
use prost::Message as _;
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason, with_login};

/// A password that is found wherever it should not be.
const PASSWORD: &str = "Tr0ub4dor&3-äß";

async fn server_with_login() -> Server {
    Behaviour::default().login("shop@example.com", PASSWORD).start().await
}

fn account_with_login(server: &Server) -> Account {
    with_login(plain_account(server, "shop@example.com"), "", PASSWORD)
}

fn creation(account: Account, request_id: &str) -> CreateAccountRequest {
    CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(account),
        request_id: request_id.to_owned(),
        validate_only: false,
    }
}

async fn get(postroom: &Postroom, name: &str) -> Account {
    let request = GetAccountRequest { name: name.to_owned() };
    postroom.accounts().get_account(request).await.expect("found").into_inner().account.expect("set")
}

async fn list(postroom: &Postroom, request: ListAccountsRequest) -> Vec<Account> {
    let request = ListAccountsRequest { parent: SITE.to_owned(), ..request };
    postroom.accounts().list_accounts(request).await.expect("a page").into_inner().accounts
}

async fn update(postroom: &Postroom, account: Account, paths: &[&str]) -> Result<Account, Status> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let request = UpdateAccountRequest {
        account: Some(account),
        update_mask: Some(FieldMask { paths }),
        validate_only: false,
    };
    Ok(postroom.accounts().update_account(request).await?.into_inner().account.expect("set"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_created_and_its_password_is_never_answered() {
    let server = server_with_login().await;
    let postroom = Postroom::start().await;
    let account = Account { sender_name: "  Der Laden ".to_owned(), ..account_with_login(&server) };
    let created = postroom.create_account(account).await;
    assert_eq!(created.name, "sites/shop/accounts/1");
    assert_eq!((created.active, created.sender_name.as_str()), (Some(true), "Der Laden"));
    let expected =
        PasswordAuth { username: "shop@example.com".to_owned(), password: String::new(), password_set: true };
    assert_eq!(created.auth, Some(Auth::Password(expected)));
    let check = created.check.clone().expect("set");
    assert_eq!(check.state(), State::Passed);
    assert!(check.check_time.is_some() && check.check_time == check.success_time);
    assert!(check.capabilities.contains(&"PIPELINING".to_owned()), "{:?}", check.capabilities);
    assert_eq!(created.create_time, created.update_time);

    assert_eq!(get(&postroom, &created.name).await, created);
    let accounts = list(&postroom, ListAccountsRequest::default()).await;
    assert_eq!(accounts, std::slice::from_ref(&created));
    let change =
        Account { name: created.name.clone(), sender_name: "Laden".to_owned(), ..Account::default() };
    let changed = update(&postroom, change, &[]).await.expect("changed");
    let bytes = [created.encode_to_vec(), changed.encode_to_vec()].concat();
    assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_grow_and_are_never_used_again() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let mut names = Vec::new();
    for address in ["a@example.com", "b@example.com"] {
        names.push(postroom.create_account(plain_account(&server, address)).await.name);
    }
    let request = postroom::api::proto::DeleteAccountRequest { name: names[1].clone(), ..Default::default() };
    postroom.accounts().delete_account(request).await.expect("deleted");
    names.push(postroom.create_account(plain_account(&server, "c@example.com")).await.name);
    assert_eq!(names, ["sites/shop/accounts/1", "sites/shop/accounts/2", "sites/shop/accounts/3"]);
    let request = GetAccountRequest { name: names[1].clone() };
    let gone = postroom.accounts().get_account(request).await.expect_err("deleted");
    assert_eq!(reason(&gone), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_of_server_gets_its_default() {
    let postroom = Postroom::start().await;
    // Inactive accounts are saved unchecked, so that no server is needed at these ports.
    for (security, port, expected) in [
        (Security::Unspecified, 0, (Security::Starttls, 587)),
        (Security::Unspecified, 465, (Security::ImplicitTls, 465)),
        (Security::Unspecified, 2525, (Security::Starttls, 2525)),
        (Security::ImplicitTls, 0, (Security::ImplicitTls, 465)),
        (Security::Starttls, 0, (Security::Starttls, 587)),
        (Security::None, 0, (Security::None, 25)),
        (Security::None, 65_535, (Security::None, 65_535)),
    ] {
        let account = Account {
            active: Some(false),
            sender_email: "shop@example.com".to_owned(),
            host: "SMTP.пример.рф.".to_owned(),
            port,
            security: security.into(),
            ..Account::default()
        };
        let created = postroom.create_account(account).await;
        assert_eq!((created.security(), created.port), expected, "{security:?} {port}");
        assert_eq!(created.host, "smtp.xn--e1afmkfd.xn--p1ai");
        assert_eq!(created.auth, Some(Auth::None(NoAuth {})));
        let check = created.check.expect("set");
        assert_eq!((check.state(), check.check_time), (State::NotChecked, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_come_in_pages() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    for number in 0..3 {
        let account = plain_account(&server, "Info@Пример.рф");
        postroom.create_account(Account { active: Some(number != 1), ..account }).await;
    }
    postroom.create_account(plain_account(&server, "other@example.com")).await;
    let ids = |accounts: Vec<Account>| -> Vec<String> {
        accounts.iter().map(|account| account.name.replace("sites/shop/accounts/", "")).collect()
    };
    let filter = ListAccountsRequest::default;
    for (request, expected) in [
        (ListAccountsRequest { active: Some(true), ..filter() }, vec!["1", "3", "4"]),
        (ListAccountsRequest { active: Some(false), ..filter() }, vec!["2"]),
        (
            ListAccountsRequest { sender_email: "INFO@xn--e1afmkfd.xn--p1ai".to_owned(), ..filter() },
            vec!["1", "2", "3"],
        ),
        (ListAccountsRequest { sender_email: "nobody@example.com".to_owned(), ..filter() }, vec![]),
        (ListAccountsRequest { check_state: State::Passed.into(), ..filter() }, vec!["1", "3", "4"]),
        (ListAccountsRequest { check_state: State::NotChecked.into(), ..filter() }, vec!["2"]),
        (ListAccountsRequest { check_state: State::Failed.into(), ..filter() }, vec![]),
        (filter(), vec!["1", "2", "3", "4"]),
    ] {
        assert_eq!(ids(list(&postroom, request.clone()).await), expected, "{request:?}");
    }

    let first = ListAccountsRequest { parent: SITE.to_owned(), page_size: 2, active: Some(true), ..filter() };
    let page = postroom.accounts().list_accounts(first.clone()).await.expect("a page").into_inner();
    assert_eq!(ids(page.accounts), ["1", "3"]);
    let next = ListAccountsRequest { page_token: page.next_page_token, ..first };
    // The size may change from page to page, the other arguments may not.
    let last = ListAccountsRequest { page_size: 5, ..next.clone() };
    let last = postroom.accounts().list_accounts(last).await.expect("a page").into_inner();
    assert_eq!(ids(last.accounts), ["4"]);
    assert_eq!(last.next_page_token, "");
    let other_site = postroom.create_site("other").await;
    for other in [
        ListAccountsRequest { active: None, ..next.clone() },
        ListAccountsRequest { sender_email: "other@example.com".to_owned(), ..next.clone() },
        ListAccountsRequest { check_state: State::Passed.into(), ..next.clone() },
        ListAccountsRequest { parent: other_site, ..next.clone() },
    ] {
        let refused = postroom.accounts().list_accounts(other).await.expect_err("another list's token");
        assert_eq!(bad_fields(&refused), ["page_token"]);
    }
    let wrong = ListAccountsRequest {
        parent: SITE.to_owned(),
        sender_email: "nobody".to_owned(),
        check_state: 9,
        ..filter()
    };
    let refused = postroom.accounts().list_accounts(wrong).await.expect_err("two faults");
    assert_eq!(bad_fields(&refused), ["sender_email", "check_state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_checks_and_saves_nothing() {
    let server = server_with_login().await;
    let postroom = Postroom::start().await;
    let request = CreateAccountRequest { validate_only: true, ..creation(account_with_login(&server), "") };
    let validated = postroom.accounts().create_account(request).await.expect("works");
    let validated = validated.into_inner().account.expect("set");
    assert_eq!(validated.name, "");
    assert_eq!(validated.check.expect("set").state(), State::Passed);
    assert!(server.journal().commands.iter().any(|command| command.starts_with("AUTH")));
    assert!(list(&postroom, ListAccountsRequest::default()).await.is_empty());

    let created = postroom.create_account(account_with_login(&server)).await;
    let change = Account { name: created.name.clone(), sender_name: "New".to_owned(), ..Account::default() };
    let request = UpdateAccountRequest { account: Some(change), update_mask: None, validate_only: true };
    let validated = postroom.accounts().update_account(request).await.expect("fine").into_inner().account;
    assert_eq!(validated.expect("set").sender_name, "New");
    assert_eq!(get(&postroom, &created.name).await, created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_answers_with_the_first_result() {
    let server = server_with_login().await;
    let postroom = Postroom::start().await;
    let request = creation(account_with_login(&server), "create 1");
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (mut client, request) = (postroom.accounts(), request.clone());
        // Whoever is told that the store has no room for now tries again, as the contract wants it.
        calls.push(tokio::spawn(async move {
            loop {
                match client.create_account(request.clone()).await {
                    Err(busy) if busy.code() == Code::Unavailable => {
                        assert_eq!(reason(&busy).1, "STORE_UNAVAILABLE");
                    }
                    other => return other,
                }
            }
        }));
    }
    let mut answers = Vec::new();
    for call in calls {
        let CreateAccountResponse { account } = call.await.expect("ends").expect("answered").into_inner();
        answers.push(account.expect("set"));
    }
    assert!(answers.iter().all(|account| *account == answers[0]), "{answers:?}");
    assert_eq!(list(&postroom, ListAccountsRequest::default()).await.len(), 1);

    let other = with_login(plain_account(&server, "shop@example.com"), "", "another password");
    for account in [other, Account { sender_name: "Other".to_owned(), ..account_with_login(&server) }] {
        let reused = postroom.accounts().create_account(creation(account, "create 1")).await;
        let reused = reused.expect_err("other content");
        assert_eq!(reason(&reused), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
    for id in ["a\tb", "ü", "a\0", &"x".repeat(129)] {
        let refused = postroom.accounts().create_account(creation(account_with_login(&server), id)).await;
        assert_eq!(bad_fields(&refused.expect_err(id)), ["request_id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_elsewhere_needs_the_password() {
    let (server, thief) = (server_with_login().await, server_with_login().await);
    let postroom = Postroom::start().await;
    let created = postroom.create_account(account_with_login(&server)).await;
    let change = || Account { name: created.name.clone(), ..Account::default() };
    let login = |username: &str, password: &str| {
        Some(Auth::Password(PasswordAuth {
            username: username.to_owned(),
            password: password.to_owned(),
            password_set: false,
        }))
    };
    for (name, wanted) in [
        ("host", Account { host: "localhost".to_owned(), ..change() }),
        ("port", Account { port: thief.port().into(), ..change() }),
        ("security", Account { security: Security::Starttls.into(), ..change() }),
        ("username", Account { auth: login("other", ""), ..change() }),
        ("off", Account { active: Some(false), port: thief.port().into(), ..change() }),
    ] {
        let refused = update(&postroom, wanted, &[]).await.expect_err(name);
        assert_eq!(reason(&refused), (Code::FailedPrecondition, "PASSWORD_REQUIRED".to_owned()), "{name}");
    }
    assert_eq!(thief.journal().connections, 0);
    assert_eq!(get(&postroom, &created.name).await, created);

    // With it the account moves; without a change of these the sealed one stays and still works.
    let moved = Account { port: thief.port().into(), auth: login("", PASSWORD), ..change() };
    let moved = update(&postroom, moved, &[]).await.expect("moved");
    assert_eq!(moved.port, u32::from(thief.port()));
    let same = Account { auth: login("shop@example.com", ""), sender_name: "Shop".to_owned(), ..change() };
    update(&postroom, same, &[]).await.expect("nothing that leads elsewhere");
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    assert_eq!(thief.journal().letters[0].user.as_deref(), Some("shop@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_name_what_changes() {
    let server = server_with_login().await;
    let postroom = Postroom::start().await;
    let account = Account { sender_name: "Shop".to_owned(), ..account_with_login(&server) };
    let created = postroom.create_account(account).await;
    let change = Account {
        name: created.name.clone(),
        active: Some(false),
        sender_name: "New".to_owned(),
        host: "elsewhere.example".to_owned(),
        ..Account::default()
    };
    let changed = update(&postroom, change.clone(), &["sender_name"]).await.expect("changed");
    assert_eq!((changed.sender_name.as_str(), changed.active), ("New", Some(true)));
    assert_eq!(changed.host, created.host);
    // A path without a value sets the default.
    let only_name = Account { name: created.name.clone(), ..Account::default() };
    let changed = update(&postroom, only_name.clone(), &["sender_name"]).await.expect("changed");
    assert_eq!(changed.sender_name, "");
    let off = Account { active: Some(false), ..only_name.clone() };
    assert_eq!(update(&postroom, off, &["active"]).await.expect("off").active, Some(false));
    let on = update(&postroom, only_name.clone(), &["active"]).await.expect("the default is on");
    assert_eq!(on.active, Some(true));
    for path in ["name", "check", "create_time", "update_time", "origin", "password.password_set", ""] {
        let refused = update(&postroom, change.clone(), &["active", path]).await.expect_err(path);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{path}");
        assert_eq!(bad_fields(&refused), ["update_mask.paths[1]"], "{path}");
    }
    // Required fields have no default.
    let refused = update(&postroom, only_name, &["sender_email", "host"]).await.expect_err("required");
    assert_eq!(bad_fields(&refused), ["account.sender_email", "account.host"]);
    assert_eq!(get(&postroom, &created.name).await, on);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_tells_versions_apart() {
    let server = server_with_login().await;
    let postroom = Postroom::start().await;
    let first = postroom.create_account(account_with_login(&server)).await;
    let change = |etag: &str, sender_name: &str| Account {
        name: first.name.clone(),
        etag: etag.to_owned(),
        sender_name: sender_name.to_owned(),
        ..Account::default()
    };
    let second = update(&postroom, change(&first.etag, "One"), &[]).await.expect("fresh");
    assert_ne!(second.etag, first.etag);
    let connections = server.journal().connections;
    let stale = Account { auth: account_with_login(&server).auth, ..change(&first.etag, "Two") };
    let refused = update(&postroom, stale, &[]).await.expect_err("stale");
    assert_eq!(reason(&refused), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    assert_eq!(server.journal().connections, connections, "compared before any check");
    // What changes nothing is no change, and neither are sessions and checks.
    let same = update(&postroom, change(&second.etag, "One"), &[]).await.expect("no change");
    assert_eq!(same, second);
    postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let now = get(&postroom, &first.name).await;
    assert_eq!((now.etag, now.update_time), (second.etag.clone(), second.update_time));
    // A new password is a change.
    let password = Account { auth: account_with_login(&server).auth, ..change("", "") };
    assert_ne!(update(&postroom, password, &[]).await.expect("changed").etag, second.etag);
}
