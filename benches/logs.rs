//! Fifty logs that are all written at once, past their limit again and again: what is written in a second, how large any of
//! them gets, and whether the room of what they held before comes back. Prints figures, asserts nothing.
//!
//! `cargo bench --bench logs [-- <MiB a log>]`; the server's own cleaning is done here, after each turn. Its folder is a
//! temporary one (`TMPDIR`) and grows to about 1.5 GiB with the limit of 10 MiB.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom::domain::audit::{Actor, Deed, Note};
use postroom::domain::clock::Clock;
use postroom::domain::log::{self, Chunk, Entry, EntryKind, LogId};
use postroom::domain::site::SiteId;
use postroom::private_postgres;
use postroom::store::{Store, logs};
use postroom::vault::Vault;
use rand::RngExt as _;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Accounts, each with one log.
const ACCOUNTS: usize = 50;
/// Tasks that write; each to some of the logs, in turn.
const WRITERS: usize = 4;
/// How often each log is filled to its limit.
const TURNS: usize = 4;
/// The limit of a log, in MiB.
const LIMIT: u64 = 10;
/// Transcripts recorded at once, of several logs, as the recorder does under load.
const BATCH: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limit = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(LIMIT);
    let cluster = private_postgres::start_throwaway().await?;
    cluster.create_database("bench", None).await?;
    let url = cluster.url_of("bench");
    let folder = tempfile::tempdir()?;
    let vault = Arc::new(Vault::create_file(&folder.path().join("vault.keys"))?);
    let store = Store::open(&url, vault, Clock::default())?;
    store.migrate().await?;
    let mut database = PgConnection::connect(&url).await?;
    let begin = format!(
        "insert into sites (site_id) values ('bench');
         insert into settings (site_id, log_max_size_mib) values ('bench', {limit});
         insert into accounts (site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security)
         select 'bench', n, false, '', 'a' || n, 'a' || n, '127.0.0.1', 25, 'none' from generate_series(1, {ACCOUNTS}) as n"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut database).await?;
    println!("{ACCOUNTS} logs of {limit} MiB, {WRITERS} writers; MiB of table, indexes and TOAST");
    println!(
        "{:>14} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "", "chunks/s", "MiB/s", "largest", "readable", "peak", "cleaned", "clean s"
    );
    for turn in 1..=TURNS {
        let (written, bytes, took) = fill(&store, limit).await?;
        let peak = room(&mut database).await?;
        let (readable, largest) = sizes(&mut database).await?;
        let cleaning = clean(&store).await?;
        println!(
            "{:>14} {:>11.0} {:>9.1} {:>9.2} {:>9.1} {:>9.1} {:>8.1} {:>8.1}",
            format!("turn {turn}"),
            written / took.as_secs_f64(),
            bytes / took.as_secs_f64(),
            largest,
            readable,
            peak,
            room(&mut database).await?,
            cleaning.as_secs_f64()
        );
    }
    let site = site()?;
    for account in accounts() {
        let log = log_of(account)?;
        let note = Note { by: Actor::CommandLine, deed: Deed::ClearLog(log) };
        logs::clear(&store, &site, log, &note).await?;
    }
    let peak = room(&mut database).await?;
    let cleaning = clean(&store).await?;
    let (readable, largest) = sizes(&mut database).await?;
    println!(
        "{:>14} {:>11} {:>9} {largest:>9.2} {readable:>9.1} {peak:>9.1} {:>8.1} {:>8.1}",
        "all cleared",
        "",
        "",
        room(&mut database).await?,
        cleaning.as_secs_f64()
    );
    database.close().await?;
    store.close().await;
    cluster.stop().await?;
    Ok(())
}

fn site() -> Result<SiteId, Box<dyn Error>> {
    Ok(SiteId::parse("bench").ok_or("a site")?)
}

fn accounts() -> impl Iterator<Item = usize> {
    1..=ACCOUNTS
}

fn log_of(account: usize) -> Result<LogId, Box<dyn Error>> {
    Ok(LogId::parse(&format!("send-admin-{account}")).ok_or("a log")?)
}

/// Writes as much into each log as it takes; how many chunks and MiB, and how long that took.
async fn fill(store: &Store, limit: u64) -> Result<(f64, f64, Duration), Box<dyn Error>> {
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        let own: Vec<LogId> =
            accounts().filter(|account| account % WRITERS == writer).map(log_of).collect::<Result<_, _>>()?;
        let site = site()?;
        writers.spawn(async move { write(&store, &site, &own, limit << 20).await });
    }
    let (mut chunks, mut bytes) = (0.0, 0.0);
    while let Some(written) = writers.join_next().await {
        let (of_writer, size) = written?.map_err(|error| error.to_string())?;
        chunks += f64::from(of_writer);
        bytes += mebibytes(i64::try_from(size)?);
    }
    Ok((chunks, bytes, start.elapsed()))
}

