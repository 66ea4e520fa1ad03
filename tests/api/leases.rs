//! Leases as they are seen in the store: who is not heard of claims nothing, so that no letter is sent twice.

use postroom::api::proto::{SendMessageRequest, Settings};
use postroom::domain::site::SiteId;
use postroom::store::queue::{self, Lane, Wanted};
use postroom::store::replicas;
use std::time::Duration;
use uuid::Uuid;

use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, plain_account};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_not_heard_of_claims_nothing() {
    let server = Behaviour::default()
        .on("RCPT TO:<ann@", "451 4.3.0 later\r\n")
        .delay("MAIL", Duration::from_millis(300))
        .start()
        .await;
    let mut postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    // Due again at once, so often that it lasts until the server is stopped.
    let retry_intervals = vec![prost_types::Duration { seconds: 0, nanos: 0 }; 32];
    postroom.change_settings(Settings { retry_intervals, ..Settings::default() }).await;
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter("shop@example.com", &["ann@example.org"])),
        ..SendMessageRequest::default()
    };
    postroom.send().send_message(request).await.expect("taken");
    server.wait_until(|journal| journal.faults.iter().any(|fault| fault.starts_with("RCPT"))).await;
    postroom.stop().await;

    let store = postroom.store();
    let lane = Lane { site: SiteId::parse("shop").expect("a site"), account: 1 };
    let (unheard, heard, other) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let claimed = queue::claim(&store, &lane, unheard, None, Wanted::Any, 10).await.expect("asked");
    assert_eq!(claimed.len(), 0, "its lease would not count");
    replicas::heartbeat(&store, heard).await.expect("heard");
    replicas::heartbeat(&store, other).await.expect("heard");
    assert_eq!(queue::claim(&store, &lane, heard, None, Wanted::Any, 10).await.expect("asked").len(), 1);
    assert_eq!(
        queue::claim(&store, &lane, other, None, Wanted::Any, 10).await.expect("asked").len(),
        0,
        "leased"
    );
    store.close().await;
}
