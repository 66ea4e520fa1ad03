//! Requests that are small on the wire and large in memory: refused by what they would decode into, before they are decoded.
//! The memory that they take is measured by benches/abuse.rs.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use postroom::api::proto::message::{Content, State};
use postroom::api::proto::{
    Attachment, CancelMessagesRequest, Composed, Message, RestoreSettingsRequest, SendMessageRequest,
    SendMessagesRequest, TailLogEntriesRequest, UpdateSettingsRequest,
};
use prost::Message as _;
use prost_types::FieldMask;
use tonic::{Code, Status};

use super::raw::{RawClient, SEND_MESSAGE, TAIL, head, status, with_prefix};
use crate::support::{Options, Postroom, SITE, bad_fields, letter, reason};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 25 * MIB;
/// As the server has it.
const MAX_ELEMENTS: usize = 5_000;
const SEND_MESSAGES: &str = "/postroom.v1.SendService/SendMessages";
const CANCEL_MESSAGES: &str = "/postroom.v1.SendService/CancelMessages";
const UPDATE_SETTINGS: &str = "/postroom.v1.SettingsService/UpdateSettings";
const RESTORE_SETTINGS: &str = "/postroom.v1.SettingsService/RestoreSettings";

async fn start() -> Postroom {
    Postroom::start_with(Options { max_letter_bytes: Some(LARGE), ..Options::default() }).await
}

fn with_attachments(number: usize) -> Message {
    let composed = Composed { attachments: vec![Attachment::default(); number], ..Composed::default() };
    let content = Some(Content::Composed(composed));
    Message { content, ..letter("shop@example.com", &["ann@example.org"]) }
}

/// As large as a letter may be, of attachments of two bytes, written by hand: decoded they would take more than a gigabyte.
fn empties() -> Bytes {
    let within = |tag: u8, message: &[u8]| {
        let mut field = vec![tag];
        prost::encoding::encode_varint(message.len() as u64, &mut field);
        [&field, message].concat()
    };
    // `message` of the request, `composed` of the message.
    within(0x12, &within(0x32, &[0x2a, 0].repeat(LARGE / 2))).into()
}

fn expect_refused(refused: &Status, field: &str) {
    assert_eq!(reason(refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{refused:?}");
    assert_eq!(bad_fields(refused), [field], "{refused:?}");
    assert!(refused.message().contains("at most 5000"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_attachments_are_refused_plain_and_packed() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let request = empties();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&request).expect("packed");
    let packed = packed.finish().expect("packed");
    for (encoding, body) in [("identity", with_prefix(0, &request)), ("gzip", with_prefix(1, &packed))] {
        let head = head(SEND_MESSAGE, Some(&postroom.key), &[("grpc-encoding", encoding)]);
        expect_refused(&client.call(head, body).await, "message.composed.attachments");
    }
    // One that is not far too long is told its own rule.
    let parent = SITE.to_owned();
    let request = SendMessageRequest {
        parent,
        message: Some(with_attachments(MAX_ELEMENTS - 10)),
        ..SendMessageRequest::default()
    };
    let refused = postroom.send().send_message(request).await.expect_err("too many");
    assert_eq!(bad_fields(&refused), ["message.composed.attachments"], "{refused:?}");
    assert!(!refused.message().contains("5000"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_with_too_many_elements_ends_its_stream() {
    let postroom = start().await;
    let item = |message| SendMessagesRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        ..SendMessagesRequest::default()
    };
    let items = [item(with_attachments(1)), item(with_attachments(MAX_ELEMENTS))];
    let mut results =
        postroom.send().send_messages(tokio_stream::iter(items)).await.expect("a stream").into_inner();
    let first = results.message().await.expect("open").expect("a result");
    assert_eq!(first.error.expect("no account").reason, "NO_MATCHING_ACCOUNT");
    expect_refused(&results.message().await.expect_err("too many"), "message.composed.attachments");
    // Large ones, behind which the stream reads with another decoder.
    let mut client = RawClient::connect(&postroom.address).await;
    let large = SendMessagesRequest {
        message: Some(Message { content: Some(Content::Raw(vec![b'x'; MIB].into())), ..Message::default() }),
        ..SendMessagesRequest::default()
    };
    let (response, mut stream) = client.begin(head(SEND_MESSAGES, Some(&postroom.key), &[])).await;
    stream.send_data(with_prefix(0, &large.encode_to_vec()), false).expect("open");
    stream.send_data(with_prefix(0, &empties()), true).expect("open");
    expect_refused(&status(response).await, "message.composed.attachments");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_all_kinds_are_bounded() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let many = MAX_ELEMENTS + 1;
    let texts = || vec![String::new(); many];
    let mask = Some(FieldMask { paths: texts() });
    for (path, request, field) in [
        (TAIL, TailLogEntriesRequest { logs: texts(), ..Default::default() }.encode_to_vec(), "logs"),
        (
            RESTORE_SETTINGS,
            RestoreSettingsRequest { paths: texts(), ..Default::default() }.encode_to_vec(),
            "paths",
        ),
        (
            UPDATE_SETTINGS,
            UpdateSettingsRequest { update_mask: mask, ..Default::default() }.encode_to_vec(),
            "update_mask.paths",
        ),
        (
            CANCEL_MESSAGES,
            CancelMessagesRequest { states: vec![State::Queued.into(); many], ..Default::default() }
                .encode_to_vec(),
            "states",
        ),
    ] {
        let refused = client.call(head(path, Some(&postroom.key), &[]), with_prefix(0, &request)).await;
        expect_refused(&refused, field);
    }
}

/// Prost decodes a message as far as it says that it goes, and only then looks whether it went too far.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_longer_than_the_one_around_it_is_refused() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let attachments = [0x2a, 0].repeat(LARGE / 2);
    let mut length = Vec::new();
    prost::encoding::encode_varint(attachments.len() as u64, &mut length);
    // `message` has room for no more than the beginning of `composed`.
    let short = u8::try_from(1 + length.len()).expect("short");
    let request = [&[0x12, short, 0x32], &length[..], &attachments].concat();
    let refused = client.call(head(SEND_MESSAGE, Some(&postroom.key), &[]), with_prefix(0, &request)).await;
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{refused:?}");
    assert_eq!(bad_fields(&refused), ["message.composed"], "{refused:?}");
}
