//! `SendMessages`: many letters over one stream, each answered once, whatever is wrong with its neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    ListMessagesRequest, Message, SendMessageRequest, SendMessagesRequest, SendMessagesResponse,
};
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::site::SiteId;
use postroom::store::keys;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{
    Authorisation, Authorised, Options, PATIENCE, Postroom, SITE, letter, patiently, plain_account, reason,
};

const FROM: &str = "shop@example.com";
/// A stream whose key was revoked ends within so long (API 9).
const DEAD_WITHIN: Duration = Duration::from_secs(5);

/// A stream of which the test decides when it says and when it reads something.
struct Talk {
    items: Option<mpsc::Sender<SendMessagesRequest>>,
    results: Streaming<SendMessagesResponse>,
}

impl Talk {
    async fn open(mut client: SendServiceClient<Authorised>) -> Result<Self, Status> {
        let (items, stream) = mpsc::channel(1);
        let results = client.send_messages(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { items: Some(items), results })
    }

    async fn say(&mut self, item: SendMessagesRequest) {
        let items = self.items.as_ref().expect("open");
        timeout(PATIENCE, items.send(item)).await.expect("taken in time").expect("open");
    }

    async fn next(&mut self) -> Result<Option<SendMessagesResponse>, Status> {
        timeout(PATIENCE, self.results.message()).await.expect("a result in time")
    }

    async fn result(&mut self) -> SendMessagesResponse {
        self.next().await.expect("open").expect("a result")
    }

    /// As a patient client does: what a busy store refuses is asked again.
    async fn answer(&mut self, item: SendMessagesRequest) -> SendMessagesResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.say(item.clone()).await;
            let result = self.result().await;
            if !refused_by_busy_store(&result) || Instant::now() >= deadline {
                return result;
            }
        }
    }

    /// The end, with everything that comes before it.
    async fn end(&mut self) -> (Vec<SendMessagesResponse>, Result<(), Status>) {
        let mut results = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(result)) => results.push(result),
                Ok(None) => return (results, Ok(())),
                Err(status) => return (results, Err(status)),
            }
        }
    }
}

fn item(index: i64, message: Message) -> SendMessagesRequest {
    let (parent, request_id) = (SITE.to_owned(), format!("r{index}"));
    SendMessagesRequest { parent, message: Some(message), request_id, index }
}

fn to(number: i64) -> Message {
    letter(FROM, &[&format!("r{number}@example.org")])
}

/// Code and reason of the error of a result.
fn error(result: &SendMessagesResponse) -> (Code, &str) {
    assert!(result.message.is_none(), "{result:?}");
    let error = result.error.as_ref().unwrap_or_else(|| panic!("an error: {result:?}"));
    (Code::from(error.code), &error.reason)
}

fn refused_by_busy_store(result: &SendMessagesResponse) -> bool {
    result.error.as_ref().is_some_and(|error| error.reason == "STORE_UNAVAILABLE")
}

fn name(result: &SendMessagesResponse) -> String {
    assert!(result.error.is_none(), "{result:?}");
    result.message.as_ref().expect("a letter").name.clone()
}

/// The letters of the site, by recipient: how many were taken for each.
async fn stored(postroom: &Postroom) -> BTreeMap<String, usize> {
    let (mut letters, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let parent = SITE.to_owned();
        let request = ListMessagesRequest { parent, page_size: 1_000, page_token, ..Default::default() };
        let page = postroom.send().list_messages(request).await.expect("a page").into_inner();
        for message in page.messages {
            *letters.entry(message.recipients[0].address.clone()).or_default() += 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return letters;
        }
    }
}

async fn start() -> (Postroom, Server) {
    start_with(Options::default()).await
}

