//! How long after a mail server's reply its entry reaches a reader, in the middle of a slow session: with one reader and
//! with a hundred. And what readers that never read cost. Prints figures, asserts nothing.

mod authorised;
mod rig;
mod tailing;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use postroom::api::proto::CreateSiteRequest;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::domain::account::Origin;
use postroom::domain::clock::Clock;
use postroom::domain::log::{Chunk, Entry, EntryKind, LogId};
use postroom::domain::site::SiteId;
use postroom::private_postgres::{self, PrivatePostgres};
use postroom::store::{Store, logs};
use postroom::vault::Vault;
use tokio::time::sleep;
use uuid::Uuid;

use self::rig::Rig;
use self::tailing::tail;

/// Letters in a run, one behind the other.
const LETTERS: usize = 10;
/// Readers that never read.
const STALLED: usize = 100;
/// Text that they do not read.
const UNREAD_BYTES: usize = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
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

async fn latencies(
    cluster: &PrivatePostgres,
    name: &str,
    readers: usize,
    stalled: usize,
) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let rig = start(cluster, name).await?;
    let connect = || rig.connect();
    let times = tailing::latencies(connect, LETTERS, readers, stalled).await?;
    rig.stop().await?;
    Ok(times)
}

/// The memory of the process, which is server and clients, before and after readers do not read.
async fn memory(cluster: &PrivatePostgres) -> Result<(), Box<dyn Error + Send + Sync>> {
    let rig = start(cluster, "memory").await?;
    let folder = tempfile::tempdir()?;
    let vault = Arc::new(Vault::create_file(&folder.path().join("vault.keys"))?);
    let store = Store::open(&rig.database_url, vault, Clock::default())?;
    let site = SiteId::parse("bench").ok_or("no site")?;
    // Fills what memory the first letters take anyway.
    fill(&store, &site, UNREAD_BYTES).await?;
    let mut reading = tail(rig.connect()?).await?;
    reading.message().await?;
    drop(reading);
    let before = resident()?;
    let mut held = Vec::new();
    for _ in 0..STALLED {
        held.push(tail(rig.connect()?).await?);
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
async fn fill(store: &Store, site: &SiteId, bytes: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
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
fn resident() -> Result<u64, Box<dyn Error + Send + Sync>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

async fn start(cluster: &PrivatePostgres, name: &str) -> Result<Rig, Box<dyn Error + Send + Sync>> {
    let rig = Rig::start(cluster, name).await?;
    let request = CreateSiteRequest { site_id: "bench".to_owned(), site: None };
    SettingsServiceClient::new(rig.channel.clone()).create_site(request).await?;
    Ok(rig)
}
