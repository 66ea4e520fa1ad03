//! Postroom as an operator runs it: the built program, a process of its own, over a new private PostgreSQL that is
//! durable.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, CreateAccountRequest, CreateSiteRequest, Message, Security, SendMessageRequest,
    SendMessagesRequest, Settings, UpdateSettingsRequest,
};
use postroom::private_postgres::{self, PrivatePostgres};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Code;

use crate::authorised::Authorised;
use crate::letters::{Letters, sender};
use crate::served::Served;
use crate::{Outcome, processes};

pub(crate) const SITE: &str = "sites/bench";
const ARGUMENTS: [&str; 6] =
    ["--egress-allow", "127.0.0.0/8", "--egress-ports", "1-65535", "--calls-per-key", "1000000"];
/// Connections that callers share, so that none of them is the bottleneck.
const CONNECTIONS: usize = 4;
/// How long a caller who is told that there is no room waits before he asks again.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the database is asked whether all letters are sent, once all are taken.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Whether letters of the first so many accounts wait or are under way that were due between a time and an hour from now.
/// By equalities and one range of the index, so that neither letters that wait besides nor rows that left the queue before,
/// and cannot be cleaned away, are walked past.
const WAITING: &str = "select exists (
    select
    from generate_series(1, $1) as account
    cross join lateral (
        select
        from queue q
        where q.site_id = 'bench'
          and q.account_id = account
          and not q.mailing
          and q.due >= $2
          and q.due < now() + interval '1 hour'
        limit 1
    ) as waits
)";

/// When a letter is to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    /// Tomorrow: the letter is only accepted.
    Tomorrow,
}

/// What was counted while letters were sent.
#[derive(Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) server_cpu: Duration,
    pub(crate) postgres_cpu: Duration,
    pub(crate) wal_bytes: i64,
}

/// A running Postroom.
pub(crate) struct Postroom {
    pub(crate) served: Served,
    channels: Vec<Authorised>,
    postmaster: u32,
    /// How many accounts send; their ids are the first ones.
    accounts: i64,
    cluster: PrivatePostgres,
    folder: TempDir,
}

impl Postroom {
    /// From a cold start: a new cluster, a site, so many accounts at this server.
    pub(crate) async fn start(server: SocketAddr, accounts: usize) -> Outcome<Self> {
        let folder = crate::folder()?;
        // The cluster's user must be able to pass through, where it is not ours.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let data = folder.path().join("data");
        let served = Served::start_in(&data, false, &ARGUMENTS).await?;
        // A share in it: the cluster is asked things, and outlives the server until the folder goes.
        let cluster = private_postgres::start(&data).await?;
        let pid_file = std::fs::read_to_string(data.join("postgres/cluster/postmaster.pid"))?;
        let postmaster = pid_file.lines().next().ok_or("no postmaster")?.trim().parse()?;
        let channels = (0..CONNECTIONS).map(|_| served.connect()).collect();
        let postroom =
            Self { served, channels, postmaster, accounts: i64::try_from(accounts)?, cluster, folder };
        let request = CreateSiteRequest { site_id: "bench".to_owned(), site: None };
        let mut settings = SettingsServiceClient::new(postroom.channel(0));
        settings.create_site(request).await?;
        // At the default of 10 MiB the log of one account would begin afresh, and its transcripts could not be counted.
        let unbounded =
            Settings { name: format!("{SITE}/settings"), log_max_size_mib: Some(0), ..Settings::default() };
        let request = UpdateSettingsRequest { settings: Some(unbounded), update_mask: None };
        settings.update_settings(request).await?;
        for number in 0..accounts {
            postroom.create_account(&sender(number), server).await?;
        }
        Ok(postroom)
    }

    /// Another server over the same database.
    pub(crate) async fn another(&self) -> Outcome<Served> {
        Served::start_in(&self.folder.path().join("data"), false, &ARGUMENTS).await
    }

    /// An account of this address.
    pub(crate) async fn create_account(&self, sender_email: &str, server: SocketAddr) -> Outcome<()> {
        let account = Account {
            sender_email: sender_email.to_owned(),
            host: server.ip().to_string(),
            port: u32::from(server.port()),
            security: Security::None.into(),
            ..Account::default()
        };
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        AccountsServiceClient::new(self.channel(0)).create_account(request).await?;
        Ok(())
    }

    /// One of the connections.
    pub(crate) fn channel(&self, number: usize) -> Authorised {
        self.channels[number % CONNECTIONS].clone()
    }

