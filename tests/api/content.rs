//! The content of letters: the exact bytes, for those who may, and never that of letters of Postroom's own.

use postroom::api::proto::message::Content;
use postroom::api::proto::{CreateSenderRequest, GetMessageContentRequest, ListMessagesRequest, Message};
use tonic::{Code, Status};

use crate::desk::{FROM, start, waiting};
use crate::support::{Postroom, SITE, letter, reason};

/// The content in its chunks.
async fn chunks(postroom: &Postroom, name: &str) -> Result<Vec<Vec<u8>>, Status> {
    let request = GetMessageContentRequest { name: name.to_owned() };
    let mut stream = postroom.send().get_message_content(request).await?.into_inner();
    let mut chunks = Vec::new();
    while let Some(response) = stream.message().await? {
        chunks.push(response.content);
    }
    Ok(chunks)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_is_what_the_server_got() {
    let (server, postroom) = start().await;
    // Lines that begin with a dot, and several stretches of the store.
    let text = ".\r\n..two\r\n".repeat(200) + &"0123456789abcdef\r\n".repeat(180_000);
    let raw = format!("From: {FROM}\r\nTo: ann@example.org\r\nSubject: Long\r\n\r\n{text}");
    let long = Message { content: Some(Content::Raw(raw.into())), ..Message::default() };
    for message in [letter(FROM, &["ann@example.org"]), long] {
        let sent = postroom.send_and_wait(message).await;
        let chunks = chunks(&postroom, &sent.name).await.expect("content");
        assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= 64 * 1024));
        let content = chunks.concat();
        assert_eq!(i64::try_from(content.len()).expect("small"), sent.size);
        let letters = server.journal().letters;
        assert!(content == letters.last().expect("arrived").content, "other bytes than were sent");
    }
    // It can be read before anybody got it, and where its length is that of a stretch to the byte.
    let waiting = waiting(&postroom, &["ann@example.org"]).await;
    assert!(!chunks(&postroom, &waiting.name).await.expect("content").is_empty());
    let exactly = "update message_bodies set content = convert_to(repeat('x', 1048576), 'UTF8')";
    crate::desk::execute(&postroom, exactly).await;
    assert_eq!(chunks(&postroom, &waiting.name).await.expect("content").concat().len(), 1_048_576);
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_never_shown() {
    let (server, postroom) = start().await;
    let sender = postroom::api::proto::Sender {
        sender_email: FROM.to_owned(),
        user: "ann".to_owned(),
        ..postroom::api::proto::Sender::default()
    };
    let request = CreateSenderRequest {
        parent: SITE.to_owned(),
        sender: Some(sender),
        ..CreateSenderRequest::default()
    };
    postroom.accounts().create_sender(request).await.expect("a code is mailed");
    let request = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
    let letters = postroom.send().list_messages(request).await.expect("a page").into_inner().messages;
    let refused = chunks(&postroom, &letters[0].name).await.expect_err("waiting or under way");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    server.wait_until(|journal| !journal.letters.is_empty()).await;
    let refused = chunks(&postroom, &letters[0].name).await.expect_err("sent");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_content_of_what_is_not_there() {
    let postroom = Postroom::start().await;
    let missing = chunks(&postroom, &format!("{SITE}/messages/{}", uuid::Uuid::now_v7())).await;
    assert_eq!(reason(&missing.expect_err("missing")), (Code::NotFound, "NOT_FOUND".to_owned()));
}
