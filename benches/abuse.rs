//! What abuse of the server costs a good client and the server's memory: the built program as a process of its own, one good
//! client that calls all the time, and one abuse after another. Prints figures, asserts nothing.

mod authorised;
#[path = "../tests/api/transport/raw.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod raw;
mod served;
/// What `raw` needs of the tests.
mod support {
    use std::time::Duration;

    pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
}

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use postroom::api::proto::ListSitesRequest;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep};

use self::authorised::Authorised;
use self::raw::{
    CONTINUATION, END_HEADERS, HEADERS, Hand, LIST_SITES, RST_STREAM, RawClient, SEND_MESSAGE, field, fields,
    frame, head, reset, with_prefix,
};
use self::served::Served;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: usize = 1024 * 1024;
/// How long the good client is measured before each abuse,
const BEFORE: Duration = Duration::from_secs(5);
/// and at least during it.
const WHILE: Duration = Duration::from_secs(8);
/// The good client calls so often.
const PACE: Duration = Duration::from_millis(2);
/// What a connection sends at once of 10,000 streams that are reset.
const RESETS: u32 = 10_000;
const IDLE: usize = 2_000;

#[tokio::main]
async fn main() -> Outcome<()> {
    postroom::transport::raise_limit(4 * IDLE);
    println!(
        "{:<52} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6}",
        "p50, p99 in ms before and during; MiB of memory",
        "p50",
        "p99",
        "p50",
        "p99",
        "failed",
        "before",
        "peak",
        "after"
    );
    let served = Served::start(false).await?;
    let address = served.address.clone();
    let key = served.key.clone();
    row(&served, "nothing (plain text)", sleep(WHILE)).await?;
    row(&served, "10,000 streams reset at once, again and again", resets_at_once(&address)).await?;
    row(&served, "10,000 streams reset one by one, with a key", resets_one_by_one(&address, &key)).await?;
    row(&served, "100 connections: headers without end", headers_without_end(&address)).await?;
    row(&served, "1,000 calls with 2,000 header fields", many_headers(&address)).await?;
    row(&served, "10,000 calls without a key", no_key(&address)).await?;
    row(&served, "2,000 idle connections", idle(&address)).await?;
    row(&served, "2,000 connections that say nothing", silent(&address)).await?;
    row(&served, "gzip bombs, 50 at once, without a key", bombs(&address, None)).await?;
    row(&served, "gzip bombs, 50 at once, with a key", bombs(&address, Some(&key))).await?;
    row(&served, "100 letters of 25 MiB that do not end, with a key", unfinished(&address, &key)).await?;
    row(&served, "empty attachments, 2 x 25 MiB at once, with a key", empties(&address, &key, 2, 25 * MIB))
        .await?;
    row(
        &served,
        "empty attachments, 200 x 60 KiB at once, with a key",
        empties(&address, &key, 200, 60 * 1024),
    )
    .await?;
    served.stop().await?;
    let served = Served::start(true).await?;
    row(&served, "nothing (TLS)", sleep(WHILE)).await?;
    row(&served, "2,000 idle connections (TLS)", idle_tls(&served)).await?;
    row(&served, "2,000 handshakes that do not end (TLS)", silent(&served.address)).await?;
    row(&served, "2,000 handshakes, one behind the other (TLS)", handshakes(&served)).await?;
    served.stop().await
}

