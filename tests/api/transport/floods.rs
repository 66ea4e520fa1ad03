//! Floods of frames: the connection ends, and nobody else notices (CASES 59).

use postroom::api::proto::ListSitesRequest;

use super::raw::{
    CONTINUATION, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, HEALTH_CHECK, Hand, LIST_SITES, RST_STREAM,
    RawClient, field, fields, frame, framed, head, reset, status,
};
use crate::support::{Postroom, patiently};

const STREAMS: u32 = 10_000;
/// Where the connection must have ended: what the sockets of both sides hold, and some.
const FLOOD_BYTES: usize = 64 * 1024 * 1024;

async fn is_served(postroom: &Postroom) {
    let listed = patiently(async || postroom.settings().list_sites(ListSitesRequest::default()).await).await;
    listed.expect("a good client is served");
}

/// In one go: the server has not yet taken a stream when it is reset (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_reset_at_once_end_the_connection() {
    let postroom = Postroom::start().await;
    let streams = (0..STREAMS).map(|number| {
        let id = number * 2 + 1;
        let headers = frame(HEADERS, END_HEADERS, id, &fields(LIST_SITES));
        [headers, frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    });
    let chunks: Vec<Vec<u8>> = streams.collect::<Vec<_>>().chunks(500).map(<[Vec<u8>]>::concat).collect();
    let (_, code) = Hand::connect(&postroom.address).await.flood(chunks.into_iter()).await;
    // It may end so suddenly that the reason is lost on the way.
    assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{code:?}");
    is_served(&postroom).await;
}

/// One behind the other, as fast as a library of HTTP/2 allows.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_reset_one_by_one_hold_up_nobody() {
    let postroom = Postroom::start().await;
    let mut client = RawClient::connect(&postroom.address).await;
    let mut connections = 1;
    for number in 0..STREAMS {
        let call = || head(LIST_SITES, Some(&postroom.key), &[]);
        if reset(&mut client, call()).await.is_err() {
            connections += 1;
            client = RawClient::connect(&postroom.address).await;
        }
        if number % 1_000 == 0 {
            is_served(&postroom).await;
        }
    }
    println!("{connections} connections");
    is_served(&postroom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_end_the_connection() {
    let postroom = Postroom::start().await;
    let beginning = frame(HEADERS, 0, 1, &fields(LIST_SITES));
    let part: Vec<u8> = (0..100).flat_map(|number| field(&format!("x-{number}"), &"v".repeat(100))).collect();
    let parts = std::iter::repeat_with(move || frame(CONTINUATION, 0, 1, &part));
    let size = frame(CONTINUATION, 0, 1, &[0; 10_500]).len();
    let flood = std::iter::once(beginning).chain(parts.take(FLOOD_BYTES / size));
    let (written, code) = Hand::connect(&postroom.address).await.flood(flood).await;
    assert!(written < FLOOD_BYTES / 2, "{written} bytes were taken, then {code:?}");
    is_served(&postroom).await;
}

/// Empty parts cost nothing of the size, and are counted nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn empty_parts_of_headers_end_the_connection() {
    let postroom = Postroom::start().await;
    let beginning = frame(HEADERS, 0, 1, &fields(LIST_SITES));
    let parts = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &[]).repeat(1_000));
    let flood = std::iter::once(beginning).chain(parts.take(FLOOD_BYTES / 9_000));
    let (written, code) = Hand::connect(&postroom.address).await.flood(flood).await;
    assert!(written < FLOOD_BYTES / 2, "{written} bytes were taken, then {code:?}");
    is_served(&postroom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_large_are_refused() {
    let postroom = Postroom::start().await;
    let large = "v".repeat(20 * 1024);
    let names: Vec<String> = (0..2_000).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    for more in [&[("x-large", large.as_str())][..], &many] {
        let mut client = RawClient::connect(&postroom.address).await;
        let (response, _stream) = client.begin(head(LIST_SITES, Some(&postroom.key), more)).await;
        match response.await {
            Ok(answer) => assert_eq!(answer.status(), 431),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
        }
        // The fault is that call's alone, unless the connection had to end.
        if let Ok((response, mut stream)) = client.try_begin(head(HEALTH_CHECK, None, &[])).await {
            stream.send_data(framed(&tonic_health::pb::HealthCheckRequest::default()), true).expect("sent");
            assert_eq!(status(response).await.code(), tonic::Code::Ok);
        }
        is_served(&postroom).await;
    }
}