async fn start_with(options: Options) -> (Postroom, Server) {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start_with(options).await;
    postroom.create_account(plain_account(&server, FROM)).await;
    (postroom, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_letters_over_one_stream_arrive_once_each() {
    const LETTERS: i64 = 1_000;
    let (postroom, server) = start().await;
    // A client that has said all closes its side, and gets every result.
    let items = tokio_stream::iter((0..LETTERS).map(|number| item(number, to(number))));
    let results = postroom.send().send_messages(items).await.expect("a stream").into_inner();
    let results: Vec<_> = timeout(PATIENCE, results.collect::<Vec<_>>()).await.expect("all results in time");
    let mut answered = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut again = Vec::new();
    for result in results {
        let result = result.expect("open to its end");
        assert_eq!(result.request_id, format!("r{}", result.index));
        assert!(answered.insert(result.index), "answered twice: {result:?}");
        if refused_by_busy_store(&result) {
            again.push(result.index);
            continue;
        }
        assert!(names.insert(name(&result)), "two of one name: {result:?}");
        let message = result.message.expect("set");
        assert_eq!(message.recipients[0].address, format!("r{}@example.org", result.index));
    }
    let mut talk = Talk::open(postroom.send()).await.expect("a stream");
    for index in again {
        assert!(names.insert(name(&talk.answer(item(index, to(index))).await)), "two of one name");
    }
    assert_eq!(answered, (0..LETTERS).collect());
    server.wait_until(|journal| journal.letters.len() >= answered.len()).await;
    let mut arrived: Vec<_> =
        server.journal().letters.into_iter().flat_map(|letter| letter.recipients).collect();
    arrived.sort();
    let mut expected: Vec<_> = (0..LETTERS).map(|number| format!("<r{number}@example.org>")).collect();
    expected.sort();
    assert_eq!(arrived, expected, "each letter once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_item_ends_no_stream() {
    let (postroom, _server) =
        start_with(Options { max_letter_bytes: Some(64 * 1024), ..Default::default() }).await;
    postroom.create_site("other").await;
    let scope = Scope::Site(SiteId::parse("shop").expect("a site"));
    let key = postroom.make_key(scope, &[Role::Sender]).await;
    let client = SendServiceClient::new(postroom.channel(&key));
    let mut talk = Talk::open(client).await.expect("a stream");

    let mut bad = to(1);
    bad.to.push("no address".to_owned());
    bad.user = "\n".to_owned();
    let mut result = talk.answer(item(1, bad)).await;
    assert_eq!((result.index, result.request_id.as_str()), (1, "r1"));
    assert_eq!(error(&result), (Code::InvalidArgument, "INVALID_FIELD"));
    let text = result.error.take().expect("set").text;
    assert!(text.contains("message.to[1]: ") && text.contains("message.user: "), "{text}");

    let elsewhere = |parent: &str| SendMessagesRequest { parent: parent.to_owned(), ..item(2, to(2)) };
    let large = {
        let mut message = to(3);
        let Some(Content::Composed(composed)) = &mut message.content else { panic!("composed") };
        composed.text = "A line of text.\n".repeat(8_000);
        message
    };
    let nobody = letter("nobody@example.com", &["ann@example.org"]);
    let strange_id = SendMessagesRequest { request_id: "\n".to_owned(), ..item(4, to(4)) };
    for (bad, code, reason) in [
        (item(3, large), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (item(4, nobody), Code::FailedPrecondition, "NO_MATCHING_ACCOUNT"),
        (SendMessagesRequest { message: None, ..item(5, to(5)) }, Code::InvalidArgument, "INVALID_FIELD"),
        (SendMessagesRequest::default(), Code::InvalidArgument, "INVALID_FIELD"),
        (strange_id, Code::InvalidArgument, "INVALID_FIELD"),
        // Whether it exists or not.
        (elsewhere("sites/other"), Code::PermissionDenied, "PERMISSION_DENIED"),
        (elsewhere("sites/nowhere"), Code::PermissionDenied, "PERMISSION_DENIED"),
        (elsewhere("other"), Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        let result = talk.answer(bad.clone()).await;
        assert_eq!(result.index, bad.index);
        assert_eq!(error(&result), (code, reason), "{result:?}");
    }
    // In the middle of good ones, any number as index, and the same one twice.
    for index in [i64::MIN, -1, i64::MAX, 7, 7] {
        let good = SendMessagesRequest { request_id: String::new(), ..item(index, to(7)) };
        let result = talk.answer(good).await;
        assert_eq!(result.index, index);
        assert!(name(&result).starts_with("sites/shop/messages/"));
    }
    drop(talk.items.take());
    let (rest, end) = talk.end().await;
    assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
    assert_eq!(stored(&postroom).await, BTreeMap::from([("r7@example.org".to_owned(), 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_grpc_does_not_take_ends_the_stream_with_the_contracts_words() {
    let (postroom, _server) =
        start_with(Options { max_letter_bytes: Some(64 * 1024), ..Default::default() }).await;
    let mut talk = Talk::open(postroom.send()).await.expect("a stream");
    talk.answer(item(1, to(1))).await;
    let mut huge = to(2);
    huge.content = Some(Content::Raw(vec![b'x'; 2 * 1024 * 1024].into()));
    talk.say(item(2, huge)).await;
    let (rest, end) = talk.end().await;
    assert!(rest.is_empty(), "{rest:?}");
    let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned());
    assert_eq!(reason(&end.expect_err("too large")), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_gives_the_first_result_on_either_rpc() {
    let (postroom, server) = start().await;
    let mut talk = Talk::open(postroom.send()).await.expect("a stream");
    // Several at once, so that they meet in the store.
    for _ in 0..8 {
        talk.say(item(1, to(1))).await;
    }
    let mut names = BTreeSet::new();
    for _ in 0..8 {
        let result = talk.result().await;
        if !refused_by_busy_store(&result) {
            names.insert(name(&result));
        }
    }
    names.insert(name(&talk.answer(item(1, to(1))).await));
    assert_eq!(names.len(), 1, "{names:?}");
    let first = names.pop_first().expect("one");
    let unary = |number: i64, message: Message| SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: format!("r{number}"),
        ..SendMessageRequest::default()
    };
    let again = patiently(async || postroom.send().send_message(unary(1, to(1))).await).await;
    assert_eq!(again.expect("the first result").message.expect("set").name, first);
    let sent = patiently(async || postroom.send().send_message(unary(2, to(2))).await).await;
    let second = sent.expect("taken").message.expect("set").name;
    assert_eq!(name(&talk.answer(item(2, to(2))).await), second);
    let other = talk.answer(item(2, to(3))).await;
    assert_eq!(error(&other), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    let expected = [1, 2].map(|number| (format!("r{number}@example.org"), 1));
    assert_eq!(stored(&postroom).await, expected.into());
    assert!(server.journal().letters.len() <= 2);
}

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
    // Those in work, some in the small window between the two.
    assert!(last < 100, "{last} of {LETTERS} were taken while nobody read");
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
