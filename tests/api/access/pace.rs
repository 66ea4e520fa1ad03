//! How often keys may call, and when they last did.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use postroom::api::proto::SendMessagesRequest;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::domain::access::{Caller, Role, Rpc, Scope, key_hash, new_key};
use postroom::store::keys;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::calls::{Things, call};
use crate::eventually::eventually;
use crate::support::{Postroom, reason};

async fn key_of(postroom: &Postroom, per_second: u32) -> String {
    let calls_per_second = NonZeroU32::new(per_second);
    let caller = Caller { calls_per_second, ..Caller::new(Scope::AllSites, vec![Role::Admin]) };
    let key = new_key().expect("randomness");
    let store = postroom.store();
    keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored");
    store.close().await;
    String::from_utf8(key.expose().to_vec()).expect("ASCII")
}

fn limited(status: &Status) -> Duration {
    assert_eq!(reason(status), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()));
    status.get_details_retry_info().and_then(|info| info.retry_delay).expect("when to try again")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_calls_too_often_is_told_when_to_call_again() {
    let postroom = Postroom::start().await;
    let channel = postroom.channel(&key_of(&postroom, 1).await);
    let things = Things::missing("shop");
    call(Rpc::GetSite, channel.clone(), &things).await.expect("the first");
    let refused = loop {
        if let Err(refused) = call(Rpc::GetSite, channel.clone(), &things).await {
            break refused;
        }
    };
    let info = refused.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.metadata["calls_per_second"], "1");
    let wait = limited(&refused);
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    tokio::time::sleep(wait).await;
    call(Rpc::GetSite, channel, &things).await.expect("when it was told");
    // Nobody else is held up.
    for _ in 0..10 {
        call(Rpc::GetSite, postroom.channel(&postroom.key), &things).await.expect("another key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_stream_are_slowed_down_and_not_refused() {
    const ITEMS: u32 = 6;
    let postroom = Postroom::start().await;
    let mut letters = SendServiceClient::new(postroom.channel(&key_of(&postroom, 3).await));
    let start = Instant::now();
    let items = (0..ITEMS).map(|index| SendMessagesRequest {
        parent: "sites/shop".to_owned(),
        index: index.into(),
        ..SendMessagesRequest::default()
    });
    let items = tokio_stream::iter(items.collect::<Vec<_>>());
    let mut results = letters.send_messages(items).await.expect("a stream").into_inner();
    let mut answered = 0;
    while let Some(result) = results.message().await.expect("open") {
        assert_eq!(result.error.expect("no letter").reason, "INVALID_FIELD");
        answered += 1;
    }
    assert_eq!(answered, ITEMS);
    // The call and two items at once; the others come one by one.
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_invents_keys_keeps_the_store_from_nobody() {
    const INVENTED: usize = 400;
    let postroom = Postroom::start().await;
    let things = Things::missing("shop");
    let known = postroom.channel(&postroom.key);
    call(Rpc::GetSite, known.clone(), &things).await.expect("a good key");
    // Keys that exist, but were not seen here.
    let mut unused = Vec::new();
    for _ in 0..20 {
        unused.push(postroom.make_key(Scope::AllSites, &[Role::Auditor]).await);
    }
    // A connection has but some hundred streams at once.
    let wires: Vec<_> = (0..2).map(|_| postroom.bare_channel()).collect();
    let start = Instant::now();
    let mut calls = Vec::new();
    for wire in wires.iter().cycle().take(INVENTED) {
        let key = String::from_utf8(new_key().expect("randomness").expose().to_vec()).expect("ASCII");
        let things = things.clone();
        let channel = Postroom::channel_over(wire, &key);
        calls.push(tokio::spawn(async move { call(Rpc::GetSite, channel, &things).await }));
    }
    for _ in 0..20 {
        call(Rpc::GetSite, known.clone(), &things).await.expect("a key that is known is served");
    }
    for key in unused {
        let channel = Postroom::channel_over(&wires[0], &key);
        call(Rpc::GetSite, channel, &things).await.expect("a key that exists is served");
    }
    let mut looked_up = 0;
    for answer in calls {
        let refused = answer.await.expect("no panic").expect_err("no such key");
        if refused.code() == Code::Unauthenticated {
            looked_up += 1;
        } else {
            limited(&refused);
        }
    }
    // Two hundred at once, and as many a second.
    let most = 200.0 * (1.0 + start.elapsed().as_secs_f64());
    assert!(f64::from(looked_up) <= most, "{looked_up} were looked up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_told() {
    let postroom = Postroom::start().await;
    let key = key_of(&postroom, 100).await;
    let store = postroom.store();
    let uses = async || {
        let keys = keys::list(&store).await.expect("listed");
        keys.into_iter().last().expect("the newest").last_use_time
    };
    assert_eq!(uses().await, None);
    call(Rpc::GetSite, postroom.channel(&key), &Things::missing("shop")).await.expect("a good key");
    let first = eventually("the use is noted", &uses).await;
    call(Rpc::GetSite, postroom.channel(&key), &Things::missing("shop")).await.expect("a good key");
    assert_eq!(uses().await, Some(first), "to the minute");
    store.close().await;
}
