//! Keys that come and go while a server runs, keys in the environment, and what else than secrets hangs on them.

use nix::sys::signal::Signal;
use postroom::api::proto::message::State;
use postroom::api::proto::{
    CreateAccountRequest, ListAccountsRequest, ListSitesRequest, Message, SendMessageRequest,
};
use postroom::vault::Vault;
use tonic::{Code, Status};

use super::{
    K1, K2, PASSWORD, USER, command, insert_accounts, is_sent_at_once, letter_of, sealed_under, stderr,
    stdout,
};
use crate::binary::{DataDir, Serving, run_in};
use crate::desk::submit;
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{
    Options, PATIENCE, Postroom, SITE, bad_fields, database, letter, plain_account, reason, with_login,
};

/// What hangs on the keys: a letter's request id, an account's, and a page token.
struct Kept {
    letter: Message,
    account: String,
    token: String,
}

async fn send(postroom: &Postroom, request_id: &str) -> Result<Message, Status> {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        request_id: request_id.to_owned(),
        ..SendMessageRequest::default()
    };
    Ok(postroom.send().send_message(request).await?.into_inner().message.expect("set"))
}

async fn create(postroom: &Postroom, port: u16, request_id: &str) -> Result<String, Status> {
    let account = crate::support::account_at(port, &format!("{request_id}@example.com"));
    let request = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(with_login(account, USER, PASSWORD)),
        request_id: request_id.to_owned(),
        validate_only: false,
    };
    Ok(postroom.accounts().create_account(request).await?.into_inner().account.expect("set").name)
}

async fn next_page(postroom: &Postroom, page_token: &str) -> Result<String, Status> {
    let request = ListAccountsRequest {
        parent: SITE.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..ListAccountsRequest::default()
    };
    Ok(postroom.accounts().list_accounts(request).await?.into_inner().next_page_token)
}

async fn keep(postroom: &Postroom, port: u16, request_id: &str) -> Kept {
    Kept {
        letter: send(postroom, request_id).await.expect("taken"),
        account: create(postroom, port, request_id).await.expect("an account"),
        token: next_page(postroom, "").await.expect("a page"),
    }
}

async fn assert_kept(postroom: &Postroom, port: u16, request_id: &str, kept: &Kept) {
    assert_eq!(send(postroom, request_id).await.expect("the same").name, kept.letter.name);
    assert_eq!(create(postroom, port, request_id).await.expect("the same"), kept.account);
    next_page(postroom, &kept.token).await.expect("a page");
}

/// Request ids and tokens go on working over a rotation; only the end of their own key ends them.
#[tokio::test(flavor = "multi_thread")]
async fn request_ids_and_tokens_live_as_long_as_the_key_of_their_time() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let port = server.port();
    let postroom = Postroom::start().await;
    postroom.create_account(with_login(plain_account(&server, "shop@example.com"), USER, PASSWORD)).await;
    let before = keep(&postroom, port, "before").await;
    let file = postroom.vault_file();
    let rotated = command(&["vault", "rotate", "--new-key"], &postroom.database_url, &file).await;
    assert!(rotated.status.success(), "{}", stderr(&rotated));
    let after = keep(&postroom, port, "after").await;
    assert_kept(&postroom, port, "before", &before).await;
    assert_kept(&postroom, port, "after", &after).await;

    // The old key goes.
    let text = std::fs::read_to_string(&file).expect("the file");
    let first = text.lines().next().expect("the new key").to_owned();
    let old = postroom.vault.key_ids()[1].clone();
    std::fs::write(&file, first).expect("written");
    eventually("the old key is gone", async || (!postroom.vault.has(&old)).then_some(())).await;
    assert_kept(&postroom, port, "after", &after).await;
    let error = send(&postroom, "before").await.expect_err("nobody can tell");
    assert_eq!(reason(&error), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    let error = create(&postroom, port, "before").await.expect_err("nobody can tell");
    assert_eq!(reason(&error), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    let error = next_page(&postroom, &before.token).await.expect_err("of no key");
    assert_eq!(bad_fields(&error), ["page_token"]);
}

/// A secret under a key that only another server had: its mail waits, and flows as soon as the key is in the file. No probe
/// is due within the time of this test.
#[tokio::test(flavor = "multi_thread")]
async fn mail_flows_again_when_a_key_is_put_into_the_file() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let retry_floor = std::time::Duration::from_hours(24);
    let postroom = Postroom::start_with(Options { retry_floor, ..Options::default() }).await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&postroom.database_url, &vault, "shop", 1..2, server.port()).await;
    let letter = submit(&postroom, letter_of(1)).await;
    let parked = "select count(*) from lanes where parking_error like '%`k1`%'";
    eventually("parked", async || (super::count(&postroom.database_url, parked).await == 1).then_some(()))
        .await;
    let file = postroom.vault_file();
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, format!("{text}{K1}")).expect("written");
    let sent = eventually("sent", async || {
        let message = postroom.message(&letter.name).await;
        (message.state() == State::Sent).then_some(message)
    })
    .await;
    assert!(is_sent_at_once(&sent), "{sent:?}");
}

/// The way with keys in the environment: both keys everywhere, the new one behind; then before; then rotate.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_environment_are_changed_by_restarts() {
    let url = database().await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &vault, "shop", 1..4, 25).await;
    let (old_first, new_first) =
        (format!("{},{}", K1.trim(), K2.trim()), format!("{} {}", K2.trim(), K1.trim()));
    for (keys, rotated) in [
        (K1.trim(), "0 secrets sealed anew under k1"),
        (&old_first, "0 secrets sealed anew under k1"),
        (&new_first, "3 secrets sealed anew under k2"),
        (K2.trim(), "0 secrets sealed anew under k2"),
    ] {
        let variables = [("POSTROOM_VAULT_KEY_DATA", keys)];
        let key = ["key", "create", "--site", "sites/-", "--role", "admin", "--database-url", &url];
        let key = stdout(&run_in(&key, &variables).await);
        let data_dir = DataDir::new();
        let arguments = ["--database-url", &url, "--drain-wait", "0s"];
        let serving = Serving::start_in(&data_dir.path(), &arguments, &variables).await;
        let client = serving.client(key.trim());
        eventually("a server", async || client.settings().list_sites(ListSitesRequest::default()).await.ok())
            .await;
        let done = run_in(&["vault", "rotate", "--database-url", &url], &variables).await;
        assert!(stdout(&done).starts_with(rotated), "{keys}: {} {}", stdout(&done), stderr(&done));
        serving.signal(Signal::SIGTERM);
        let (status, printed) = serving.end(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{printed}");
        assert!(!printed.contains("AAEC") && !printed.contains("ICEi"), "{printed}");
    }
    assert_eq!(sealed_under(&url, "k2").await, 3);
    let wrong =
        run_in(&["vault", "check", "--database-url", &url], &[("POSTROOM_VAULT_KEY_DATA", "k1:secret")])
            .await;
    assert_eq!(stderr(&wrong), "postroom: key 1 of the environment: the key is not base64\n");
}
