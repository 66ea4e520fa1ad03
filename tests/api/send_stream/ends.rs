//! How a stream of letters is held up and how it ends: by a stop, by a client that leaves, with its key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postroom::api::proto::ListMessagesRequest;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::store::keys;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use super::{FROM, Talk, error, item, name, refused_by_busy_store, start, stored, to};
use crate::support::{Authorisation, Authorised, PATIENCE, Postroom, SITE, letter, reason};

/// A stream whose key was revoked ends within so long (API 9).
const DEAD_WITHIN: Duration = Duration::from_secs(5);

/// A client with the smallest windows that HTTP/2 begins with, as one on a small machine has.
fn client_with_small_windows(postroom: &Postroom) -> SendServiceClient<Authorised> {
    let endpoint = Endpoint::try_from(format!("http://{}", postroom.address)).expect("an address");
    let channel = endpoint.initial_stream_window_size(65_535).connect_lazy();
    let key = format!("Bearer {}", postroom.key).parse().expect("a key is ASCII");
    SendServiceClient::new(InterceptedService::new(channel, Authorisation(Some(key))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_held_up_and_then_served() {
    const LETTERS: usize = 600;
    /// Nothing moves for so long: it is held up.
    const STILL: Duration = Duration::from_secs(2);
    let (postroom, _server) = start().await;
    let mut client = client_with_small_windows(&postroom);
    let said = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&said);
    // Of several kilobytes there and back.
    let many: Vec<String> = (0..100).map(|number| format!("somebody-of-many-{number}@example.org")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let message = letter(FROM, &many);
    let items = tokio_stream::iter(0..LETTERS).map(move |number| {
        counter.fetch_add(1, Ordering::Relaxed);
        item(i64::try_from(number).expect("few"), message.clone())
    });
    let mut results = client.send_messages(items).await.expect("a stream").into_inner();

    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while last == 0 || since.elapsed() < STILL {
        assert!(Instant::now() < deadline, "it goes on and on: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The other calls of this connection are not held up.
        let request = ListMessagesRequest { parent: SITE.to_owned(), page_size: 1_000, ..Default::default() };
        let page = timeout(PATIENCE, client.list_messages(request)).await.expect("in time").expect("a page");
        let taken = page.into_inner().messages.len();
        if taken != last {
            (last, since) = (taken, Instant::now());
        }
    }
    // Those in work, 128 at most, some in the small window between the two.
    assert!(last < 164, "{last} of {LETTERS} were taken while nobody read");
    let said_then = said.load(Ordering::Relaxed);
    assert!(said_then < LETTERS, "the client was not held up");

    let mut answered = BTreeSet::new();
    while let Some(result) = timeout(PATIENCE, results.message()).await.expect("in time").expect("open") {
        assert!(result.message.is_some() || refused_by_busy_store(&result), "{result:?}");
        assert!(answered.insert(result.index), "answered twice: {}", result.index);
    }
    assert_eq!(answered.len(), LETTERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_the_rest_is_sent_again_and_nothing_is_doubled() {
    const LETTERS: i64 = 400;
    const BEFORE_THE_STOP: usize = 60;
    let (mut postroom, server) = start().await;
    let (items, stream) = mpsc::channel(1);
    // Held here, so that it is the server that ends the stream.
    let talking = tokio::spawn(async move {
        for number in 0..LETTERS {
            if items.send(item(number, to(number))).await.is_err() {
                break;
            }
        }
        items.closed().await;
    });
    let results = postroom.send().send_messages(ReceiverStream::new(stream)).await.expect("a stream");
    let mut results = results.into_inner();
    let (enough, reached) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let (mut answered, mut refused, mut enough) = (BTreeMap::new(), 0, Some(enough));
        loop {
            match timeout(PATIENCE, results.message()).await.expect("in time") {
                Ok(result) => {
                    let result = result.expect("it ends with a status");
                    if refused_by_busy_store(&result) {
                        refused += 1;
                        continue;
                    }
                    assert!(answered.insert(result.index, name(&result)).is_none(), "answered twice");
                }
                Err(end) => return (answered, refused, end),
            }
            if answered.len() == BEFORE_THE_STOP
                && let Some(enough) = enough.take()
            {
                enough.send(()).expect("somebody waits");
            }
        }
    });
    timeout(PATIENCE, reached).await.expect("in time").expect("some results");
    postroom.restart().await;
    let (answered, refused, end) = reading.await.expect("no panic");
    talking.await.expect("no panic");
    assert_eq!(reason(&end), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
    assert!(answered.len() < usize::try_from(LETTERS).expect("few"), "the stop came too late");
    for name in answered.values() {
        postroom.message(name).await;
    }
    // And the other way round: what was read before the stop has its answer.
    let letters = stored(&postroom).await.len();
    assert!(
        (answered.len()..=answered.len() + refused).contains(&letters),
        "{letters} of {}",
        answered.len()
    );
    // All of them, also what was answered: the client may have lost its notes.
    let mut talk = Talk::open(postroom.send()).await.expect("a stream");
    let mut names = BTreeMap::new();
    for number in 0..LETTERS {
        let result = talk.answer(item(number, to(number))).await;
        names.insert(result.index, name(&result));
    }
    for (index, first) in &answered {
        assert_eq!(names.get(index), Some(first), "the first result of {index}");
    }
    let letters = stored(&postroom).await;
    assert_eq!(letters.len(), usize::try_from(LETTERS).expect("few"));
    assert!(letters.values().all(|count| *count == 1), "{letters:?}");
    server.wait_until(|journal| journal.letters.len() >= letters.len()).await;
    assert_eq!(server.journal().letters.len(), letters.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_nothing_half_way() {
    let (postroom, server) = start().await;
    let mut talk = Talk::open(postroom.send()).await.expect("a stream");
    talk.answer(item(0, to(0))).await;
    for number in 1..=20 {
        talk.say(item(number, to(number))).await;
    }
    drop(talk);
    // Whatever was taken is whole, and is sent.
    let mut again = Talk::open(postroom.send()).await.expect("a stream");
    for number in 1..=20 {
        name(&again.answer(item(number, to(number))).await);
    }
    let letters = stored(&postroom).await;
    assert_eq!(letters.len(), 21);
    assert!(letters.values().all(|count| *count == 1), "{letters:?}");
    server.wait_until(|journal| journal.letters.len() >= 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_needs_a_key_as_long_as_it_lasts() {
    let (postroom, _server) = start().await;
    for header in [None, Some("Bearer prm_nonsense")] {
        let client = SendServiceClient::new(postroom.channel_with(header));
        let refused = Talk::open(client).await.map(|_| ()).expect_err("no key");
        assert_eq!(reason(&refused), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
    }
    let auditor = postroom.make_key(Scope::AllSites, &[Role::Auditor]).await;
    let client = SendServiceClient::new(postroom.channel(&auditor));
    let mut talk = Talk::open(client).await.expect("a stream");
    assert_eq!(error(&talk.answer(item(1, to(1))).await), (Code::PermissionDenied, "PERMISSION_DENIED"));

    let key = new_key().expect("randomness");
    let caller = Caller::new(Scope::AllSites, vec![Role::Sender]);
    let store = postroom.store();
    keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored");
    let key = String::from_utf8(key.expose().to_vec()).expect("ASCII");
    let mut talk = Talk::open(SendServiceClient::new(postroom.channel(&key))).await.expect("a stream");
    name(&talk.answer(item(2, to(2))).await);
    assert!(keys::revoke(&store, caller.key_id).await.expect("revoked"));
    store.close().await;
    let revoked = Instant::now();
    let (rest, end) = talk.end().await;
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(reason(&end.expect_err("revoked")), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
    assert!(revoked.elapsed() <= DEAD_WITHIN, "{:?}", revoked.elapsed());
}
