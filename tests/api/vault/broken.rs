//! Secrets that were damaged behind the server's back: an error, an alarm, never a login; the mail waits and flows again.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{
    CheckAccountRequest, GetAccountRequest, GetMessageRequest, ListLogEntriesRequest, Message, Parking,
    SendMessageRequest, check_account_request,
};
use postroom::vault::Vault;
use sqlx::Connection as _;
use tonic::Code;

use super::{
    K1, PASSWORD, USER, command, connect, insert_accounts, is_sent_at_once, key_file, letter_of, stderr,
    stdout, text,
};
use crate::binary::{Client, DataDir, Serving};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{PATIENCE, database, reason};

/// The stored passwords, by site and account.
type Stored = BTreeMap<(String, i64), Vec<u8>>;

async fn read(url: &str) -> Stored {
    let mut database = connect(url).await;
    let rows: Vec<(String, i64, Vec<u8>)> =
        sqlx::query_as("select site_id, account_id, sealed_password from accounts")
            .fetch_all(&mut database)
            .await
            .expect("rows");
    database.close().await.expect("closed");
    rows.into_iter().map(|(site, account, sealed)| ((site, account), sealed)).collect()
}

async fn write(url: &str, stored: &Stored) {
    let mut database = connect(url).await;
    for ((site, account), sealed) in stored {
        sqlx::query("update accounts set sealed_password = $3 where site_id = $1 and account_id = $2")
            .bind(site)
            .bind(account)
            .bind(sealed)
            .execute(&mut database)
            .await
            .expect("written");
    }
    database.close().await.expect("closed");
}

/// The damage done to all accounts but one: bits in every part, cuts, and swaps within a site and between sites.
fn damage(stored: &Stored) -> (Stored, (String, i64)) {
    let mut damaged = stored.clone();
    let shop = |account: i64| ("shop".to_owned(), account);
    let length = stored[&shop(1)].len();
    // Version, length of the id, id, nonce, ciphertext, tag.
    for (account, at) in (1..).zip([0, 1, 3, 4, 20, length - 1]) {
        damaged.get_mut(&shop(account)).expect("there")[at] ^= 1;
    }
    for (account, keep) in (7..).zip([0, 1, 4, 16, length - 1]) {
        damaged.get_mut(&shop(account)).expect("there").truncate(keep);
    }
    let mut swap = |one: (String, i64), other: (String, i64)| {
        damaged.insert(one.clone(), stored[&other].clone());
        damaged.insert(other, stored[&one].clone());
    };
    swap(shop(12), shop(13));
    swap(shop(14), ("portal".to_owned(), 14));
    (damaged, shop(15))
}

async fn send(client: &Client, site: &str, account: i64) -> String {
    let request = SendMessageRequest {
        parent: format!("sites/{site}"),
        message: Some(letter_of(account)),
        ..SendMessageRequest::default()
    };
    let taken = client.send().send_message(request).await.expect("taken").into_inner();
    taken.message.expect("set").name
}

async fn message(client: &Client, name: &str) -> Message {
    let request = GetMessageRequest { name: name.to_owned() };
    client.send().get_message(request).await.expect("found").into_inner().message.expect("set")
}

async fn parking(client: &Client, name: &str) -> Option<Parking> {
    let request = GetAccountRequest { name: name.to_owned() };
    client.accounts().get_account(request).await.expect("found").into_inner().account.expect("set").parking
}

