//! Rotation: every secret is sealed anew beside servers that work, and under no key that one of them lacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postroom::api::proto::message::State;
use postroom::api::proto::{Message, SendMessageRequest};
use postroom::vault::Vault;
use tokio::task::JoinSet;
use tonic::Code;
use uuid::Uuid;

use super::{
    K1, K2, PASSWORD, USER, command, count, execute, insert_accounts, is_sent_at_once, key_file, letter_of,
    sealed, sealed_under, stderr, stdout,
};
use crate::binary::run_in;
use crate::cluster::open_store;
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, plain_account, with_login};

const ACCOUNTS: i64 = 10_000;
/// Letters of one wave, each of an account of its own.
const WAVE: i64 = 50;
/// Waves at least; more while secrets are sealed anew.
const WAVES: i64 = 5;

/// Sends a wave of letters through accounts all over the range; as they ended.
async fn send_wave(postroom: &Postroom, wave: i64) -> Vec<Message> {
    let mut sending = JoinSet::new();
    for number in 0..WAVE {
        let account = (number * (ACCOUNTS / WAVE) + wave * 7) % ACCOUNTS + 1;
        let mut client = postroom.send();
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter_of(account)),
            request_id: Uuid::now_v7().to_string(),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            validate_only: false,
        };
        sending.spawn(async move {
            loop {
                // As a client should: again while the store is too busy, with the same request id.
                match client.send_message(request.clone()).await {
                    Ok(taken) => return taken.into_inner().message.expect("set"),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
            }
        });
    }
    sending.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_accounts_are_sealed_anew_while_letters_go_through_them() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let postroom = Postroom::start().await;
    let url = postroom.database_url.clone();
    insert_accounts(&url, &postroom.vault, "shop", 1..ACCOUNTS + 1, server.port()).await;
    let old = postroom.vault.key_ids().concat();
    assert_eq!(sealed_under(&url, &old).await, ACCOUNTS);

    let keys = postroom.vault_file();
    let is_over = AtomicBool::new(false);
    let sending = async {
        let mut letters = Vec::new();
        for wave in 0.. {
            letters.extend(send_wave(&postroom, wave).await);
            if wave + 1 >= WAVES && is_over.load(Ordering::SeqCst) {
                break;
            }
        }
        letters
    };
    let rotating = async {
        let before = server.wait_until(|journal| journal.letters.len() >= 20).await.letters.len();
        let rotated = command(&["vault", "rotate", "--new-key"], &url, &keys).await;
        is_over.store(true, Ordering::SeqCst);
        (rotated, server.journal().letters.len() - before)
    };
    let (letters, (rotated, meanwhile)) = tokio::join!(sending, rotating);
    assert!(rotated.status.success(), "{}", stderr(&rotated));
    assert!(meanwhile > 0, "no letter was sent meanwhile: nothing was tested");
    println!("{} letters, {meanwhile} of them meanwhile", letters.len());
    assert!(letters.len() >= 200);
    for letter in &letters {
        // On a busy machine one may not be done when its call was answered.
        let letter = eventually("sent", async || {
            let letter = postroom.message(&letter.name).await;
            (letter.state() != State::Queued && letter.state() != State::Sending).then_some(letter)
        })
        .await;
        assert!(is_sent_at_once(&letter), "{letter:?}");
    }
    assert_eq!(server.journal().letters.len(), letters.len(), "each once");

    let new = postroom.vault.key_ids()[0].clone();
    assert_ne!(new, old);
    let summary =
        format!("{ACCOUNTS} secrets sealed anew under {new}, 0 changed by others meanwhile, 0 left");
    assert!(stdout(&rotated).starts_with(&summary), "{}", stdout(&rotated));
    let progress = format!("accounts.sealed_password: {ACCOUNTS} of {ACCOUNTS} sealed anew");
    assert!(stderr(&rotated).contains(&progress), "{}", stderr(&rotated));
    assert_eq!((sealed_under(&url, &new).await, sealed_under(&url, &old).await), (ACCOUNTS, 0));
    let entries = postroom.entries("audit").await;
    let noted: usize = entries
        .iter()
        .filter_map(|entry| {
            entry.text.strip_prefix("the command line sealed ")?.split(' ').next()?.parse::<usize>().ok()
        })
        .sum();
    assert_eq!(i64::try_from(noted), Ok(ACCOUNTS), "the log audit tells of each");

    let checked = command(&["vault", "check"], &url, &postroom.vault_file()).await;
    let told = stdout(&checked);
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert!(told.contains(&format!("accounts.sealed_password\t{new}\t{ACCOUNTS} sealed\n")), "{told}");
    assert!(told.contains(&format!("\n{old}\tseals nothing any more")), "{told}");
    // Nothing is left to do.
    let again = command(&["vault", "rotate"], &url, &postroom.vault_file()).await;
    assert!(stdout(&again).starts_with("0 secrets sealed anew"), "{}", stdout(&again));
}

