//! Counters are exactly what happened: as the servers' ledgers, the letters and the callers know it.

use std::time::Instant;

use postroom::api::proto::message::State;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    Account, GetMessageRequest, Security, SendMessageRequest, SendMessagesRequest, Settings,
    TailLogEntriesRequest, WatchEventsRequest,
};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

use super::{FROM, Scrape, await_values, must_be_valid, start, start_with, text};
use crate::scripted::Server;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{
    Authorised, Options, PATIENCE, Postroom, SITE, letter, patiently, plain_account, with_login,
};

/// One session carries this many letters.
const BATCH: u32 = 7;

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("small"))
}

async fn send(postroom: &Postroom, to: &[&str]) -> State {
    postroom.send_and_wait(letter(FROM, to)).await.state()
}

fn milliseconds(count: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos: count * 1_000_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_sent_refused_and_retried_are_counted_as_what_they_are() {
    let server = Behaviour::default()
        .on("RCPT TO:<nobody@", "550 5.1.1 no such mailbox\r\n")
        .once("RCPT TO:<full@", "452 4.2.2 mailbox full\r\n", Then::GoOn)
        .start()
        .await;
    let postroom = start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let settings = Settings { retry_intervals: vec![milliseconds(50)], ..Settings::default() };
    postroom.change_settings(settings).await;
    let checked = Scrape::of(&postroom).await.get("postroom_smtp_sessions_opened_total");

    assert_eq!(send(&postroom, &["ann@example.org", "bob@example.org"]).await, State::Sent);
    assert_eq!(send(&postroom, &["nobody@example.org"]).await, State::Failed);
    assert_eq!(send(&postroom, &["full@example.org", "ann@example.org"]).await, State::Sent);
    assert_eq!(send(&postroom, &["nobody@example.org", "ann@example.org"]).await, State::PartiallySent);

    let scrape = await_values(
        &postroom,
        &[
            ("postroom_letters_accepted_total{via=\"unary\"}", 4.0),
            ("postroom_letters_ended_total{state=\"sent\"}", 2.0),
            ("postroom_letters_ended_total{state=\"failed\"}", 1.0),
            ("postroom_letters_ended_total{state=\"partially_sent\"}", 1.0),
            ("postroom_attempts_total{outcome=\"sent\"}", 2.0),
            ("postroom_attempts_total{outcome=\"partially_sent\"}", 2.0),
            ("postroom_attempts_total{outcome=\"refused\"}", 1.0),
            ("postroom_attempt_results_total{class=\"retry\",scope=\"recipient\"}", 1.0),
            ("postroom_letter_sent_seconds_count", 3.0),
            ("postroom_attempt_overdue_seconds_count", 5.0),
        ],
    )
    .await;
    assert!((scrape.sum("postroom_attempts_total{") - 5.0).abs() < f64::EPSILON);
    assert!((scrape.sum("postroom_attempt_results_total{class=\"sent\"") - 5.0).abs() < f64::EPSILON);
    assert!((scrape.sum("postroom_attempt_results_total{class=\"refused\"") - 2.0).abs() < f64::EPSILON);
    // Each attempt went over a session that was opened for it, or over one that was there.
    let opened = scrape.get("postroom_smtp_sessions_opened_total") - checked;
    let reused = scrape.get("postroom_smtp_sessions_reused_total");
    assert!((opened + reused - 5.0).abs() < f64::EPSILON, "{opened} {reused}");
    assert!(scrape.get("postroom_transcript_chunks_total") >= 5.0);
    assert!(scrape.get("postroom_transcript_bytes_total") > 100.0);
}

/// Many letters at once, unary and by stream: as many as the server's ledger has, and no more sessions than it saw.
#[tokio::test(flavor = "multi_thread")]
async fn after_many_letters_the_numbers_are_those_of_the_ledger() {
    const UNARY: usize = 120;
    const STREAMED: usize = 80;
    let server = Behaviour::default().start().await;
    let postroom = start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    postroom.change_settings(Settings { max_messages_per_batch: Some(BATCH), ..Settings::default() }).await;
    let mut sending = JoinSet::new();
    for number in 0..UNARY {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter(FROM, &[&format!("u{number}@example.org")])),
            request_id: Uuid::now_v7().to_string(),
            ..SendMessageRequest::default()
        };
        let client = postroom.send();
        sending.spawn(send_patiently(client, request));
    }
    let items = (0..STREAMED).map(|number| SendMessagesRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &[&format!("s{number}@example.org")])),
        request_id: format!("s{number}"),
        index: i64::try_from(number).expect("small"),
    });
    // What a busy store refuses is said again; a letter is one all the same.
    let mut waiting: Vec<_> = items.collect();
    while !waiting.is_empty() {
        let stream = tokio_stream::iter(waiting.clone());
        let mut results = postroom.send().send_messages(stream).await.expect("a stream").into_inner();
        while let Some(result) = results.message().await.expect("results") {
            if result.error.is_none() {
                waiting.retain(|item| item.index != result.index);
            }
        }
    }
    sending.join_all().await;
    let total = UNARY + STREAMED;
    let journal = server.wait_until(|journal| journal.letters.len() >= total).await;
    assert_eq!(journal.letters.len(), total);
    let scrape = await_values(
        &postroom,
        &[
            ("postroom_letters_accepted_total{via=\"unary\"}", count(UNARY)),
            ("postroom_letters_accepted_total{via=\"stream\"}", count(STREAMED)),
            ("postroom_letters_ended_total{state=\"sent\"}", count(total)),
            ("postroom_attempts_total{outcome=\"sent\"}", count(total)),
            ("postroom_attempt_results_total{class=\"sent\",scope=\"recipient\"}", count(total)),
            ("postroom_letter_sent_seconds_count", count(total)),
            // Workers linger for a while.
            ("postroom_smtp_sessions_open", 0.0),
        ],
    )
    .await;
    assert!((scrape.sum("postroom_letters_ended_total{") - count(total)).abs() < f64::EPSILON);
    let opened = scrape.get("postroom_smtp_sessions_opened_total");
    assert!((opened - count(server.journal().connections)).abs() < f64::EPSILON, "{opened}");
    assert!(opened >= count(total / usize::try_from(BATCH).expect("small")), "{opened}");
    assert!((scrape.get("postroom_outcomes_late_total")).abs() < f64::EPSILON);
    must_be_valid(text(&postroom).await).await;
}

