//! `grpc-timeout` is obeyed by the server, whatever the client does; what was begun is stored.

use postroom::api::proto::{
    ListMessagesRequest, ListSitesRequest, SendMessageRequest, TailLogEntriesRequest,
};
use tonic::Code;

use super::raw::{LIST_SITES, RawClient, SEND_MESSAGE, TAIL, framed, head};
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_ends_at_its_deadline_and_its_letter_is_stored() {
    // A mail server that never answers the dot: nothing but the deadline ends the wait.
    let server = Behaviour::default().each("dot", "", Then::Silence).start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let mut client = RawClient::connect(&postroom.address).await;
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..SendMessageRequest::default()
    };
    let call = head(SEND_MESSAGE, Some(&postroom.key), &[("grpc-timeout", "2S")]);
    let ended = client.call(call, framed(&request)).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
    let request = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
    let stored = postroom.send().list_messages(request).await.expect("listed").into_inner().messages;
    assert_eq!(stored.len(), 1, "what was begun goes on to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_come_ends_at_its_deadline() {
    let postroom = Postroom::start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let call = head(LIST_SITES, Some(&postroom.key), &[("grpc-timeout", "100m")]);
    let (response, _open) = client.begin(call).await;
    let ended = super::raw::status(response).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_its_deadline() {
    let postroom = Postroom::start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let call = head(TAIL, Some(&postroom.key), &[("grpc-timeout", "500m")]);
    let ended = client.call(call, framed(&request)).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_that_cannot_be_read_are_refused() {
    let postroom = Postroom::start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let body = || framed(&ListSitesRequest::default());
    for timeout in ["soon", "5", "-1S", "123456789S", "1.5S"] {
        let call = head(LIST_SITES, Some(&postroom.key), &[("grpc-timeout", timeout)]);
        let refused = client.call(call, body()).await;
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{timeout}");
        assert_eq!(bad_fields(&refused), ["grpc-timeout"]);
    }
    for timeout in ["99999999H", "60S"] {
        let call = head(LIST_SITES, Some(&postroom.key), &[("grpc-timeout", timeout)]);
        assert_eq!(client.call(call, body()).await.code(), Code::Ok, "{timeout}");
    }
}
