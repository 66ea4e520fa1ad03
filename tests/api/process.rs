//! The program from outside: its commands beside a running server, its end by SIGTERM, and its return after SIGKILL.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postroom::api::proto::message::State;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    Attempt, CreateAccountRequest, GetMessageRequest, ListMessagesRequest, ListSitesRequest, Message,
    SendMessageRequest, TailLogEntriesRequest, attempt,
};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::binary::{Client, DataDir, Serving, run};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::scripted::{Received, Server};
use crate::support::{Authorised, PATIENCE, SITE, bare_channel, letter, plain_account, reason};

const FROM: &str = "shop@example.com";
/// Leases end 25 s after the last heartbeat; then the letters of a killed server are sent again.
const AFTER_A_KILL: Duration = Duration::from_mins(2);
/// How long the server of these tests takes for a letter: slow enough that many are under way.
const SLOW: Duration = Duration::from_millis(40);

/// A site with an admin key.
async fn prepare(data_dir: &DataDir) -> String {
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
    data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat()
}

async fn create_account(client: &Client, server: &Server) {
    let account = Some(plain_account(server, FROM));
    let request =
        CreateAccountRequest { parent: SITE.to_owned(), account, ..CreateAccountRequest::default() };
    client.accounts().create_account(request).await.expect("an account");
}

/// Hands in letters to `0@example.org`, `1@example.org` and so on, all at once; their names and Message-IDs.
async fn send(client: &Client, count: usize) -> Vec<(String, String)> {
    let mut sending = JoinSet::new();
    for number in 0..count {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter(FROM, &[&format!("{number}@example.org")])),
            request_id: number.to_string(),
            ..SendMessageRequest::default()
        };
        sending.spawn(send_patiently(client.send(), request));
    }
    let taken = sending.join_all().await;
    taken.into_iter().map(|message| (message.name, message.message_id)).collect()
}

/// As a client should: while the store is too busy, again with the same request id.
async fn send_patiently(mut send: SendServiceClient<Authorised>, request: SendMessageRequest) -> Message {
    loop {
        match send.send_message(request.clone()).await {
            Ok(taken) => return taken.into_inner().message.expect("set"),
            Err(status) => assert_eq!(reason(&status), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned())),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How often each letter was taken, by Message-ID.
fn by_message_id(letters: &[Received]) -> HashMap<String, Vec<&Received>> {
    let mut found: HashMap<String, Vec<&Received>> = HashMap::new();
    for letter in letters {
        let text = String::from_utf8_lossy(&letter.content);
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("a Message-ID");
        found.entry(id.to_owned()).or_default().push(letter);
    }
    found
}

/// Waits until the API lists so many letters as sent.
async fn wait_until_sent(client: &Client, count: usize, within: Duration) {
    let start = Instant::now();
    loop {
        let request = ListMessagesRequest {
            parent: SITE.to_owned(),
            page_size: 1_000,
            states: vec![State::Sent.into()],
            ..ListMessagesRequest::default()
        };
        let listed = client.send().list_messages(request).await.expect("listed").into_inner();
        if listed.messages.len() == count {
            return;
        }
        assert!(start.elapsed() < within, "only {} of {count} are sent", listed.messages.len());
        // Nothing tells of changes over many letters; the condition is asked for again.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_beside_a_running_server() {
    let data_dir = DataDir::new();
    let serving = Serving::start(&data_dir.path(), &[]).await;
    assert!(serving.address.starts_with("127.0.0.1:") && !serving.address.ends_with(":0"));

    assert_eq!(data_dir.lines(&["site", "create", "shop", "--display-name", "The shop"]).await, [SITE]);
    assert_eq!(data_dir.lines(&["site", "list"]).await, ["sites/shop\tThe shop"]);
    let again = data_dir.command(&["site", "create", "shop"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("sites/shop exists already"));

    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let client = serving.client(&key);
    let sites = client.settings().list_sites(ListSitesRequest::default()).await.expect("a good key");
    assert_eq!(sites.into_inner().sites[0].display_name, "The shop");

    let listed = data_dir.lines(&["key", "list"]).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].contains("sites/-\tadmin") && !listed[0].contains(&key), "{listed:?}");
    let id = listed[0].split('\t').next().expect("an id").to_owned();
    eventually("the use is told", async || {
        data_dir.lines(&["key", "list"]).await[0].contains("\tused 20").then_some(())
    })
    .await;
    let limited = ["--role", "sender", "--calls-per-second", "5", "--expires-in", "90d"];
    data_dir.lines(&[&["key", "create", "--site", SITE], &limited[..]].concat()).await;
    let newest = data_dir.lines(&["key", "list"]).await.pop().expect("two keys");
    assert!(newest.contains("\tsender\t") && newest.contains("\texpires "), "{newest}");
    assert!(newest.ends_with("\tnot used\t5 calls a second"), "{newest}");
    for wrong in [["--expires-in", "0s"], ["--calls-per-second", "0"], ["--role", "root"]] {
        let line = [&["key", "create", "--site", SITE, "--role", "sender"], &wrong[..]].concat();
        let refused = data_dir.command(&line).await;
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(wrong[0]));
    }
    data_dir.lines(&["key", "revoke", &id]).await;
    assert!(data_dir.lines(&["key", "list"]).await[0].contains("\trevoked "));
    assert!(!data_dir.command(&["key", "revoke", &id]).await.status.success());
    let start = Instant::now();
    let refused = loop {
        match client.settings().list_sites(ListSitesRequest::default()).await {
            // The promise is 5 s (API 9).
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(6), "a revoked key goes on working"),
            Err(status) => break status,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(reason(&refused), (Code::Unauthenticated, "KEY_MISSING".to_owned()));

    serving.signal(Signal::SIGTERM);
    let (status, output) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(data_dir.postmaster().is_none(), "the cluster runs on");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_stays_on_this_machine_unless_the_operator_insists() {
    let data_dir = DataDir::new();
    let path = data_dir.path();
    let path = path.to_str().expect("UTF-8");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = run(&["serve", "--listen", address, "--data-dir", path]).await;
        assert_eq!(refused.status.code(), Some(1), "{address}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--insecure"), "{address}");
        assert!(!data_dir.path().exists(), "{address}: something was begun");
    }
    let serving = Serving::start(&data_dir.path(), &["--listen", "0.0.0.0:0", "--insecure"]).await;
    assert!(serving.address.starts_with("0.0.0.0:"));
    serving.signal(Signal::SIGINT);
    assert_eq!(serving.end(PATIENCE).await.0.code(), Some(0));
}

/// Streams and waiting calls are open, letters are under way: all end in order, nothing is sent twice or lost.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    let server = Behaviour::default().delay("dot", SLOW).start().await;
    let data_dir = DataDir::new();
    let arguments = ["--drain-wait", "0s", "--shutdown-grace", "60s"];
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    let key = prepare(&data_dir).await;
    let client = serving.client(&key);
    create_account(&client, &server).await;
    let mut health = HealthClient::new(bare_channel(&serving.address));
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("a watch").into_inner();
    assert_eq!(watch.message().await.expect("a state").expect("one").status, 1);
    let letters = send(&client, 100).await;
    server.wait_until(|journal| journal.letters.len() >= 10).await;
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let mut tail = client.logs().tail_log_entries(request).await.expect("a tail").into_inner();

    let start = Instant::now();
    serving.signal(Signal::SIGTERM);
    let tail_end = loop {
        match tail.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the tail ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&tail_end), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
    assert_eq!(watch.message().await.expect("a state").expect("one").status, 2, "health falls");
    let (status, output) = serving.end(Duration::from_secs(70)).await;
    assert_eq!(status.code(), Some(0), "{output}");
    // Long before the grace time is over: nobody was cut off.
    assert!(start.elapsed() < Duration::from_secs(30), "the stop took {:?}\n{output}", start.elapsed());
    assert!(data_dir.postmaster().is_none(), "the cluster runs on");
    let before = server.journal().letters.len();
    assert!(before < letters.len(), "all was sent before the stop: nothing was tested");

    let serving = Serving::start(&data_dir.path(), &arguments).await;
    let client = serving.client(&key);
    wait_until_sent(&client, letters.len(), PATIENCE).await;
    let taken = server.journal().letters;
    assert_eq!(taken.len(), letters.len(), "each letter once");
    assert_eq!(by_message_id(&taken).len(), letters.len());
    serving.signal(Signal::SIGTERM);
    assert_eq!(serving.end(PATIENCE).await.0.code(), Some(0));
}