/// As a client should: while the store is too busy, again with the same request id.
async fn send_patiently(mut client: SendServiceClient<Authorised>, request: SendMessageRequest) {
    let start = Instant::now();
    while let Err(status) = client.send_message(request.clone()).await {
        assert!(status.code() == Code::Unavailable && start.elapsed() < PATIENCE, "{status}");
    }
}

/// CASES 7, and the other steps.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_session_is_counted_by_its_step() {
    let without = Behaviour::default().start().await;
    let injecting = Behaviour::default().extensions(&["STARTTLS"]);
    let injecting = injecting.on("STARTTLS", "220 ready\r\n250 injected\r\n").start().await;
    let greeting = Behaviour::default().on("greeting", "554 go away\r\n").start().await;
    let refusing = Behaviour::default().login("shop", "right").start().await;
    let postroom = start().await;
    let starttls = |server: &Server| {
        let security = Security::Starttls.into();
        Account { security, ..plain_account(server, FROM) }
    };
    for account in [
        starttls(&without),
        starttls(&injecting),
        plain_account(&greeting, FROM),
        with_login(plain_account(&refusing, FROM), "shop", "wrong"),
    ] {
        postroom.try_account(account).await.expect_err("it does not work");
    }
    assert!(injecting.journal().commands.iter().any(|command| command == "STARTTLS"));
    let scrape = Scrape::of(&postroom).await;
    let failures = |step| scrape.get(&format!("postroom_smtp_session_failures_total{{step=\"{step}\"}}"));
    let connections = |server: &Server| server.journal().connections;
    let expected = [
        0,
        connections(&greeting),
        connections(&without) + connections(&injecting),
        0,
        connections(&refusing),
    ];
    assert_eq!(
        ["resolve", "connect", "tls", "hello", "auth"].map(failures).map(|of| of.to_string()),
        expected.map(|of| of.to_string())
    );
    let injected = scrape.get("postroom_smtp_starttls_injections_total");
    assert!((injected - count(connections(&injecting))).abs() < f64::EPSILON && injected > 0.0, "{injected}");
    assert!((scrape.get("postroom_smtp_sessions_open")).abs() < f64::EPSILON);
}

