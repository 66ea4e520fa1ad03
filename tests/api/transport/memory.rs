//! The memory that large requests may take together, however they are sent: half of 128 MiB for one key.

use std::future::poll_fn;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::SendStream;
use h2::client::ResponseFuture;
use postroom::api::proto::message::Content;
use postroom::api::proto::{
    Attachment, Composed, ListSitesRequest, Message, SendMessagesRequest, SendMessagesResponse,
};
use postroom::domain::access::{Role, Scope};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt as _;

use super::raw::{LIST_SITES, RawClient, SEND_MESSAGE, framed, head, status, with_prefix};
use crate::eventually::eventually;
use crate::support::{Options, PATIENCE, Postroom, SITE, letter, patiently, reason};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 25 * MIB;
/// Does not fit beside two large ones.
const PROBE: usize = 15 * MIB;
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// With the letters of its default, for which the least is enough.
async fn start() -> Postroom {
    Postroom::start_with(Options { max_letter_bytes: Some(LARGE), ..Options::default() }).await
}

/// A call whose request does not end.
type Open = (ResponseFuture, SendStream<Bytes>);

/// Sends bytes as the server takes them: at the end it has read all but a window of them.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let capacity = timeout(PATIENCE, poll_fn(|context| stream.poll_capacity(context))).await;
        let capacity = capacity.expect("read in time").expect("open").expect("room");
        stream.send_data(bytes.split_to(capacity.min(bytes.len())), false).expect("sent");
    }
}

/// Two letters as far as they go, in requests that do not end.
async fn begin_two(client: &mut RawClient, key: &str, encoding: &str, body: &Bytes) -> Vec<Open> {
    let mut open = Vec::new();
    for _ in 0..2 {
        let (response, mut stream) =
            client.begin(head(SEND_MESSAGE, Some(key), &[("grpc-encoding", encoding)])).await;
        send(&mut stream, body.clone()).await;
        open.push((response, stream));
    }
    open
}

/// How a further large letter ends, of which nothing but its beginning is there unless it is taken.
async fn probe(postroom: &Postroom, key: &str) -> Status {
    let mut client = RawClient::connect(&postroom.address).await;
    client.call(head(SEND_MESSAGE, Some(key), &[]), with_prefix(0, &vec![0; PROBE])).await
}

fn expect_refused(refused: &Status) {
    assert_eq!(reason(refused), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()), "{refused:?}");
    let wait = refused.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "a time to come back: {refused:?}");
}