/// Writes so many bytes into each of these logs, in turn; how many chunks, and bytes in all.
async fn write(
    store: &Store,
    site: &SiteId,
    own: &[LogId],
    each: u64,
) -> Result<(u32, u64), postroom::store::StoreError> {
    let all = each * u64::try_from(own.len()).unwrap_or(1);
    let (mut chunks, mut bytes) = (0, 0);
    let mut logs = own.iter().cycle();
    while bytes < all {
        let batch: Vec<Chunk> =
            logs.by_ref().take(BATCH).map(|log| transcript(site, *log, store.clock().now())).collect();
        for chunk in &batch {
            let sizes =
                chunk.entries.iter().map(|entry| log::size(chunk.session, entry.kind, entry.text.len()));
            bytes += u64::try_from(sizes.sum::<usize>()).unwrap_or_default();
        }
        chunks += u32::try_from(batch.len()).unwrap_or_default();
        logs::record(store, site, &[], &batch).await?;
    }
    Ok((chunks, bytes))
}

/// What one letter through a new session leaves behind at `CLIENT_SERVER`.
fn transcript(site: &SiteId, log: LogId, time: OffsetDateTime) -> Chunk {
    let mut random = rand::rng();
    let (queue, to): (u64, u32) = (random.random(), random.random());
    let (client, server) = (EntryKind::Client, EntryKind::Server);
    let lines = [
        (server, "220 mx1.mail.example.net ESMTP ready at Sun, 22 Nov 2026 01:11:52 +0000".to_owned()),
        (client, "EHLO post.shop.example.com".to_owned()),
        (server, "250-mx1.mail.example.net greets post.shop.example.com".to_owned()),
        (server, "250-PIPELINING".to_owned()),
        (server, "250-SIZE 52428800".to_owned()),
        (server, "250-8BITMIME".to_owned()),
        (server, "250-ENHANCEDSTATUSCODES".to_owned()),
        (server, "250 AUTH PLAIN LOGIN".to_owned()),
        (client, "AUTH PLAIN <hidden>".to_owned()),
        (server, "235 2.7.0 Authentication successful".to_owned()),
        (client, "MAIL FROM:<shop@shop.example.com> SIZE=4312 BODY=8BITMIME".to_owned()),
        (client, format!("RCPT TO:<customer-{to}@customers.example.org>")),
        (client, "DATA".to_owned()),
        (server, "250 2.1.0 Ok".to_owned()),
        (server, "250 2.1.5 Ok".to_owned()),
        (server, "354 End data with <CR><LF>.<CR><LF>".to_owned()),
        (client, "<4312 bytes of content>".to_owned()),
        (server, format!("250 2.0.0 Ok: queued as {queue:016X}")),
    ];
    let entries = lines.into_iter().map(|(kind, text)| Entry { time, kind, text }).collect();
    Chunk {
        site: site.clone(),
        log,
        session: Some(Uuid::now_v7()),
        message: Some((Uuid::now_v7(), 1)),
        entries,
    }
}

/// As the server's sweep does it.
async fn clean(store: &Store) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    for site in logs::sites_with_leavings(store).await? {
        logs::drop_leavings(store, &site).await?;
    }
    logs::give_room_back(store).await?;
    Ok(start.elapsed())
}

/// MiB of the table of chunks, with its indexes and TOAST.
async fn room(database: &mut PgConnection) -> Result<f64, Box<dyn Error>> {
    let bytes: i64 =
        sqlx::query_scalar("select pg_total_relation_size('log_chunks')").fetch_one(database).await?;
    Ok(mebibytes(bytes))
}

/// MiB of all logs and of the largest one.
async fn sizes(database: &mut PgConnection) -> Result<(f64, f64), Box<dyn Error>> {
    let (sum, largest): (i64, i64) =
        sqlx::query_as("select sum(size_bytes)::bigint, max(size_bytes) from logs")
            .fetch_one(database)
            .await?;
    Ok((mebibytes(sum), mebibytes(largest)))
}

fn mebibytes(bytes: i64) -> f64 {
    // In KiB it fits into what is exact.
    f64::from(i32::try_from(bytes >> 10).unwrap_or(i32::MAX)) / 1024.0
}