/// Calls by method and code, those that were refused before they were worked on among them; streams while they are open.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code() {
    let mut options = Options::default();
    options.transport.max_streams = 2;
    let postroom = start_with(options).await;
    let of = |method: &str, code: &str| {
        format!("postroom_rpc_seconds_count{{method=\"{method}\",code=\"{code}\"}}")
    };
    let get = GetMessageRequest { name: format!("{SITE}/messages/{}", Uuid::now_v7()) };
    for _ in 0..3 {
        let refused = patiently(async || postroom.send().get_message(get.clone()).await).await;
        assert_eq!(refused.expect_err("not there").code(), Code::NotFound);
    }
    let stranger = postroom.channel_with(None);
    let mut stranger = SendServiceClient::new(stranger);
    assert_eq!(stranger.get_message(get).await.expect_err("no key").code(), Code::Unauthenticated);
    let mut health = HealthClient::new(postroom.bare_channel());
    health.check(HealthCheckRequest::default()).await.expect("healthy");

    let tail = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let watch = WatchEventsRequest { parent: SITE.to_owned(), ..WatchEventsRequest::default() };
    let tailing = patiently(async || postroom.logs().tail_log_entries(tail.clone()).await).await;
    let mut tailing = tailing.expect("a tail");
    let watching = patiently(async || postroom.send().watch_events(watch.clone()).await).await;
    let mut watching = watching.expect("a watch");
    tailing.message().await.expect("open").expect("a token");
    watching.message().await.expect("open").expect("a token");
    let refused = postroom.send().watch_events(watch).await.expect_err("no room");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let scrape = await_values(
        &postroom,
        &[
            (&of("SendService/GetMessage", "NOT_FOUND"), 3.0),
            (&of("SendService/GetMessage", "UNAUTHENTICATED"), 1.0),
            (&of("Health/Check", "OK"), 1.0),
            (&of("SettingsService/CreateSite", "OK"), 1.0),
            ("postroom_rpc_in_flight{kind=\"stream\"}", 2.0),
            ("postroom_rpc_in_flight{kind=\"call\"}", 0.0),
            ("postroom_followers_open{of=\"logs\"}", 1.0),
            ("postroom_followers_open{of=\"events\"}", 1.0),
            ("postroom_rpc_shed_total{cause=\"streams\"}", 1.0),
            (
                "postroom_rpc_streams_total{method=\"SendService/WatchEvents\",code=\"RESOURCE_EXHAUSTED\"}",
                1.0,
            ),
        ],
    )
    .await;
    assert!(scrape.get("postroom_connections_open") >= 2.0);
    assert!(scrape.get("postroom_connections_accepted_total") >= scrape.get("postroom_connections_open"));
    drop((tailing, watching));
    await_values(
        &postroom,
        &[
            ("postroom_rpc_in_flight{kind=\"stream\"}", 0.0),
            ("postroom_followers_open{of=\"logs\"}", 0.0),
            ("postroom_rpc_streams_total{method=\"LogsService/TailLogEntries\",code=\"CANCELLED\"}", 1.0),
        ],
    )
    .await;
    must_be_valid(text(&postroom).await).await;
}