/// CASES 60.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_secrets_are_told_and_their_mail_waits_until_they_are_mended() {
    let server = Behaviour::default().login(USER, PASSWORD).start().await;
    let url = database().await;
    let vault = Vault::parse(K1.as_bytes()).expect("a vault");
    insert_accounts(&url, &vault, "shop", 1..16, server.port()).await;
    insert_accounts(&url, &vault, "portal", 14..15, server.port()).await;
    let (_folder, keys) = key_file(&[K1]);
    let made = command(&["key", "create", "--site", "sites/-", "--role", "admin"], &url, &keys).await;
    let data_dir = DataDir::new();
    let arguments =
        ["--database-url", &url, "--vault-keys", text(&keys), "--retry-floor", "1s", "--drain-wait", "0s"];
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    let client = serving.client(stdout(&made).trim());
    // Only now, since a server would not start on an id that is damaged.
    eventually("a server", async || {
        let request = GetAccountRequest { name: "sites/shop/accounts/1".to_owned() };
        client.accounts().get_account(request).await.ok()
    })
    .await;
    let before = read(&url).await;
    let (damaged, whole) = damage(&before);
    write(&url, &damaged).await;

    let mut letters = BTreeMap::new();
    for (site, account) in before.keys() {
        letters.insert((site.clone(), *account), send(&client, site, *account).await);
    }
    let sent = eventually("the whole one", async || {
        let message = message(&client, &letters[&whole]).await;
        (message.state() == State::Sent).then_some(message)
    })
    .await;
    assert!(is_sent_at_once(&sent), "{sent:?}");
    let broken: Vec<_> = letters.iter().filter(|(of, _)| **of != whole).collect();
    assert_eq!(broken.len(), 15);
    for ((site, account), letter) in &broken {
        let name = format!("sites/{site}/accounts/{account}");
        let parking = eventually("parked", async || parking(&client, &name).await).await;
        assert_eq!(parking.reason(), Reason::Configuration, "{name}: {parking:?}");
        assert!(parking.error.starts_with("the password cannot be opened: "), "{name}: {parking:?}");
        let waits = message(&client, letter).await;
        assert!(waits.state() == State::Queued && waits.attempts.is_empty(), "{name}: {waits:?}");
        // Whoever checks the account is told, and nothing of the secret.
        let target = Some(check_account_request::Target::Name(name.clone()));
        let request =
            CheckAccountRequest { parent: format!("sites/{site}"), target, ..CheckAccountRequest::default() };
        let error = client.accounts().check_account(request).await.expect_err("no password");
        assert_eq!(reason(&error), (Code::FailedPrecondition, "KEY_UNKNOWN".to_owned()), "{name}");
        // People of the site see it in the account's log.
        let log = format!("sites/{site}/logs/send-admin-{account}");
        let entry = eventually("an entry", async || {
            let request = ListLogEntriesRequest { name: log.clone(), ..ListLogEntriesRequest::default() };
            let entries = client.logs().list_log_entries(request).await.ok()?.into_inner().entries;
            entries.into_iter().next()
        })
        .await;
        assert_eq!(entry.kind(), Kind::Error, "{entry:?}");
        assert!(entry.text.starts_with("the password cannot be opened: "), "{entry:?}");
        // The operator sees it in the server's.
        let (site, account) = (format!("site={site} "), format!("account={account} "));
        eventually("an alarm", async || {
            let printed = serving.printed();
            let mut alarms = printed.lines().filter(|line| line.contains("an account cannot be read"));
            let is = |line: &str| format!("{line} ").contains(&site) && format!("{line} ").contains(&account);
            alarms.any(is).then_some(())
        })
        .await;
    }
    let logins = |commands: &[String]| commands.iter().filter(|command| command.starts_with("AUTH")).count();
    let journal = server.journal();
    assert_eq!((logins(&journal.commands), journal.letters.len()), (1, 1), "{:?}", journal.commands);

    let checked = command(&["vault", "check"], &url, &keys).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(stderr(&checked).ends_with("15 stored secrets do not open\n"), "{}", stderr(&checked));
    for ((site, account), _) in &broken {
        let line = format!("sites/{site}/accounts/{account}\taccounts.sealed_password\t");
        assert!(stderr(&checked).contains(&line), "{line} is not in {}", stderr(&checked));
    }

    // A new password mends one; the others get back what they had.
    let mut mended = before;
    mended.remove(&("shop".to_owned(), 1));
    write(&url, &mended).await;
    change_password(&client, "sites/shop/accounts/1").await;
    for letter in letters.values() {
        let message = eventually("sent", async || {
            let message = message(&client, letter).await;
            (message.state() == State::Sent).then_some(message)
        })
        .await;
        assert!(is_sent_at_once(&message), "{message:?}");
    }
    let checked = command(&["vault", "check"], &url, &keys).await;
    assert!(checked.status.success(), "{}", stderr(&checked));
    serving.signal(Signal::SIGTERM);
    let (status, printed) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{printed}");
    assert!(!printed.contains("battery"), "{printed}");
}

async fn change_password(client: &Client, name: &str) {
    use postroom::api::proto::account::Auth;
    use postroom::api::proto::{Account, PasswordAuth, UpdateAccountRequest};
    use prost_types::FieldMask;

    let auth = PasswordAuth { username: USER.to_owned(), password: PASSWORD.to_owned(), password_set: false };
    let request = UpdateAccountRequest {
        account: Some(Account {
            name: name.to_owned(),
            auth: Some(Auth::Password(auth)),
            ..Account::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["auth".to_owned()] }),
        ..UpdateAccountRequest::default()
    };
    client.accounts().update_account(request).await.expect("a new password");
}
