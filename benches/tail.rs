//! How long after a mail server's reply its entry reaches a reader, in the middle of a slow session: with one reader and
//! with a hundred. And what readers that never read cost. Prints figures, asserts nothing.

mod rig;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, Composed, CreateAccountRequest, CreateSiteRequest, Message, Security, SendMessageRequest,
    TailLogEntriesRequest, TailLogEntriesResponse,
};
use postroom::domain::account::Origin;
use postroom::domain::clock::Clock;
use postroom::domain::log::{Chunk, Entry, EntryKind, LogId};
use postroom::domain::site::SiteId;
use postroom::private_postgres::{self, PrivatePostgres};
use postroom::store::{Store, logs};
use postroom::vault::Vault;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use uuid::Uuid;

use self::rig::Rig;

const SITE: &str = "sites/bench";
/// Letters in a run, one behind the other.
const LETTERS: usize = 10;
/// Recipients of a letter: so many replies in the middle of a session.
const RECIPIENTS: usize = 20;
/// The server's pauses before a reply go up to this.
const PAUSE: Duration = Duration::from_millis(200);
/// Readers that never read.
const STALLED: usize = 100;
/// Text that they do not read.
const UNREAD_BYTES: usize = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = private_postgres::start_throwaway().await?;
    println!(
        "{:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "readers", "entries", "p50 ms", "p90 ms", "p99 ms", "max ms"
    );
    for (number, readers) in [1, 100, 1, 100].into_iter().enumerate() {
        let mut times = latencies(&cluster, &format!("bench{number}"), readers, 0).await?;
        print(&readers.to_string(), &mut times);
    }
    let mut times = latencies(&cluster, "stalled", 10, STALLED).await?;
    print("10 *", &mut times);
    println!("* beside {STALLED} readers that never read");
    memory(&cluster).await?;
    cluster.stop().await?;
    Ok(())
}

fn print(readers: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    let (count, p50, p90, p99, max) = (times.len(), at(50), at(90), at(99), at(100));
    println!("{readers:>8} {count:>9} {p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}");
}

/// From the moment before a reply is written to the moment a reader has its entry, for each reply and reader.
async fn latencies(
    cluster: &PrivatePostgres,
    name: &str,
    readers: usize,
    stalled: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let rig = start(cluster, name).await?;
    let written = Arc::new(Mutex::new(Vec::new()));
    let port = slow_server(Arc::clone(&written)).await?;
    let account = Account {
        sender_email: "shop@example.com".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: u32::from(port),
        security: Security::None.into(),
        active: Some(false),
        ..Account::default()
    };
    let request = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(account),
        ..CreateAccountRequest::default()
    };
    let mut accounts = AccountsServiceClient::new(rig.channel.clone());
    let account = accounts.create_account(request).await?.into_inner().account.ok_or("no account")?;
    let update = postroom::api::proto::UpdateAccountRequest {
        account: Some(Account { name: account.name, active: Some(true), ..Account::default() }),
        ..Default::default()
    };
    accounts.update_account(update).await?;
    written.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let mut held = Vec::new();
    for _ in 0..stalled {
        held.push(tail(&rig).await?);
    }
    let (seen, mut all_seen) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let mut stream = tail(&rig).await?;
        stream.message().await?;
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Ok(Some(response)) = stream.message().await {
                let now = Instant::now();
                for entry in response.entries.iter().filter(|entry| entry.kind() == Kind::Server) {
                    if let Some((_, number)) = entry.text.split_once("reply ") {
                        let _ = seen.send((number.parse::<usize>().unwrap_or(usize::MAX), now));
                    }
                }
            }
        });
    }
    drop(seen);
    let to = (0..RECIPIENTS).map(|number| format!("r{number}@example.org")).collect::<Vec<_>>();
    for _ in 0..LETTERS {
        let composed = Composed { subject: "Slow".to_owned(), text: "x\n".to_owned(), ..Composed::default() };
        let message = Message {
            from_address: "shop@example.com".to_owned(),
            to: to.clone(),
            content: Some(Content::Composed(composed)),
            ..Message::default()
        };
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(message),
            wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..SendMessageRequest::default()
        };
        SendServiceClient::new(rig.channel.clone()).send_message(request).await?;
    }
    let written = written.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut times = Vec::new();
    while times.len() < written.len() * readers {
        let (number, now) =
            timeout(Duration::from_secs(10), all_seen.recv()).await?.ok_or("readers ended")?;
        times.extend(written.iter().find(|(reply, _)| *reply == number).map(|(_, then)| now - *then));
    }
    drop(held);
    tasks.shutdown().await;
    rig.stop().await?;
    Ok(times)
}

