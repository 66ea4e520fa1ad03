//! The code of a sender stands in its letter and nowhere else.

use std::time::Duration;

use nix::sys::signal::Signal;
use postroom::api::proto::message::State;
use postroom::api::proto::{
    ConfirmSenderRequest, CreateSenderRequest, ListMessagesRequest, ListSendersRequest,
};

use super::answers::{Answers, tail};
use super::canary::hex;
use super::{dump, keep_every_byte};
use crate::binary::{DataDir, Serving};
use crate::scripted::ordinary::Behaviour;
use crate::senders::{code, of_user};
use crate::support::{PATIENCE, SITE, plain_account};

/// Where the code stands: in clear as a word of its own (a longer number or a fraction of a second may have the same
/// digits), in hexadecimal, or as a list of numbers.
fn finds(text: &str, code: &str) -> Option<String> {
    let is_apart = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + code.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '.') && !after.is_some_and(char::is_alphanumeric)
    };
    let hex = hex(code.as_bytes());
    let numbers = code.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let at = text
        .match_indices(code)
        .map(|(at, _)| at)
        .find(|at| is_apart(*at))
        .or_else(|| text.find(&hex))
        .or_else(|| text.find(&numbers))?;
    let around = text[..at].char_indices().rev().nth(200).map_or(0, |(start, _)| start);
    Some(text[around..at].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_a_sender_is_found_nowhere() {
    let server = Behaviour::default().start().await;
    let data_dir = DataDir::new();
    let arguments = ["--log-filter", "trace", "--log-format", "json", "--drain-wait", "0s"];
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    data_dir.lines(&["site", "create", "shop"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let client = serving.client(&key);
    keep_every_byte(&client).await;
    let tail = tail(&client).await;
    let mut answers = Answers { client, told: String::new() };
    for address in ["shop@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"] {
        answers.create(plain_account(&server, address)).await;
    }
    let mut accounts = answers.client.accounts();
    let request =
        CreateSenderRequest { parent: SITE.to_owned(), sender: Some(of_user("ann")), ..Default::default() };
    let created = accounts.create_sender(request).await.expect("asked").into_inner();
    answers.note(&created);
    let code = code(&server, 1).await;
    let letter = server.journal().letters[0].content.clone();
    assert!(finds(&String::from_utf8_lossy(&letter), &code).is_some(), "the search finds what is there");

    let name = created.sender.expect("set").name;
    let wrong = ConfirmSenderRequest { name: name.clone(), code: "x".to_owned() };
    answers.note(&accounts.confirm_sender(wrong).await.expect_err("no code"));
    let right = ConfirmSenderRequest { name, code: code.clone() };
    assert!(!format!("{right:?}").contains(&code));
    answers.note(&accounts.confirm_sender(right).await.expect("confirmed"));
    let request =
        ListSendersRequest { parent: SITE.to_owned(), user: "ann".to_owned(), ..Default::default() };
    answers.note(&accounts.list_senders(request).await.expect("listed"));
    let start = std::time::Instant::now();
    loop {
        let request = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
        let letters = answers.client.send().list_messages(request).await.expect("listed").into_inner();
        if letters.messages[0].state() == State::Sent {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{letters:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answers.read().await;
    let database = dump(&data_dir).await;
    serving.signal(Signal::SIGTERM);
    let (_, output) = serving.end(PATIENCE).await;
    let tail = tail.await.expect("no panic");

    for (place, text) in
        [("answers", &answers.told), ("tail", &tail), ("database", &database), ("output", &output)]
    {
        assert_eq!(finds(text, &code), None, "{place}");
        assert!(text.contains("shop@example.com") || place == "output", "{place} was looked at");
    }
    assert!(answers.told.contains("DATA"), "every byte but the letter's own was kept");
}
