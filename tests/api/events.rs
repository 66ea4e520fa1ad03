//! `WatchEvents`: what becomes of letters, told as it happens, and places in it that survive a reconnect and a restart.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postroom::api::proto::event::Change;
use postroom::api::proto::message::State;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::watch_events_request::Start;
use postroom::api::proto::{
    AccountEvent, Event, MessageEvent, Parking, Settings, WatchEventsRequest, WatchEventsResponse,
    account_event, parking, recipient,
};
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::message::{Recipient, RecipientKind};
use postroom::domain::site::SiteId;
use postroom::store::keys;
use postroom::store::taking::{self, NewMessage, Taken};
use sqlx::Connection as _;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::scripted::Server;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{PATIENCE, Postroom, SITE, bad_fields, letter, plain_account, reason};

const FROM: &str = "shop@example.com";
/// A response that comes at once comes well before the first heartbeat, which is after 15 s.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A stream whose key was revoked ends within so long (API 9).
const DEAD_WITHIN: Duration = Duration::from_secs(5);

/// A reader of one stream, with the place it has come to.
struct Reader {
    stream: Streaming<WatchEventsResponse>,
    token: String,
}

impl Reader {
    async fn open(postroom: &Postroom, request: WatchEventsRequest) -> Result<Self, Status> {
        let request = WatchEventsRequest { parent: SITE.to_owned(), ..request };
        let stream = postroom.send().watch_events(request).await?.into_inner();
        Ok(Self { stream, token: String::new() })
    }

    /// From now on.
    async fn start(postroom: &Postroom, request: WatchEventsRequest) -> Self {
        let mut reader = Self::open(postroom, request).await.expect("a stream");
        assert_eq!(reader.next().await.expect("the first response"), []);
        reader
    }

    async fn next(&mut self) -> Result<Vec<Event>, Status> {
        let response = timeout(PATIENCE, self.stream.message()).await.expect("a response in time")?;
        let response = response.expect("it ends with a status");
        assert_ne!(response.resume_token, "");
        self.token = response.resume_token;
        for event in &response.events {
            assert!(event.time.is_some(), "{event:?}");
        }
        Ok(response.events)
    }

    /// The next letters' events, exactly so many, and no more with them.
    async fn letters(&mut self, count: usize) -> Vec<MessageEvent> {
        let mut letters = Vec::new();
        while letters.len() < count {
            letters.extend(self.next().await.expect("open").into_iter().map(of_letter));
        }
        assert_eq!(letters.len(), count, "{letters:?}");
        letters
    }

