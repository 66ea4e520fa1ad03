//! A letter's way: from the call to the server's 250, and what is remembered of it.

use postroom::api::proto::message::State;
use postroom::api::proto::{attempt, recipient};

use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, letter, plain_account};

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_travels() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let sent = postroom.send_and_wait(letter("shop@example.com", &["Ann <ann@example.org>"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(sent.account, account.name);
    assert_eq!(sent.recipients[0].state(), recipient::State::Sent);
    assert_eq!(sent.attempts[0].outcome(), attempt::Outcome::Sent);
    let letters = server.journal().letters;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].recipients[0].contains("ann@example.org"));
}