    /// Sends by so many callers at once, each letter a call, from the accounts in turn; how long that takes.
    pub(crate) async fn send(
        &self,
        letters: &Arc<Letters>,
        count: usize,
        accounts: usize,
        callers: usize,
        due: Due,
    ) -> Outcome<Duration> {
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let mut client = SendServiceClient::new(self.channel(caller));
            let (next, letters) = (Arc::clone(&next), Arc::clone(letters));
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let message = message(&letters, number, accounts, due);
                    let request = SendMessageRequest {
                        parent: SITE.to_owned(),
                        request_id: number_id(number),
                        message: Some(message),
                        ..SendMessageRequest::default()
                    };
                    while let Err(status) = client.send_message(request.clone()).await {
                        // Full is no failure: the rate tells it.
                        if ![Code::Unavailable, Code::ResourceExhausted].contains(&status.code()) {
                            return Err(status);
                        }
                        sleep(PAUSE).await;
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(start.elapsed())
    }

    /// Sends over one stream; how long it takes until all are answered.
    pub(crate) async fn stream(
        &self,
        letters: &Arc<Letters>,
        count: usize,
        accounts: usize,
        due: Due,
    ) -> Outcome<Duration> {
        stream_over(&self.channel(0), letters, 0..count, accounts, due).await
    }

    /// Waits until the letters are SENT that were taken since a time, their transcripts stored, which makes so many letters
    /// of the bench; when that was so.
    pub(crate) async fn wait_until_sent(&self, count: usize, since: OffsetDateTime) -> Outcome<Instant> {
        let count = i64::try_from(count)?;
        let mut database = self.database().await?;
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            // A letter leaves the queue by the statement that records its outcome.
            let waiting = sqlx::query_scalar(WAITING).bind(self.accounts).bind(since);
            let waiting: bool = waiting.fetch_one(&mut database).await?;
            let end = Instant::now();
            if !waiting || end > deadline {
                // The proof reads all letters, and is no part of what is measured.
                let sent: i64 = sqlx::query_scalar("select count(*) from messages where state = 'sent'")
                    .fetch_one(&mut database)
                    .await?;
                if sent == count {
                    return Ok(end);
                }
                return Err(format!("only {sent} of {count} letters are sent").into());
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// The letters whose transcript is stored.
    pub(crate) async fn transcripts(&self) -> Outcome<i64> {
        let mut database = self.database().await?;
        let count = "select count(distinct message_id) from log_chunks where message_id is not null";
        Ok(sqlx::query_scalar(count).fetch_one(&mut database).await?)
    }

    /// A connection to its database.
    pub(crate) async fn database(&self) -> Outcome<PgConnection> {
        Ok(PgConnection::connect(&self.cluster.database_url()).await?)
    }

    /// What was spent so far.
    pub(crate) async fn costs(&self) -> Outcome<Costs> {
        let mut database = self.database().await?;
        let wal = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let wal_bytes = sqlx::query_scalar(wal).fetch_one(&mut database).await?;
        Ok(Costs {
            server_cpu: processes::cpu(self.served.pid),
            postgres_cpu: processes::cpu(self.postmaster),
            wal_bytes,
        })
    }
}

impl Drop for Postroom {
    /// The server is gone before its cluster is left, so that whoever leaves last stops it.
    fn drop(&mut self) {
        let Ok(pid) = self.served.pid.try_into().map(Pid::from_raw) else { return };
        let mut signal = Signal::SIGTERM;
        let deadline = Instant::now() + Duration::from_secs(20);
        while processes::runs(self.served.pid) && kill(pid, signal).is_ok() {
            if Instant::now() > deadline {
                signal = Signal::SIGKILL;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends these letters over one stream; how long it takes until all are answered.
pub(crate) async fn stream_over(
    channel: &Authorised,
    letters: &Arc<Letters>,
    numbers: Range<usize>,
    accounts: usize,
    due: Due,
) -> Outcome<Duration> {
    let start = Instant::now();
    let first = numbers.start;
    let ids: Arc<Vec<String>> = Arc::new(numbers.clone().map(number_id).collect());
    let mut left: Vec<usize> = numbers.collect();
    while !left.is_empty() {
        let (letters, ids) = (Arc::clone(letters), Arc::clone(&ids));
        let asked = left.len();
        let items = left.into_iter().map(move |number| SendMessagesRequest {
            parent: SITE.to_owned(),
            message: Some(message(&letters, number, accounts, due)),
            request_id: ids[number - first].clone(),
            index: i64::try_from(number).unwrap_or(i64::MAX),
        });
        let mut client = SendServiceClient::new(channel.clone());
        let mut results = client.send_messages(tokio_stream::iter(items)).await?.into_inner();
        let mut answered = 0;
        left = Vec::new();
        while let Some(result) = results.message().await? {
            answered += 1;
            let Some(error) = result.error else { continue };
            // Full is no failure: those go again.
            if ![Code::Unavailable, Code::ResourceExhausted].contains(&Code::from(error.code)) {
                return Err(format!("an item was not taken: {}: {}", error.reason, error.text).into());
            }
            left.push(usize::try_from(result.index)?);
        }
        if answered != asked {
            return Err(format!("{answered} of {asked} items were answered").into());
        }
    }
    Ok(start.elapsed())
}

fn message(letters: &Letters, number: usize, accounts: usize, due: Due) -> Message {
    let mut message = letters.message(number, &sender(number % accounts));
    if due == Due::Tomorrow {
        let tomorrow = crate::clock().now() + time::Duration::DAY;
        message.send_time = Some(prost_types::Timestamp { seconds: tomorrow.unix_timestamp(), nanos: 0 });
    }
    message
}

/// A request id, as a caller who may have to ask again has one.
fn number_id(number: usize) -> String {
    format!("{}-{number}", uuid::Uuid::now_v7())
}