    async fn end(&mut self) -> Status {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}

fn of_letter(event: Event) -> MessageEvent {
    match event.change.expect("set") {
        Change::Message(letter) => letter,
        Change::Account(account) => panic!("no letter: {account:?}"),
    }
}

fn all() -> WatchEventsRequest {
    WatchEventsRequest::default()
}

fn from_token(token: &str) -> WatchEventsRequest {
    WatchEventsRequest { start: Some(Start::ResumeToken(token.to_owned())), ..all() }
}

fn from_the_beginning() -> WatchEventsRequest {
    let beginning = prost_types::Timestamp { seconds: 0, nanos: 0 };
    WatchEventsRequest { start: Some(Start::StartTime(beginning)), ..all() }
}

async fn with_account(behaviour: Behaviour) -> (Postroom, Server) {
    let server = behaviour.start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let soon = prost_types::Duration { seconds: 0, nanos: 50_000_000 };
    postroom.change_settings(Settings { retry_intervals: vec![soon], ..Settings::default() }).await;
    (postroom, server)
}

async fn send(postroom: &Postroom, recipient: &str) -> String {
    postroom.send_and_wait(letter(FROM, &[recipient])).await.name
}

/// Stores a letter with tags, as a call does; its name.
async fn send_tagged(postroom: &Postroom, recipient: &str, tags: &[&str]) -> String {
    let (store, site) = (postroom.store(), SiteId::parse("shop").expect("a site"));
    let id = Uuid::now_v7();
    let message = NewMessage {
        site,
        id,
        account: 1,
        from_address: FROM.to_owned(),
        envelope_sender: FROM.to_owned(),
        rfc_message_id: "<tagged@example.com>".to_owned(),
        recipients: vec![Recipient::new(recipient.to_owned(), recipient.to_owned(), RecipientKind::To)],
        content: "Subject: tagged\r\n\r\nHello.\r\n".into(),
        eight_bit: false,
        utf8_headers: false,
        mailing: false,
        user: String::new(),
        is_own: false,
        copy_to_sender: false,
        send_time: None,
        expire_time: None,
        tags: tags.iter().map(ToString::to_string).collect(),
        request: None,
    };
    let taken = taking::take(&store, &message).await.expect("stored");
    assert!(matches!(taken, Taken::Stored(_)), "{taken:?}");
    store.close().await;
    format!("{SITE}/messages/{id}")
}

/// Runs a statement on the database of a test.
async fn run(postroom: &Postroom, statement: &'static str) {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    sqlx::raw_sql(statement).execute(&mut database).await.expect("run");
    database.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_letters_is_told() {
    let behaviour = Behaviour::default()
        .once("RCPT TO:<later@", "450 4.2.0 come back\r\n", Then::GoOn)
        .on("RCPT TO:<nobody@", "550 5.1.1 no such mailbox\r\n");
    let (postroom, _server) = with_account(behaviour).await;
    let opened = Instant::now();
    let mut reader = Reader::start(&postroom, all()).await;
    assert!(opened.elapsed() < AT_ONCE, "{:?}", opened.elapsed());

    let sent = send(&postroom, "ann@example.org").await;
    let deferred = send(&postroom, "later@example.org").await;
    let failed = send(&postroom, "nobody@example.org").await;
    let partly = postroom.send_and_wait(letter(FROM, &["ann@example.org", "nobody@example.org"])).await.name;
    let told = reader.letters(5).await;
    let states: Vec<_> = told.iter().map(|event| (event.name.clone(), event.state())).collect();
    let expected = [
        (sent, State::Sent),
        (deferred.clone(), State::Queued),
        (deferred, State::Sent),
        (failed, State::Failed),
        (partly, State::PartiallySent),
    ];
    assert_eq!(states, expected);
    assert!(told.iter().all(|event| event.account == format!("{SITE}/accounts/1") && event.tags.is_empty()));
    let recipients = |event: &MessageEvent| -> Vec<_> {
        event.recipients.iter().map(|one| (one.address.clone(), one.state())).collect()
    };
    let (ann, later, nobody) =
        ("ann@example.org".to_owned(), "later@example.org".to_owned(), "nobody@example.org".to_owned());
    assert_eq!(recipients(&told[0]), [(ann.clone(), recipient::State::Sent)]);
    assert_eq!(recipients(&told[1]), [(later, recipient::State::Pending)]);
    let both = [(ann, recipient::State::Sent), (nobody, recipient::State::Refused)];
    assert_eq!(recipients(&told[4]), both);

    // The same again for who comes later, from the beginning and from the middle.
    let mut late = Reader::open(&postroom, from_the_beginning()).await.expect("a stream");
    let mut events = Vec::new();
    while events.len() < 5 {
        events.extend(late.next().await.expect("open"));
    }
    assert_eq!(events.iter().cloned().map(of_letter).collect::<Vec<_>>(), told);
    let middle = Some(Start::StartTime(events[2].time.expect("set")));
    let mut late =
        Reader::open(&postroom, WatchEventsRequest { start: middle, ..all() }).await.expect("a stream");
    assert_eq!(late.letters(3).await, told[2..]);
    let never = Some(Start::StartTime(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }));
    let refused = Reader::open(&postroom, WatchEventsRequest { start: never, ..all() }).await;
    assert_eq!(bad_fields(&refused.map(|_| ()).expect_err("no time")), ["start_time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_only_what_it_was_asked_for() {
    let (postroom, server) = with_account(Behaviour::default()).await;
    postroom.create_account(plain_account(&server, "b@example.com")).await;
    let one = send_tagged(&postroom, "one@example.org", &["invoice", "may"]).await;
    let two = send_tagged(&postroom, "two@example.org", &["reminder", "may"]).await;
    server.wait_until(|journal| journal.letters.len() == 2).await;
    let three = postroom.send_and_wait(letter("b@example.com", &["three@example.org"])).await.name;
    let (first, second) = (format!("{SITE}/accounts/1"), format!("{SITE}/accounts/2"));
    for (request, expected) in [
        (all(), vec![&one, &two, &three]),
        (WatchEventsRequest { tag: "may".to_owned(), ..all() }, vec![&one, &two]),
        (WatchEventsRequest { tag: "invoice".to_owned(), ..all() }, vec![&one]),
        (WatchEventsRequest { tag: "in".to_owned(), ..all() }, vec![]),
        (WatchEventsRequest { message: two.clone(), ..all() }, vec![&two]),
        (WatchEventsRequest { account: first.clone(), ..all() }, vec![&one, &two]),
        (WatchEventsRequest { account: second.clone(), ..all() }, vec![&three]),
        (WatchEventsRequest { account: first, tag: "reminder".to_owned(), ..all() }, vec![&two]),
        (WatchEventsRequest { account: second, message: one.clone(), ..all() }, vec![]),
    ] {
        let request = WatchEventsRequest { start: from_the_beginning().start, ..request };
        let mut reader = Reader::open(&postroom, request.clone()).await.expect("a stream");
        let told = if expected.is_empty() {
            reader.next().await.expect("open").into_iter().map(of_letter).collect()
        } else {
            reader.letters(expected.len()).await
        };
        // Letters of one batch are recorded in any order.
        let names: BTreeSet<_> = told.iter().map(|event| &event.name).collect();
        assert_eq!(names, expected.into_iter().collect(), "{request:?}");
        let tagged = told.iter().find(|event| event.name == one);
        assert!(tagged.is_none_or(|event| event.tags == ["invoice", "may"]), "{tagged:?}");
    }
    let wrong = WatchEventsRequest {
        tag: "\n".to_owned(),
        message: "sites/other/messages/01890c5e-7a3c-7c3e-9d2b-0f1e2d3c4b5a".to_owned(),
        account: "x".to_owned(),
        ..all()
    };
    let refused = Reader::open(&postroom, wrong).await.map(|_| ()).expect_err("three faults");
    assert_eq!(bad_fields(&refused), ["tag", "message", "account"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_parked_and_go_on_are_told() {
    let (postroom, _server) = with_account(Behaviour::default()).await;
    let mut reader = Reader::start(&postroom, all()).await;
    let account = format!("{SITE}/accounts/1");
    let mut of_account =
        Reader::start(&postroom, WatchEventsRequest { account: account.clone(), ..all() }).await;
    let tagged = WatchEventsRequest { tag: "may".to_owned(), start: from_the_beginning().start, ..all() };
    let mut of_letters = Reader::open(&postroom, tagged).await.expect("a stream");
    run(
        &postroom,
        r#"insert into events (site_id, items)
           values ('shop', '[{"of": "account", "account": 1, "parking":
                              {"reason": "quota", "until": "2030-01-01T00:00:00Z", "error": "450 too much"}}]'),
                  ('shop', '[{"of": "account", "account": 1, "parking": null}]')"#,
    )
    .await;
    let parked = Parking {
        reason: parking::Reason::Quota.into(),
        until: Some(prost_types::Timestamp { seconds: 1_893_456_000, nanos: 0 }),
        error: "450 too much".to_owned(),
    };
    for reader in [&mut reader, &mut of_account] {
        let mut told = Vec::new();
        while told.len() < 2 {
            told.extend(reader.next().await.expect("open").into_iter().map(|event| event.change));
        }
        let expected = [
            account_event::Change::Parking(parked.clone()),
            account_event::Change::Resumed(account_event::Resumed {}),
        ];
        let expected = expected.map(|change| {
            Some(Change::Account(AccountEvent { name: account.clone(), change: Some(change) }))
        });
        assert_eq!(told, expected);
    }
    assert_eq!(of_letters.next().await.expect("open"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_reconnects_misses_nothing_and_sees_nothing_twice() {
    const LETTERS: usize = 45;
    let (postroom, _server) = with_account(Behaviour::default()).await;
    let other = postroom.another().await;
    let mut reader = Reader::start(&postroom, all()).await;
    let mut seen = Vec::new();
    let sending = async {
        // A few at once, over two servers.
        let each = async |first: usize| {
            let mut sent = Vec::new();
            for number in (first..LETTERS).step_by(3) {
                let server = if number % 2 == 0 { &postroom } else { &other };
                sent.push(send(server, &format!("r{number}@example.org")).await);
            }
            sent
        };
        let (one, two, three) = tokio::join!(each(0), each(1), each(2));
        [one, two, three].concat()
    };
    // Leaves after each response, while letters are being sent, and comes back to the other server.
    let reading = async {
        let mut turn = 0;
        while seen.len() < LETTERS {
            seen.extend(reader.next().await.expect("open").into_iter().map(of_letter));
            turn += 1;
            let server = if turn % 2 == 0 { &postroom } else { &other };
            reader = Reader::open(server, from_token(&reader.token)).await.expect("resumed");
        }
    };
    let (sent, ()) = tokio::join!(sending, reading);
    let names: Vec<_> = seen.iter().map(|event| event.name.clone()).collect();
    assert_eq!(names.len(), LETTERS, "nothing twice");
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), sent.into_iter().collect(), "nothing missed");

    // What happens while nobody reads is there for who comes back, in the order of the table and no more.
    reader.next().await.expect("open");
    let Reader { stream, token } = reader;
    drop(stream);
    let mut missed = Vec::new();
    for number in 0..20 {
        missed.push(send(if number % 2 == 0 { &postroom } else { &other }, "later@example.org").await);
    }
    let mut reader = Reader::open(&postroom, from_token(&token)).await.expect("resumed");
    let told = reader.letters(20).await.into_iter().map(|event| event.name).collect::<Vec<_>>();
    assert_eq!(told, missed);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_for_the_call_they_were_made_for() {
    let (postroom, _server) = with_account(Behaviour::default()).await;
    let token = Reader::start(&postroom, all()).await.token;
    Reader::open(&postroom, from_token(&token)).await.expect("its own call");
    let mut forged = vec![String::new(), "x".to_owned(), "ü".to_owned(), "A".repeat(2_000)];
    forged.push(format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' }));
    let message = format!("{SITE}/messages/01890c5e-7a3c-7c3e-9d2b-0f1e2d3c4b5a");
    let others = [
        WatchEventsRequest { tag: "may".to_owned(), ..from_token(&token) },
        WatchEventsRequest { account: format!("{SITE}/accounts/1"), ..from_token(&token) },
        WatchEventsRequest { message, ..from_token(&token) },
    ];
    for request in forged.iter().map(|token| from_token(token)).chain(others) {
        let refused = Reader::open(&postroom, request.clone()).await.map(|_| ()).expect_err("not its token");
        let expected = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned());
        assert_eq!(reason(&refused), expected, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_stream_and_the_place_is_kept() {
    let (mut postroom, _server) = with_account(Behaviour::default()).await;
    let mut reader = Reader::start(&postroom, all()).await;
    send(&postroom, "ann@example.org").await;
    reader.letters(1).await;
    let (end, ()) = tokio::join!(reader.end(), postroom.restart());
    assert_eq!(reason(&end), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
    assert!(end.get_error_details().retry_info().is_some());
    let name = send(&postroom, "bob@example.org").await;
    let mut reader = Reader::open(&postroom, from_token(&reader.token)).await.expect("resumed");
    assert_eq!(reader.letters(1).await[0].name, name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_key() {
    let (postroom, _server) = with_account(Behaviour::default()).await;
    let key = new_key().expect("randomness");
    let roles = vec![Role::Auditor];
    let caller = Caller::new(Scope::AllSites, roles);
    let store = postroom.store();
    keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored");
    let key = String::from_utf8(key.expose().to_vec()).expect("ASCII");
    let request = WatchEventsRequest { parent: SITE.to_owned(), ..all() };
    let stream = SendServiceClient::new(postroom.channel(&key)).watch_events(request).await;
    let mut reader = Reader { stream: stream.expect("a stream").into_inner(), token: String::new() };
    reader.next().await.expect("the first response");
    assert!(keys::revoke(&store, caller.key_id).await.expect("revoked"));
    store.close().await;
    let revoked = Instant::now();
    let end = reader.end().await;
    assert_eq!(reason(&end), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
    assert!(revoked.elapsed() <= DEAD_WITHIN, "{:?}", revoked.elapsed());
}
