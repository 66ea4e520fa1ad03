//! A server does not begin with keys that do not open what is stored.

use nix::sys::signal::Signal;
use postroom::vault::Vault;
use sqlx::Connection as _;

use super::{
    K1, K2, command, connect, count, execute, insert_accounts, key_file, sealed_under, stderr, stdout,
};
use crate::binary::{DataDir, Serving};
use crate::support::{PATIENCE, database};

/// All that a server would change.
async fn state(url: &str) -> (i64, i64, String) {
    let mut database = connect(url).await;
    let passwords = "select md5(string_agg(sealed_password, '' order by account_id)) from accounts";
    let passwords = sqlx::query_scalar(passwords).fetch_one(&mut database).await.expect("an answer");
    database.close().await.expect("closed");
    (
        count(url, "select count(*) from replicas").await,
        count(url, "select count(*) from log_chunks").await,
        passwords,
    )
}

/// CASES 60.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_key_keeps_a_server_from_starting() {
    let url = database().await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &vault, "shop", 1..4, 25).await;
    let before = state(&url).await;
    assert_eq!(before.0, 0);
    let wrong = K1.replace("AAEC", "BBEC");
    let table = [
        (K2, "the vault has no key `k1` (3 in accounts.sealed_password)"),
        (
            &wrong,
            "the vault's key `k1` does not open what was sealed under that id (3 tried, in accounts.sealed_password)",
        ),
    ];
    for (lines, reason) in table {
        let (_folder, keys) = key_file(&[lines]);
        for refused in [
            command(&["serve", "--listen", "127.0.0.1:0"], &url, &keys).await,
            command(&["vault", "rotate"], &url, &keys).await,
            command(&["vault", "rotate", "--new-key"], &url, &keys).await,
        ] {
            assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
            assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
        }
        assert_eq!(state(&url).await, before, "something was written");
        assert_eq!(std::fs::read_to_string(&keys).expect("the file"), lines, "the key file was changed");
        let checked = command(&["vault", "check"], &url, &keys).await;
        assert_eq!(checked.status.code(), Some(1));
        let told = stderr(&checked);
        for account in 1..4 {
            assert!(
                told.contains(&format!("sites/shop/accounts/{account}\taccounts.sealed_password\t")),
                "{told}"
            );
        }
        assert!(told.contains("3 stored secrets do not open"), "{told}");
    }
    let (_folder, keys) = key_file(&[K2, K1]);
    start_and_stop(&url, &keys).await;
    let checked = command(&["vault", "check"], &url, &keys).await;
    assert!(checked.status.success(), "{}", stderr(&checked));
    let told = stdout(&checked);
    assert!(
        told.starts_with("accounts.sealed_password\tk1\t3 sealed\nk2\tfirst: seals\nk1\tneeded"),
        "{told}"
    );
}

async fn start_and_stop(url: &str, keys: &std::path::Path) -> String {
    let folder = DataDir::new();
    let arguments = ["--database-url", url, "--vault-keys", super::text(keys), "--drain-wait", "0s"];
    let serving = Serving::start(&folder.path(), &arguments).await;
    // It listens before it looks; only a server that works lists its keys.
    crate::eventually::eventually("a heartbeat", async || {
        (count(url, "select count(*) from replicas").await > 0).then_some(())
    })
    .await;
    serving.signal(Signal::SIGTERM);
    let (status, output) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{output}");
    output
}

/// One value that is broken holds up its account and not the server; one whose key id is damaged can be given up.
#[tokio::test(flavor = "multi_thread")]
async fn single_damage_is_told_and_can_be_given_up() {
    let url = database().await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &vault, "shop", 1..4, 25).await;
    let (_folder, keys) = key_file(&[K1]);
    execute(
        &url,
        "update accounts set sealed_password = set_byte(sealed_password, 30, get_byte(sealed_password, 30) # 1)
         where account_id = 2",
    )
    .await;
    let output = start_and_stop(&url, &keys).await;
    assert!(
        output.contains("a sealed value is broken") && output.contains("sites/shop/accounts/2"),
        "{output}"
    );

    // The last byte of `k1` becomes another letter of an id.
    execute(
        &url,
        "update accounts set sealed_password = set_byte(sealed_password, 3, ascii('9')) where account_id = 3",
    )
    .await;
    let refused = command(&["serve", "--listen", "127.0.0.1:0"], &url, &keys).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("no key `k9` (1 in"), "{}", stderr(&refused));
    // As the README tells.
    execute(&url, "update accounts set sealed_password = '' where site_id = 'shop' and account_id = 3").await;
    let output = start_and_stop(&url, &keys).await;
    assert!(output.contains("sealed values are broken"), "{output}");
    assert_eq!(sealed_under(&url, "").await, 1);
}

/// `vault rotate` and the start look at the columns of `store::sealed`; those are all that the schema has.
#[tokio::test(flavor = "multi_thread")]
async fn no_sealed_column_is_forgotten() {
    let url = database().await;
    let mut database = connect(&url).await;
    let mut found: Vec<(String, String)> = sqlx::query_as(
        "select table_name || '.' || column_name, data_type
         from information_schema.columns
         where table_schema = 'public'
           and column_name like '%sealed%'",
    )
    .fetch_all(&mut database)
    .await
    .expect("columns");
    database.close().await.expect("closed");
    found.sort();
    let known = postroom::store::sealed::Column::ALL;
    let known: Vec<_> = known.iter().map(|column| (column.name().to_owned(), "bytea".to_owned())).collect();
    assert_eq!(found, known);
}