/// CASES 51.
#[tokio::test(flavor = "multi_thread")]
async fn sigkill_loses_nothing() {
    const LETTERS: usize = 200;
    let server = Behaviour::default().delay("dot", SLOW).start().await;
    let data_dir = DataDir::new();
    let serving = Serving::start(&data_dir.path(), &[]).await;
    let key = prepare(&data_dir).await;
    let client = serving.client(&key);
    create_account(&client, &server).await;
    let letters = send(&client, LETTERS).await;
    server.wait_until(|journal| journal.letters.len() >= 60).await;
    serving.signal(Signal::SIGKILL);
    let (status, _) = serving.end(PATIENCE).await;
    assert!(!status.success());
    let before = server.journal().letters.len();
    assert!(before < LETTERS, "all was sent before the kill: nothing was tested");
    assert!(data_dir.postmaster().is_some(), "the cluster goes on, the next server attaches to it");

    let start = Instant::now();
    let serving = Serving::start(&data_dir.path(), &[]).await;
    let client = serving.client(&key);
    wait_until_sent(&client, LETTERS, AFTER_A_KILL).await;
    let taken = server.journal().letters;
    let found = by_message_id(&taken);
    let doubles = taken.len() - found.len();
    let summary = format!(
        "{LETTERS} letters, {before} at the kill, {} at the end, {doubles} doubles, {:?} from start to end",
        taken.len(),
        start.elapsed()
    );
    println!("{summary}");
    assert_eq!(found.len(), LETTERS, "{summary}");
    let mut interrupted = 0;
    for (name, message_id) in &letters {
        let copies = found.get(message_id).unwrap_or_else(|| panic!("{message_id} is missing: {summary}"));
        // Doubles are the same letter in every byte, so that the reader's server can drop one.
        assert!(copies.iter().all(|copy| copy.content == copies[0].content), "{summary}");
        let request = GetMessageRequest { name: name.clone() };
        let message = client.send().get_message(request).await.expect("found").into_inner().message;
        let message = message.expect("set");
        assert_eq!(message.state(), State::Sent, "{summary}");
        let outcomes: Vec<_> = message.attempts.iter().map(Attempt::outcome).collect();
        match outcomes[..] {
            [attempt::Outcome::Sent] => assert_eq!(copies.len(), 1, "{summary}"),
            [attempt::Outcome::Interrupted, attempt::Outcome::Sent] => interrupted += 1,
            _ => panic!("{outcomes:?}: {summary}"),
        }
    }
    // Only a letter between its dot and its recorded outcome is sent twice: at most one for each session, and what the
    // recorder had in hand.
    assert!(interrupted > 0 && doubles <= interrupted, "{interrupted} interrupted: {summary}");
    assert!(doubles <= 20, "{summary}");
    serving.signal(Signal::SIGTERM);
    let (status, output) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(data_dir.postmaster().is_none(), "the cluster runs on");
}