/// Zeros are no protobuf: they were read to be told so.
fn expect_read(ended: &Status) {
    assert_eq!(reason(ended), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{ended:?}");
}

async fn is_held_to_the_end(encoding: &str, body: &Bytes) {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let open = begin_two(&mut client, &postroom.key, encoding, body).await;
    // The last window is read within no time; what is not held any more then would be taken by one of these.
    for _ in 0..3 {
        expect_refused(&probe(&postroom, &postroom.key).await);
    }
    let listed = patiently(async || postroom.settings().list_sites(ListSitesRequest::default()).await).await;
    listed.expect("small ones pass");
    // Another key has its own half.
    let other = postroom.make_key(Scope::AllSites, &[Role::Sender]).await;
    expect_read(&probe(&postroom, &other).await);
    for (response, mut stream) in open {
        stream.send_data(Bytes::new(), true).expect("open");
        expect_read(&status(response).await);
    }
    expect_read(&probe(&postroom, &postroom.key).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_letter_is_held_until_its_request_ends() {
    is_held_to_the_end("identity", &with_prefix(0, &vec![0; LARGE])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_letter_is_held_as_what_it_may_unpack_to() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![0; LARGE]).expect("packed");
    let packed = packed.finish().expect("packed");
    assert!(packed.len() < 64 * 1024, "small on the wire: {}", packed.len());
    is_held_to_the_end("gzip", &with_prefix(1, &packed)).await;
}

/// Nothing but the beginning is there, and the rest may come at any time.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_held_from_its_beginning() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let beginning = with_prefix(0, &vec![0; LARGE]).slice(..5);
    let open = begin_two(&mut client, &postroom.key, "identity", &beginning).await;
    let refused = eventually("a refusal", async || {
        Some(probe(&postroom, &postroom.key).await).filter(|ended| ended.code() == Code::ResourceExhausted)
    })
    .await;
    expect_refused(&refused);
    drop(open);
    let taken = async || {
        Some(probe(&postroom, &postroom.key).await).filter(|ended| ended.code() != Code::ResourceExhausted)
    };
    expect_read(&eventually("room again", taken).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_one_message() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let request = framed(&ListSitesRequest::default());
    let two = Bytes::from([&request[..], &request].concat());
    expect_read(&client.call(head(LIST_SITES, Some(&postroom.key), &[]), two).await);
    // Even if the second one is not complete.
    let three = Bytes::from([&request[..], &[0]].concat());
    expect_read(&client.call(head(LIST_SITES, Some(&postroom.key), &[]), three).await);
    expect_read(&client.call(head(LIST_SITES, Some(&postroom.key), &[]), request.slice(..3)).await);
}

/// An item of some size that is refused for what it says: nothing is stored.
fn item(index: i64, bytes: usize) -> SendMessagesRequest {
    let attachment = Attachment { content: vec![b'x'; bytes].into(), ..Attachment::default() };
    let composed = Composed { attachments: vec![attachment], ..Composed::default() };
    let content = Some(Content::Composed(composed));
    let message = Message { content, ..letter("shop@example.com", &["no address"]) };
    let parent = SITE.to_owned();
    SendMessagesRequest { parent, message: Some(message), index, ..SendMessagesRequest::default() }
}

type Items = mpsc::Sender<SendMessagesRequest>;

async fn stream(postroom: &Postroom) -> (Items, Streaming<SendMessagesResponse>) {
    let (items, received) = mpsc::channel(1);
    let client = postroom.send();
    let results =
        client.max_encoding_message_size(2 * LARGE).send_messages(ReceiverStream::new(received)).await;
    (items, results.expect("a stream").into_inner())
}

async fn expect_invalid(results: &mut Streaming<SendMessagesResponse>, index: i64) {
    let result =
        timeout(PATIENCE, results.message()).await.expect("in time").expect("open").expect("a result");
    assert_eq!((result.index, result.error.expect("refused").reason.as_str()), (index, "INVALID_FIELD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_streams_wait_for_memory() {
    let postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let body = with_prefix(0, &vec![0; LARGE]);
    let open = begin_two(&mut client, &postroom.key, "identity", &body).await;
    expect_refused(&probe(&postroom, &postroom.key).await);
    let (items, mut results) = stream(&postroom).await;
    items.send(item(1, 100)).await.expect("open");
    expect_invalid(&mut results, 1).await;
    items.send(item(2, PROBE)).await.expect("open");
    // Who asks behind it is refused, as before.
    expect_refused(&probe(&postroom, &postroom.key).await);
    drop(open);
    expect_invalid(&mut results, 2).await;
    items.send(item(3, 100)).await.expect("open");
    expect_invalid(&mut results, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_hold_nothing_between_their_items() {
    let postroom = start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let (items, mut results) = stream(&postroom).await;
        for (index, bytes) in [(1, 100), (2, LARGE - MIB), (3, 100), (4, MIB)] {
            items.send(item(index, bytes)).await.expect("open");
            expect_invalid(&mut results, index).await;
        }
        open.push((items, results));
    }
    expect_read(&probe(&postroom, &postroom.key).await);
    for (items, results) in &mut open {
        items.send(item(5, 100)).await.expect("open");
        expect_invalid(results, 5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_that_goes_on_does_not_hold_up_the_stop() {
    let mut postroom = start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let (response, mut question) = client.begin(head(REFLECTION, None, &[])).await;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { message_request, ..ServerReflectionRequest::default() };
    question.send_data(framed(&request), false).expect("sent");
    let response = timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200);
    timeout(PATIENCE, postroom.stop()).await.expect("the stop does not wait for it");
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data.expect("a clean end");
    }
    let trailers = body.trailers().await.expect("a clean end").expect("trailers");
    let ended = Status::from_header_map(&trailers).expect("a status");
    assert_eq!(reason(&ended), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
}
