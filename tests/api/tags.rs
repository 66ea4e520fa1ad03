//! Tags: few, short, and found exactly. And the copy that the sender asks for.

use postroom::api::proto::{ListMessagesRequest, Message, SendMessageRequest, recipient};
use tonic::Status;

use crate::desk::{FROM, start, submit};
use crate::support::{Postroom, SITE, bad_fields, letter};

async fn send(postroom: &Postroom, message: Message, validate_only: bool) -> Result<Message, Status> {
    let (parent, message) = (SITE.to_owned(), Some(message));
    let request = SendMessageRequest { parent, message, validate_only, ..SendMessageRequest::default() };
    Ok(postroom.send().send_message(request).await?.into_inner().message.expect("set"))
}

fn tagged(tags: &[&str]) -> Message {
    Message { tags: tags.iter().map(ToString::to_string).collect(), ..letter(FROM, &["ann@example.org"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_found_by_a_tag() {
    let (_server, postroom) = start().await;
    let red = submit(&postroom, tagged(&["red", "order 7", "red"])).await;
    let both = submit(&postroom, tagged(&["blue", "red"])).await;
    submit(&postroom, tagged(&[])).await;
    assert_eq!(red.tags, ["red", "order 7"], "each once, in their order");
    let list = async |tag: &str| {
        let request =
            ListMessagesRequest { parent: SITE.to_owned(), tag: tag.to_owned(), ..Default::default() };
        let page = postroom.send().list_messages(request).await.expect("a page").into_inner();
        page.messages.into_iter().map(|message| message.name).collect::<Vec<_>>()
    };
    assert_eq!(list("red").await, [both.name.clone(), red.name.clone()]);
    assert_eq!(list("order 7").await, [red.name]);
    assert_eq!(list("blue").await, [both.name]);
    assert_eq!(list("Red").await, [""; 0]);
    assert_eq!(list("").await.len(), 3);
    // A page of one tag leads to no page of another.
    let request = ListMessagesRequest {
        parent: SITE.to_owned(),
        page_size: 1,
        tag: "red".to_owned(),
        ..ListMessagesRequest::default()
    };
    let page = postroom.send().list_messages(request.clone()).await.expect("a page").into_inner();
    let next = ListMessagesRequest { page_token: page.next_page_token, ..request };
    let other = ListMessagesRequest { tag: "blue".to_owned(), ..next.clone() };
    assert_eq!(bad_fields(&postroom.send().list_messages(other).await.expect_err("another")), ["page_token"]);
    assert_eq!(postroom.send().list_messages(next).await.expect("a page").into_inner().messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_cannot_be_are_refused() {
    let (_server, postroom) = start().await;
    let long = "x".repeat(65);
    let refused =
        send(&postroom, tagged(&["good", "", &long, "a\0b"]), false).await.expect_err("three are bad");
    assert_eq!(bad_fields(&refused), ["message.tags[1]", "message.tags[2]", "message.tags[3]"]);
    let eleven: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    let refused = send(&postroom, tagged(&eleven), false).await.expect_err("too many");
    assert_eq!(bad_fields(&refused), ["message.tags"]);
    let valid = send(&postroom, tagged(&eleven[..10]), true).await.expect("ten");
    assert_eq!(valid.tags, eleven[..10]);
    let request =
        ListMessagesRequest { parent: SITE.to_owned(), tag: long, ..ListMessagesRequest::default() };
    assert_eq!(bad_fields(&postroom.send().list_messages(request).await.expect_err("too long")), ["tag"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_gets_the_copy_he_asks_for_and_no_two() {
    use recipient::Kind::{Bcc, Copy, To};
    let (server, postroom) = start().await;
    let from = format!("Shop <{FROM}>");
    let copy = |message: Message| Message { copy_to_sender: true, ..message };
    let named = Message { bcc: vec!["SHOP@example.com".to_owned()], ..letter(&from, &["ann@example.org"]) };
    let table = [
        (letter(&from, &["ann@example.org"]), vec![(To, "ann@example.org")]),
        (copy(letter(&from, &["ann@example.org"])), vec![(To, "ann@example.org"), (Copy, FROM)]),
        (copy(named), vec![(To, "ann@example.org"), (Bcc, "SHOP@example.com")]),
    ];
    for (message, expected) in table {
        let wanted = message.copy_to_sender;
        let valid = send(&postroom, message.clone(), true).await.expect("valid");
        let sent = postroom.send_and_wait(message).await;
        assert_eq!((valid.copy_to_sender, sent.copy_to_sender), (wanted, wanted));
        for of in [&valid, &sent] {
            let recipients: Vec<_> = of.recipients.iter().map(|r| (r.kind(), r.address.as_str())).collect();
            assert_eq!(recipients, expected);
        }
        let arrived = server.journal().letters.last().cloned().expect("arrived");
        assert_eq!(arrived.recipients.len(), expected.len(), "{arrived:?}");
        let text = String::from_utf8(arrived.content).expect("7-bit");
        let naming: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains(FROM)).collect();
        assert_eq!(naming, [format!("From: {from}")], "{text}");
    }
    assert_eq!(sent_to(&postroom).await, vec![vec!["ann@example.org".to_owned()]; 3]);
}

/// Whom the letters of the site name in `to`, newest first.
async fn sent_to(postroom: &Postroom) -> Vec<Vec<String>> {
    let request = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
    let letters = postroom.send().list_messages(request).await.expect("a page").into_inner().messages;
    letters.into_iter().map(|letter| letter.to).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_counts_among_the_thousand() {
    let (_server, postroom) = start().await;
    let to: Vec<String> = (0..1_000).map(|number| format!("r{number}@example.org")).collect();
    let of = |count: usize, extra: &[&str]| {
        let to: Vec<&str> = to[..count].iter().map(String::as_str).chain(extra.iter().copied()).collect();
        Message { copy_to_sender: true, ..letter(FROM, &to) }
    };
    assert_eq!(send(&postroom, of(999, &[]), true).await.expect("a thousand").recipients.len(), 1_000);
    assert_eq!(send(&postroom, of(999, &[FROM]), true).await.expect("a thousand").recipients.len(), 1_000);
    for message in [of(1_000, &[]), of(0, &[])] {
        let refused = send(&postroom, message, true).await.expect_err("too many, or nobody");
        assert_eq!(bad_fields(&refused), ["message.to"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_with_other_terms_is_refused() {
    let (_server, postroom) = start().await;
    let request = |message: Message| SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: "one".to_owned(),
        ..SendMessageRequest::default()
    };
    postroom.send().send_message(request(tagged(&["a"]))).await.expect("taken");
    postroom.send().send_message(request(tagged(&["a"]))).await.expect("known");
    let others = [
        tagged(&["b"]),
        Message { copy_to_sender: true, ..tagged(&["a"]) },
        Message { send_time: crate::desk::in_millis(1_000), ..tagged(&["a"]) },
        Message { expire_time: crate::desk::in_millis(60_000), ..tagged(&["a"]) },
    ];
    for other in others {
        let refused = postroom.send().send_message(request(other)).await.expect_err("another letter");
        assert_eq!(crate::support::reason(&refused).1, "REQUEST_ID_REUSED");
    }
}
