//! The size limit (CASES 35): of a letter after encoding, of a request on the wire, and of what a compressed one unpacks to.

use postroom::api::proto::message::Content;
use postroom::api::proto::{Attachment, Composed, Message, SendMessageRequest};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, plain_account, reason, variable};

const MIB: usize = 1024 * 1024;

async fn limited() -> (Postroom, Server) {
    let server = Behaviour::default().start().await;
    let options = Options { max_letter_bytes: Some(2 * MIB), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    (postroom, server)
}

fn with_attachment(bytes: usize) -> SendMessageRequest {
    let attachment = Attachment { content: vec![b'x'; bytes].into(), ..Attachment::default() };
    let composed = Composed { attachments: vec![attachment], ..Composed::default() };
    let message = Message {
        content: Some(Content::Composed(composed)),
        ..letter("shop@example.com", &["ann@example.org"])
    };
    SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..SendMessageRequest::default()
    }
}

fn expect_too_large(refused: &Status) {
    assert_eq!(reason(refused), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()), "{refused:?}");
    assert_eq!(variable(refused, "max_bytes"), (2 * MIB).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_over_the_limit_is_refused_at_whatever_stage() {
    let (postroom, server) = limited().await;
    // Fits into a request, but base64 makes it larger than a letter may be.
    let refused = postroom.send().send_message(with_attachment(MIB * 8 / 5)).await.expect_err("too large");
    expect_too_large(&refused);
    // Does not fit into a request.
    let refused = postroom.send().send_message(with_attachment(4 * MIB)).await.expect_err("too large");
    expect_too_large(&refused);
    let taken = postroom.send().send_message(with_attachment(MIB * 7 / 5)).await.expect("within");
    let size = taken.into_inner().message.expect("set").size;
    assert!(size > 1_900_000, "{size}");
    assert_eq!(server.journal().letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_are_taken_and_bombs_are_not() {
    let (postroom, server) = limited().await;
    let mut client = postroom
        .send()
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.send_message(with_attachment(MIB)).await.expect("taken");
    assert_eq!(answer.into_inner().message.expect("set").recipients.len(), 1);
    assert_eq!(server.journal().letters.len(), 1);
    // 64 MiB of one letter are some 64 KiB on the wire.
    let bomb = client.send_message(with_attachment(64 * MIB)).await.expect_err("a bomb");
    expect_too_large(&bomb);
}
