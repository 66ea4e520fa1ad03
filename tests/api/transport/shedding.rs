//! More calls than the server takes at once: refused at once, with a time to come back.

use std::time::Instant;

use postroom::api::proto::{ListSitesRequest, TailLogEntriesRequest};
use postroom::transport::TransportOptions;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::raw::{LIST_SITES, RawClient, framed, head, status};
use crate::eventually::eventually;
use crate::support::{Options, PATIENCE, Postroom, SITE, patiently, reason};

fn expect_shed(refused: &Status) {
    assert_eq!(reason(refused), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()), "{refused:?}");
    let wait = refused.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "a time to come back: {refused:?}");
}

async fn bounded(max_calls: usize, max_streams: usize) -> (Postroom, Postroom) {
    let postroom = Postroom::start().await;
    let transport = TransportOptions { max_calls, max_streams, ..TransportOptions::default() };
    let bounded = postroom.another_with(Options { transport, ..Options::default() }).await;
    (postroom, bounded)
}

async fn is_healthy(postroom: &Postroom) {
    let health = HealthClient::new(postroom.bare_channel()).check(HealthCheckRequest::default()).await;
    assert_eq!(health.expect("health has places of its own").into_inner().status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_above_the_bound_are_refused() {
    let (_first, postroom) = bounded(2, 2).await;
    let list = async || postroom.settings().list_sites(ListSitesRequest::default()).await;
    let mut client = RawClient::connect(&postroom.address).await;
    // Requests that do not come to their end. Nothing tells when one is there: it may find a good call in its place.
    let mut held = Vec::new();
    let start = Instant::now();
    let refused = loop {
        held.push(client.begin(head(LIST_SITES, Some(&postroom.key), &[])).await);
        match list().await {
            Err(refused) if refused.code() != Code::Unavailable => break refused,
            Ok(_) | Err(_) => {}
        }
        assert!(start.elapsed() < PATIENCE, "never refused");
    };
    expect_shed(&refused);
    is_healthy(&postroom).await;
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let tail = patiently(async || postroom.logs().tail_log_entries(request.clone()).await).await;
    tail.expect("streams have places of their own");
    // Those that hold places are served in the end.
    let mut served = 0;
    for (response, mut stream) in held {
        // Fails where the call was refused.
        let _ = stream.send_data(framed(&ListSitesRequest::default()), true);
        let ended = status(response).await;
        if ended.code() == Code::Ok {
            served += 1;
        } else if ended.code() != Code::Unavailable {
            expect_shed(&ended);
        }
    }
    assert!(served <= 2, "{served}");
    patiently(list).await.expect("there is a place again");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_above_the_bound_are_refused() {
    let (_first, postroom) = bounded(2, 1).await;
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let tail = async || postroom.logs().tail_log_entries(request.clone()).await;
    let mut first = patiently(tail).await.expect("a place");
    first.message().await.expect("open").expect("a first response");
    expect_shed(&tail().await.expect_err("no place"));
    is_healthy(&postroom).await;
    let listed = patiently(async || postroom.settings().list_sites(ListSitesRequest::default()).await).await;
    listed.expect("calls have places of their own");
    drop(first);
    eventually("a place again", async || tail().await.ok()).await;
}