/// Until every server has a key, nothing is sealed under it: not by a rotation, not by those that have it.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_sealed_under_a_key_that_a_server_lacks() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let postroom = Postroom::start().await;
    let url = postroom.database_url.clone();
    let old = postroom.vault.key_ids().concat();
    let (_folder, other_file) = key_file(&[]);
    let file = postroom.vault_file();
    std::fs::copy(&file, &other_file).expect("copied");
    let mut other = postroom.another_with_vault(Arc::new(Vault::load(&other_file).expect("a vault"))).await;
    let create = async |number: usize| {
        let account = plain_account(&server, &format!("new{number}@example.com"));
        postroom.create_account(with_login(account, USER, PASSWORD)).await
    };
    create(1).await;
    eventually("two servers", async || {
        (count(&url, "select count(*) from replicas where vault_keys is not null").await == 2).then_some(())
    })
    .await;

    let refused = command(&["vault", "rotate", "--new-key", "--wait", "2s"], &url, &file).await;
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    let told = stderr(&refused);
    assert!(told.contains("no secret was sealed anew, since not every server seals under key-"), "{told}");
    assert!(told.contains(&format!("but {old} ")), "{told}");
    let new = Vault::load(&file).expect("a vault").key_ids()[0].clone();
    eventually("the first server has the key", async || postroom.vault.has(&new).then_some(())).await;
    // It has it, and does not use it.
    create(2).await;
    assert_eq!(sealed_under(&url, &old).await, 2);
    assert!(!other.vault.has(&new));

    std::fs::copy(&file, &other_file).expect("copied");
    let rotated = command(&["vault", "rotate"], &url, &file).await;
    assert!(rotated.status.success(), "{}", stderr(&rotated));
    create(3).await;
    assert_eq!((sealed_under(&url, &old).await, sealed_under(&url, &new).await), (0, 3));

    // A server that is gone is waited for no longer; one of an older version tells no keys, and is waited for.
    other.stop().await;
    execute(&url, "insert into replicas (replica_id, heartbeat_time) values (gen_random_uuid(), now() - interval '31 s')").await;
    let rotated = command(&["vault", "rotate", "--wait", "0s"], &url, &file).await;
    assert!(rotated.status.success(), "{}", stderr(&rotated));
    execute(&url, "insert into replicas (replica_id) values (gen_random_uuid())").await;
    let refused = command(&["vault", "rotate", "--wait", "0s"], &url, &file).await;
    assert!(stderr(&refused).contains("it is of an older version"), "{}", stderr(&refused));
}