/// Measures the good client, and the server's memory, as long as the abuse lasts.
async fn row(served: &Served, name: &str, abuse: impl Future<Output = ()>) -> Outcome<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let good = good_client(served.connect(), Arc::clone(&ended));
    sleep(BEFORE).await;
    ended.store(true, Ordering::Relaxed);
    let quiet = good.await?;
    let before = served.resident()?;
    let ended = Arc::new(AtomicBool::new(false));
    let good = good_client(served.connect(), Arc::clone(&ended));
    let peak = Arc::new(AtomicU64::new(before));
    let watching = watch(served.pid, Arc::clone(&peak), Arc::clone(&ended));
    let start = Instant::now();
    abuse.await;
    sleep(WHILE.saturating_sub(start.elapsed())).await;
    ended.store(true, Ordering::Relaxed);
    let abused = good.await?;
    watching.await?;
    sleep(Duration::from_secs(1)).await;
    let after = served.resident()?;
    let mib = |bytes: u64| bytes >> 20;
    let (before, peak, after) = (mib(before), mib(peak.load(Ordering::Relaxed)), mib(after));
    let ((p50, p99, _), (p50_abused, p99_abused, failed)) = (summary(quiet), summary(abused));
    println!(
        "{name:<52} {p50:>8.2} {p99:>8.2} {p50_abused:>8.2} {p99_abused:>8.2} {failed:>6} {before:>6} {peak:>6} {after:>6}"
    );
    Ok(())
}

/// Median and 99th percentile in milliseconds, and how many calls failed.
fn summary((mut times, failed): (Vec<Duration>, usize)) -> (f64, f64, usize) {
    times.sort_unstable();
    let at = |share: usize| {
        let last = times.len().saturating_sub(1);
        times.get(last * share / 100).map_or(f64::NAN, Duration::as_secs_f64) * 1_000.0
    };
    (at(50), at(99), failed)
}

/// Calls at a steady pace; how long each took, and how many failed.
fn good_client(channel: Authorised, ended: Arc<AtomicBool>) -> JoinHandle<(Vec<Duration>, usize)> {
    tokio::spawn(async move {
        let mut settings = SettingsServiceClient::new(channel);
        let (mut times, mut failed, mut pace) = (Vec::new(), 0, interval(PACE));
        // The connection is made by the first call, which is not measured.
        let _ = settings.list_sites(ListSitesRequest::default()).await;
        while !ended.load(Ordering::Relaxed) {
            pace.tick().await;
            let start = Instant::now();
            match settings.list_sites(ListSitesRequest::default()).await {
                Ok(_) => times.push(start.elapsed()),
                Err(_) => failed += 1,
            }
        }
        (times, failed)
    })
}

fn watch(pid: u32, peak: Arc<AtomicU64>, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            peak.fetch_max(served::resident(pid).unwrap_or_default(), Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
    })
}

