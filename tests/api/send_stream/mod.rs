//! `SendMessages`: many letters over one stream, each answered once, whatever is wrong with its neighbours.

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    ListMessagesRequest, Message, SendMessageRequest, SendMessagesRequest, SendMessagesResponse,
};
use postroom::domain::access::{Role, Scope};
use postroom::domain::site::SiteId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{
    Authorised, Options, PATIENCE, Postroom, SITE, letter, patiently, plain_account, reason,
};

const FROM: &str = "shop@example.com";

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