/// A value that cannot be opened is listed and left as it is, and the others are sealed anew; what was begun is gone on
/// with.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_what_is_broken_and_goes_on_where_it_was_broken_off() {
    let url = crate::support::database().await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &vault, "shop", 1..6, 25).await;
    insert_accounts(&url, &vault, "portal", 1..3, 25).await;
    let (_folder, keys) = key_file(&[K2, K1]);
    // One is done already, one is broken.
    let done = sealed(&Vault::parse(K2.as_bytes()).expect("a vault"), "shop", 1);
    let mut database = super::connect(&url).await;
    sqlx::query("update accounts set sealed_password = $1 where site_id = 'shop' and account_id = 1")
        .bind(done)
        .execute(&mut database)
        .await
        .expect("written");
    drop(database);
    execute(&url, "update accounts set sealed_password = sealed_password || 'x' where account_id = 5").await;
    let rotated = command(&["vault", "rotate"], &url, &keys).await;
    assert_eq!(rotated.status.code(), Some(1));
    let summary = "5 secrets sealed anew under k2, 0 changed by others meanwhile, 1 left that do not open\n";
    assert_eq!(stdout(&rotated), summary);
    assert!(
        stderr(&rotated).contains("sites/shop/accounts/5\taccounts.sealed_password\t"),
        "{}",
        stderr(&rotated)
    );
    assert_eq!((sealed_under(&url, "k1").await, sealed_under(&url, "k2").await), (1, 6));
    let (_folder, both) = key_file(&[K2, K1]);
    let checked = command(&["vault", "check"], &url, &both).await;
    assert!(
        stdout(&checked).contains("accounts.sealed_password\tk1\t1 sealed, 1 broken"),
        "{}",
        stdout(&checked)
    );
    // What is left is damaged, and known to be: the key itself is the right one, and nothing is kept from its start.
    let again = command(&["vault", "rotate"], &url, &both).await;
    let summary = "0 secrets sealed anew under k2, 0 changed by others meanwhile, 1 left that do not open\n";
    assert_eq!((again.status.code(), stdout(&again).as_str()), (Some(1), summary), "{}", stderr(&again));
    let (_folder, other) = key_file(&[K2, &K1.replace("AAEC", "BBEC")]);
    let refused = command(&["vault", "rotate"], &url, &other).await;
    assert!(stderr(&refused).contains("the vault's key `k1` does not open"), "{}", stderr(&refused));
}

/// Somebody changes a password between its reading and its sealing: his word counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_meanwhile_is_left_alone() {
    use postroom::store::sealed::{self as stored, Column};

    let url = crate::support::database().await;
    let old = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &old, "shop", 1..4, 25).await;
    let both = Arc::new(Vault::parse([K2, K1].concat().as_bytes()).expect("a vault"));
    let store = open_store(&url, both);
    let page = stored::page(&store, Column::AccountPassword, None, Some("k2"), 10).await.expect("a page");
    assert_eq!(page.len(), 3);
    execute(&url, "delete from accounts where account_id = 1").await;
    let mut database = super::connect(&url).await;
    sqlx::query("update accounts set sealed_password = $1 where account_id = 2")
        .bind(sealed(&old, "shop", 2))
        .execute(&mut database)
        .await
        .expect("changed");
    let before: Vec<u8> = sqlx::query_scalar("select sealed_password from accounts where account_id = 2")
        .fetch_one(&mut database)
        .await
        .expect("there");
    let done = stored::reseal(&store, page).await.expect("sealed anew");
    assert_eq!((done.count, done.changed, done.unopened.len()), (1, 2, 0));
    let after: Vec<u8> = sqlx::query_scalar("select sealed_password from accounts where account_id = 2")
        .fetch_one(&mut database)
        .await
        .expect("there");
    assert_eq!(before, after);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_environment_are_not_added_to() {
    let url = crate::support::database().await;
    let variables = [("POSTROOM_VAULT_KEY_DATA", K1.trim())];
    let refused = run_in(&["vault", "rotate", "--new-key", "--database-url", &url], &variables).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--new-key needs a key file"), "{}", stderr(&refused));
    assert!(!stderr(&refused).contains("AAEC"));
    let rotated = run_in(&["vault", "rotate", "--database-url", &url], &variables).await;
    assert!(rotated.status.success(), "{}", stderr(&rotated));
}
