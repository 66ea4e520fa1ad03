//! Notes beside everything else that happens to a site at the same time: nothing waits for ever, nothing is lost.

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, CreateAccountRequest, DeleteAccountRequest, Settings, TailLogEntriesRequest,
};
use postroom::domain::access::{Role, Scope};
use postroom::store::keys;
use uuid::Uuid;

use super::{Auditor, Person, patiently};
use crate::desk::{FROM, count, start};
use crate::support::{SITE, letter, plain_account};

/// How often each is done.
const ROUNDS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn changes_reads_and_letters_do_not_stand_in_each_others_way() {
    let (server, mut postroom) = start().await;
    let auditor = Auditor::new(&postroom).await;
    let persons = [
        Person::new(&postroom, Role::Operator).await,
        Person::new(&postroom, Role::Operator).await,
        Person::new(&postroom, Role::Operator).await,
    ];
    let [one, two, three] = &persons;
    let before = auditor.texts().await.len();
    let letters = async |prefix: &str| {
        for number in 0..2 * ROUNDS {
            let to = format!("{prefix}{number}@example.org");
            let sent = postroom.send_and_wait(letter(FROM, &[&to])).await;
            assert_eq!(sent.state(), State::Sent, "{sent:?}");
        }
    };
    let account = async || {
        for round in 0..ROUNDS {
            let account = Account {
                name: format!("{SITE}/accounts/1"),
                sender_name: format!("Round {round}"),
                ..Account::default()
            };
            patiently(async || one.change_account(account.clone()).await).await;
        }
    };
    let settings = async || {
        for round in 0..ROUNDS {
            let settings = Settings { send_in_parts: Some(round % 2 == 0), ..Settings::default() };
            patiently(async || two.change_settings(settings.clone()).await).await;
        }
    };
    let others = async || {
        for _ in 0..ROUNDS {
            let request = CreateAccountRequest {
                parent: SITE.to_owned(),
                account: Some(plain_account(&server, "other@example.com")),
                request_id: Uuid::now_v7().to_string(),
                validate_only: false,
            };
            let made = patiently(async || three.accounts().create_account(request.clone()).await).await;
            let name = made.into_inner().account.expect("set").name;
            let request = DeleteAccountRequest { name, force: true, etag: String::new() };
            patiently(async || three.accounts().delete_account(request.clone()).await).await;
        }
    };
    let reads = async || {
        for _ in 0..ROUNDS {
            let reader = Person::of(&postroom, Role::Operator, Scope::AllSites).await;
            patiently(async || reader.entries("check-admin-0").await).await;
            patiently(async || reader.tail(TailLogEntriesRequest::default()).await).await;
            patiently(async || reader.clear("check-admin-0").await).await;
            let store = postroom.store();
            assert!(keys::revoke(&store, reader.id).await.expect("revoked"));
            store.close().await;
        }
    };
    tokio::join!(letters("a"), letters("b"), letters("c"), account(), settings(), others(), reads());

    let told = auditor.entries().await.split_off(before);
    let counted = |text: &str| told.iter().filter(|entry| entry.text.contains(text)).count();
    for (text, times) in [
        (one.did("changed sites/shop/accounts/1: sender_name"), ROUNDS),
        (two.did("changed sites/shop/settings: send_in_parts"), ROUNDS),
        (three.did("created sites/shop/accounts/"), ROUNDS),
        (three.did("deleted sites/shop/accounts/"), ROUNDS),
        (") read sites/shop/logs/check-admin-0".to_owned(), ROUNDS),
        (") tailed all logs".to_owned(), ROUNDS),
        ("the command line made key".to_owned(), ROUNDS),
        ("the command line revoked key".to_owned(), ROUNDS),
    ] {
        assert_eq!(counted(&text), times, "{text}");
    }
    // The server's connections tell what they counted when they end at the latest.
    postroom.stop().await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(count(&postroom, deadlocks).await, 0);
}