/// The memory of the process, which is server and clients, before and after readers do not read.
async fn memory(cluster: &PrivatePostgres) -> Result<(), Box<dyn Error>> {
    let rig = start(cluster, "memory").await?;
    let folder = tempfile::tempdir()?;
    let vault = Arc::new(Vault::create_file(&folder.path().join("vault.keys"))?);
    let store = Store::open(&rig.database_url, vault, Clock::default())?;
    let site = SiteId::parse("bench").ok_or("no site")?;
    // Fills what memory the first letters take anyway.
    fill(&store, &site, UNREAD_BYTES).await?;
    let mut reading = tail(&rig).await?;
    reading.message().await?;
    drop(reading);
    let before = resident()?;
    let mut held = Vec::new();
    for _ in 0..STALLED {
        held.push(tail(&rig).await?);
    }
    sleep(Duration::from_secs(2)).await;
    let opened = resident()?;
    fill(&store, &site, UNREAD_BYTES).await?;
    sleep(Duration::from_secs(2)).await;
    let after = resident()?;
    let each = |bytes: u64| bytes.saturating_sub(before) / 1024 / STALLED as u64;
    println!(
        "{STALLED} readers that never read {} MiB: {} KiB each when opened, {} KiB each in the end",
        UNREAD_BYTES >> 20,
        each(opened),
        each(after)
    );
    drop(held);
    store.close().await;
    rig.stop().await
}

/// Adds so much text to the log of checks.
async fn fill(store: &Store, site: &SiteId, bytes: usize) -> Result<(), Box<dyn Error>> {
    let entry = Entry { time: store.clock().now(), kind: EntryKind::Server, text: "250 reply ".repeat(5) };
    let chunk = Chunk {
        site: site.clone(),
        log: LogId::check(Origin::Admin, 0),
        session: Some(Uuid::now_v7()),
        message: None,
        entries: vec![entry; 256],
    };
    let batch = vec![chunk; 64];
    for _ in 0..bytes / (64 * 256 * 50) {
        logs::record(store, site, &[], &batch).await?;
    }
    Ok(())
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

async fn start(cluster: &PrivatePostgres, name: &str) -> Result<Rig, Box<dyn Error>> {
    let rig = Rig::start(cluster, name).await?;
    let request = CreateSiteRequest { site_id: "bench".to_owned(), site: None };
    SettingsServiceClient::new(rig.channel.clone()).create_site(request).await?;
    Ok(rig)
}

/// Over a connection of its own: what one stream does not read must not hold up the others of its connection.
async fn tail(rig: &Rig) -> Result<Streaming<TailLogEntriesResponse>, Box<dyn Error>> {
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    Ok(LogsServiceClient::new(rig.connect()?).tail_log_entries(request).await?.into_inner())
}

type Written = Arc<Mutex<Vec<(usize, Instant)>>>;

/// A mail server that takes its time before each reply, numbers its replies, and notes when it wrote which.
async fn slow_server(written: Written) -> Result<u16, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let written = Arc::clone(&written);
            // A broken connection is an end like any other.
            tokio::spawn(async move { talk(stream, &written).await.ok() });
        }
    });
    Ok(port)
}

async fn talk(mut stream: TcpStream, written: &Written) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 slow.example ESMTP\r\n").await?;
    let mut in_content = false;
    while let Some(line) = lines.next_line().await? {
        if in_content && line != "." {
            continue;
        }
        let code = if line == "DATA" { 354 } else { 250 };
        if !line.starts_with("EHLO") {
            sleep(PAUSE.mul_f64(rand::random())).await;
        }
        in_content = line == "DATA";
        let number = {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            let number = written.len();
            written.push((number, Instant::now()));
            number
        };
        write.write_all(format!("{code} reply {number}\r\n").as_bytes()).await?;
    }
    Ok(())
}
