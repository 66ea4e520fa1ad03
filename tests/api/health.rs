//! Health and reflection: true in bad times, told as it happens, and usable without a key.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use postroom::api::SERVICE_NAMES;
use postroom::api::proto::message::State;
use postroom::api::proto::{GetSiteRequest, SendMessageRequest};
use postroom::private_postgres;
use postroom::store::PoolLimits;
use tokio::time::timeout;
use tokio_stream::iter;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt as _;

use crate::cluster::open_store;
use crate::desk::{FROM, execute, start, waiting};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, PATIENCE, Postroom, SITE, letter, plain_account, reason, vault};

/// An outage shows within so long (CASES 53),
const FALL: Duration = Duration::from_secs(2);
/// and its end within so long.
const RISE: Duration = Duration::from_secs(15);
/// What a busy machine adds.
const SLACK: Duration = Duration::from_secs(4);

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn health(postroom: &Postroom, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(postroom.bare_channel());
    client.check(of(service)).await.expect("a service").into_inner().status()
}

async fn watch(postroom: &Postroom, service: &str) -> Streaming<HealthCheckResponse> {
    HealthClient::new(postroom.bare_channel()).watch(of(service)).await.expect("a stream").into_inner()
}

/// Reads a stream until it tells this status.
async fn until(stream: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    let told = async { while stream.message().await.expect("open").expect("no end").status() != wanted {} };
    timeout(PATIENCE, told).await.expect("told in time");
}

