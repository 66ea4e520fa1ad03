//! A key that is missing, unknown, expired or revoked opens nothing, also in the middle of a stream.

use std::time::{Duration, Instant};

use postroom::api::proto::TailLogEntriesRequest;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::domain::access::{Caller, Role, Rpc, Scope, key_hash, new_key};
use postroom::domain::clock::Clock;
use postroom::store::keys;
use time::OffsetDateTime;
use tonic::Code;
use uuid::Uuid;

use super::calls::{Things, call};
use crate::support::{PATIENCE, Postroom, reason};

/// A key that was used or revoked is dead within so long (API 9).
const DEAD_WITHIN: Duration = Duration::from_secs(5);

async fn key_with(postroom: &Postroom, scope: Scope, expire_time: Option<OffsetDateTime>) -> (Uuid, String) {
    let key = new_key().expect("randomness");
    let caller = Caller { expire_time, ..Caller::new(scope, vec![Role::Admin]) };
    let store = postroom.store();
    keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored");
    store.close().await;
    (caller.key_id, String::from_utf8(key.expose().to_vec()).expect("ASCII"))
}

pub(super) fn now() -> OffsetDateTime {
    Clock::default().now()
}

async fn revoke(postroom: &Postroom, key_id: Uuid) {
    let store = postroom.store();
    assert!(keys::revoke(&store, key_id).await.expect("revoked"));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rpc_serves_without_a_good_key() {
    let postroom = Postroom::start().await;
    let past = now() - Duration::from_secs(1);
    let (_, expired) = key_with(&postroom, Scope::AllSites, Some(past)).await;
    let (revoked_id, revoked) = key_with(&postroom, Scope::AllSites, None).await;
    revoke(&postroom, revoked_id).await;
    let unknown = String::from_utf8(new_key().expect("randomness").expose().to_vec()).expect("ASCII");
    let headers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {}", postroom.key)),
        Some(postroom.key.clone()),
        Some(format!("Bearer {}x", postroom.key)),
        Some(format!("Bearer {unknown}")),
        Some(format!("Bearer {expired}")),
        Some(format!("Bearer {revoked}")),
    ];
    let mut words = Vec::new();
    for header in &headers {
        let channel = postroom.channel_with(header.as_deref());
        for rpc in Rpc::ALL {
            let refused = call(rpc, channel.clone(), &Things::missing("shop")).await;
            let refused = refused.expect_err(&format!("{rpc:?} {header:?}"));
            let expected = (Code::Unauthenticated, "KEY_MISSING".to_owned());
            assert_eq!(reason(&refused), expected, "{rpc:?} {header:?}");
            words.push(refused.message().to_owned());
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "the same words whatever is wrong with the key");
    let lower = postroom.channel_with(Some(&format!("bearer {}", postroom.key)));
    call(Rpc::GetSite, lower, &Things::missing("shop")).await.expect("schemes have no case (RFC 9110)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_dead_soon_even_in_the_middle_of_a_stream() {
    let postroom = Postroom::start().await;
    let (id, key) = key_with(&postroom, Scope::AllSites, None).await;
    let mut logs = LogsServiceClient::new(postroom.channel(&key));
    let request = TailLogEntriesRequest { parent: "sites/shop".to_owned(), ..Default::default() };
    let mut stream = logs.tail_log_entries(request).await.expect("a stream").into_inner();
    stream.message().await.expect("open").expect("the first response");
    let channel = postroom.channel(&key);
    call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await.expect("a good key");

    revoke(&postroom, id).await;
    let revoked = Instant::now();
    // Unary calls all the while, so that nothing is forgotten for want of use.
    let calls = async {
        loop {
            let answer = call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await;
            if let Err(refused) = answer {
                return (refused, revoked.elapsed());
            }
        }
    };
    let ending = async {
        loop {
            match stream.message().await {
                Ok(response) => assert!(response.is_some(), "it ends with a status"),
                Err(end) => return (end, revoked.elapsed()),
            }
        }
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::join!(calls, ending) }).await;
    let (refused, end) = both.expect("both end");
    for (status, after) in [refused, end] {
        assert_eq!(reason(&status), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
        assert!(after <= DEAD_WITHIN, "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_its_time_is_over() {
    let postroom = Postroom::start().await;
    let end = now() + Duration::from_millis(1_500);
    let (_, key) = key_with(&postroom, Scope::AllSites, Some(end)).await;
    let channel = postroom.channel(&key);
    call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await.expect("good until then");
    let refused = loop {
        if let Err(refused) = call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await {
            break refused;
        }
    };
    let after = now() - end;
    assert_eq!(reason(&refused).1, "KEY_MISSING");
    assert!(after >= Duration::ZERO && after < Duration::from_secs(1), "{after}");
}