async fn resets_at_once(address: &str) {
    let streams = (0..RESETS).map(|number| {
        let id = number * 2 + 1;
        let headers = frame(HEADERS, END_HEADERS, id, &fields(LIST_SITES));
        [headers, frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    });
    let all: Arc<[u8]> = streams.flatten().collect();
    let start = Instant::now();
    while start.elapsed() < WHILE {
        let all = Arc::clone(&all);
        Hand::connect(address).await.flood(std::iter::once(all.to_vec())).await;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn resets_one_by_one(address: &str, key: &str) {
    let mut client = RawClient::connect(address).await;
    let mut pace = interval(Duration::from_millis(10));
    for number in 0..RESETS {
        if number % 10 == 0 {
            pace.tick().await;
        }
        if reset(&mut client, head(LIST_SITES, Some(key), &[])).await.is_err() {
            client = RawClient::connect(address).await;
        }
    }
}

async fn headers_without_end(address: &str) {
    let part: Vec<u8> = (0..100).flat_map(|number| field(&format!("x-{number}"), &"v".repeat(100))).collect();
    for _ in 0..100 {
        let part = part.clone();
        let parts = std::iter::repeat_with(move || frame(CONTINUATION, 0, 1, &part)).take(5_000);
        let flood = std::iter::once(frame(HEADERS, 0, 1, &fields(LIST_SITES))).chain(parts);
        Hand::connect(address).await.flood(flood).await;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn many_headers(address: &str) {
    let names: Vec<String> = (0..2_000).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let mut client = RawClient::connect(address).await;
    for _ in 0..1_000 {
        match client.try_begin(head(LIST_SITES, None, &many)).await {
            Ok((response, _stream)) => drop(response.await),
            Err(_) => client = RawClient::connect(address).await,
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn no_key(address: &str) {
    let mut pace = interval(Duration::from_millis(10));
    let mut client = RawClient::connect(address).await;
    for number in 0..10_000 {
        if number % 10 == 0 {
            pace.tick().await;
        }
        match client.try_begin(head(SEND_MESSAGE, None, &[])).await {
            Ok((response, _stream)) => drop(response.await),
            Err(_) => client = RawClient::connect(address).await,
        }
    }
}

async fn idle(address: &str) {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(RawClient::connect(address).await);
        sleep(Duration::from_millis(2)).await;
    }
    sleep(WHILE).await;
}

async fn silent(address: &str) {
    let mut silent = Vec::new();
    for _ in 0..IDLE {
        silent.push(TcpStream::connect(address).await);
        sleep(Duration::from_millis(2)).await;
    }
    sleep(WHILE).await;
}

async fn idle_tls(served: &Served) {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        if let Ok(stream) = served.shake_hands().await
            && let Ok((send, connection)) = h2::client::handshake(stream).await
        {
            idle.push((send, tokio::spawn(connection)));
        }
        sleep(Duration::from_millis(5)).await;
    }
    sleep(WHILE).await;
}

async fn handshakes(served: &Served) {
    for _ in 0..IDLE {
        let _ = served.shake_hands().await;
        sleep(Duration::from_millis(5)).await;
    }
}

/// About 1 MiB that unpacks to 1 GiB (RFC 1952): one block of zeros, over and over.
fn bomb() -> Bytes {
    let (zeros, mut block) = (vec![0; MIB], Vec::with_capacity(MIB));
    let mut compress = Compress::new(Compression::default(), false);
    if compress.compress_vec(&zeros, &mut block, FlushCompress::Full).is_err() {
        return Bytes::new();
    }
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    with_prefix(1, &[&head[..], &block.repeat(1_024)].concat())
}

async fn bombs(address: &str, key: Option<&str>) {
    let bomb = bomb();
    for _ in 0..2 {
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let (address, key, bomb) = (address.to_owned(), key.map(str::to_owned), bomb.clone());
            calls.spawn(async move {
                let mut client = RawClient::connect(&address).await;
                client.call(head(SEND_MESSAGE, key.as_deref(), &[("grpc-encoding", "gzip")]), bomb).await
            });
        }
        while calls.join_next().await.is_some() {}
    }
}

/// As much of each letter as the server takes, but for its last byte.
async fn unfinished(address: &str, key: &str) {
    let letter = with_prefix(0, &vec![0; 25 * MIB]);
    let letter = letter.slice(..letter.len() - 1);
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = RawClient::connect(address).await;
        if let Ok((response, mut stream)) = client.try_begin(head(SEND_MESSAGE, Some(key), &[])).await {
            // Fails where the call was refused already.
            let _ = stream.send_data(letter.clone(), false);
            held.push((client, response, stream));
        }
        sleep(Duration::from_millis(50)).await;
    }
    sleep(WHILE).await;
}

/// Letters of attachments without anything, of which each takes two bytes, so many at once, again and again.
async fn empties(address: &str, key: &str, at_once: usize, bytes: usize) {
    let attachments = [0x2a, 0].repeat(bytes / 2);
    let within = |tag: u8, message: &[u8]| {
        let mut field = vec![tag];
        prost::encoding::encode_varint(message.len() as u64, &mut field);
        [&field, message].concat()
    };
    // `message` of the request, `composed` of the message.
    let letter = with_prefix(0, &within(0x12, &within(0x32, &attachments)));
    let start = Instant::now();
    while start.elapsed() < WHILE {
        let mut calls = JoinSet::new();
        for _ in 0..at_once {
            let (address, key, letter) = (address.to_owned(), key.to_owned(), letter.clone());
            calls.spawn(async move {
                let mut client = RawClient::connect(&address).await;
                client.call(head(SEND_MESSAGE, Some(&key), &[]), letter).await
            });
        }
        while calls.join_next().await.is_some() {}
    }
}