fn all_names() -> impl Iterator<Item = &'static str> {
    ["", "liveness", "readiness"].into_iter().chain(SERVICE_NAMES)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_knows_each_service() {
    let mut postroom = Postroom::start().await;
    assert!(SERVICE_NAMES.contains(&"postroom.v1.SendService"));
    let mut streams = Vec::new();
    for name in all_names() {
        let mut stream = watch(&postroom, name).await;
        until(&mut stream, ServingStatus::Serving).await;
        assert_eq!(health(&postroom, name).await, ServingStatus::Serving, "{name:?}");
        streams.push((name, stream));
    }
    let unknown = HealthClient::new(postroom.bare_channel()).check(of("postroom.v1.NoService")).await;
    assert_eq!(unknown.expect_err("no such service").code(), Code::NotFound);
    // At a stop all but liveness fall while the server still answers.
    let stopped = postroom.stop();
    let fallen = async {
        for (name, stream) in &mut streams {
            if *name != "liveness" {
                until(stream, ServingStatus::NotServing).await;
            }
        }
        drop(streams);
    };
    tokio::join!(stopped, fallen);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_is_told_and_ends_by_itself() {
    let folder = tempfile::Builder::new()
        .prefix("postroom-test")
        // The cluster's user must pass through.
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .expect("a folder");
    let cluster = private_postgres::start(folder.path()).await.expect("a private PostgreSQL");
    let database_url = cluster.database_url();
    let (_keys, vault) = vault();
    let store = open_store(&database_url, vault);
    store.migrate().await.expect("migrations");
    store.close().await;
    let pool = Some(PoolLimits::default());
    let options = Options { database_url: Some(database_url.clone()), pool, ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let server = Behaviour::default().start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let mut streams = Vec::new();
    for name in all_names().filter(|name| *name != "liveness") {
        let mut stream = watch(&postroom, name).await;
        until(&mut stream, ServingStatus::Serving).await;
        streams.push(stream);
    }

    cluster.stop().await.expect("stopped");
    let down = Instant::now();
    for stream in &mut streams {
        until(stream, ServingStatus::NotServing).await;
    }
    assert!(down.elapsed() <= FALL + SLACK, "{:?}", down.elapsed());
    assert_eq!(health(&postroom, "readiness").await, ServingStatus::NotServing);
    assert_eq!(health(&postroom, "liveness").await, ServingStatus::Serving);
    for _ in 0..3 {
        let called = Instant::now();
        let request = GetSiteRequest { name: SITE.to_owned() };
        let refused = postroom.settings().get_site(request).await.expect_err("no database");
        assert_eq!(reason(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
        let wait = refused.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
        assert!(wait.is_some_and(|wait| wait > Duration::ZERO), "{refused:?}");
        assert!(called.elapsed() <= FALL + SLACK, "{:?}", called.elapsed());
    }

    let cluster = private_postgres::start(folder.path()).await.expect("the same PostgreSQL");
    assert_eq!(cluster.database_url(), database_url);
    let up = Instant::now();
    for stream in &mut streams {
        until(stream, ServingStatus::Serving).await;
    }
    assert!(up.elapsed() <= RISE + SLACK, "{:?}", up.elapsed());
    let sent = postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    drop(postroom);
    cluster.stop().await.expect("stopped");
}

/// Nothing can be stored any more, as on a full disk; heartbeats go on.
const FULL: &str = "
    create function full_disk() returns trigger language plpgsql as $$
        begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
    create trigger full_disk before insert on message_bodies for each row execute function full_disk()";
/// So long it is full: some looks for due mail.
const FULL_FOR: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn want_of_room_is_told_and_nothing_is_sent_until_there_is_room() {
    let (server, postroom) = start().await;
    // A session is open, so that letters are handed over as they come.
    let first = postroom.send_and_wait(letter(FROM, &["first@example.org"])).await;
    assert_eq!(first.state(), State::Sent);
    let mut due = Vec::new();
    for number in 0..5 {
        due.push(waiting(&postroom, &[&format!("due{number}@example.org")]).await);
    }
    let mut stream = watch(&postroom, "readiness").await;
    until(&mut stream, ServingStatus::Serving).await;
    let call = async || {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter(FROM, &["late@example.org"])),
            ..SendMessageRequest::default()
        };
        let refused = postroom.send().send_message(request).await.expect_err("there is no room");
        assert_eq!(reason(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
        assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    };

    execute(&postroom, FULL).await;
    let full = Instant::now();
    call().await;
    until(&mut stream, ServingStatus::NotServing).await;
    assert!(full.elapsed() <= FALL + SLACK, "{:?}", full.elapsed());
    execute(&postroom, "update queue set due = now()").await;
    while full.elapsed() < FULL_FOR {
        call().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(health(&postroom, "readiness").await, ServingStatus::NotServing);
    assert_eq!(server.journal().letters.len(), 1, "what was sent could not be recorded");

    execute(&postroom, "drop trigger full_disk on message_bodies").await;
    let room = Instant::now();
    until(&mut stream, ServingStatus::Serving).await;
    assert!(room.elapsed() <= RISE + SLACK, "{:?}", room.elapsed());
    for message in &due {
        eventually("it is sent", async || {
            (postroom.message(&message.name).await.state() == State::Sent).then_some(())
        })
        .await;
    }
    assert_eq!(server.journal().letters.len(), 1 + due.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_needs_no_key_and_knows_the_details_of_errors() {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let postroom = Postroom::start().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(postroom.bare_channel());
    let ask = |what| v1::ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let symbols =
        ["google.rpc.BadRequest", "google.rpc.ErrorInfo", "google.rpc.RetryInfo", "postroom.v1.SendService"];
    let questions: Vec<_> = std::iter::once(ask(MessageRequest::ListServices(String::new())))
        .chain(symbols.map(|symbol| ask(MessageRequest::FileContainingSymbol(symbol.to_owned()))))
        .collect();
    let mut answers = client.server_reflection_info(iter(questions)).await.expect("a stream").into_inner();
    let mut answer = async || answers.message().await.expect("open").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer().await else { panic!("no list") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in SERVICE_NAMES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|listed| listed == name), "{name}: {names:?}");
    }
    for symbol in symbols {
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer().await else {
            panic!("{symbol} is not known");
        };
        let name = symbol.rsplit('.').next().unwrap_or_default().as_bytes();
        let holds = |file: &Vec<u8>| file.windows(name.len()).any(|window| window == name);
        assert!(files.file_descriptor_proto.iter().any(holds), "{symbol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_find_reflection_too() {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let postroom = Postroom::start().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(postroom.bare_channel());
    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("google.rpc.BadRequest".to_owned())),
    };
    let mut answers = client.server_reflection_info(iter([question])).await.expect("a stream").into_inner();
    let answer = answers.message().await.expect("open").expect("an answer").message_response;
    assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
}
