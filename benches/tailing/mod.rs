//! How long after a mail server's reply its entry reaches readers of the log, in the middle of a slow session.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    Account, Composed, CreateAccountRequest, Message, Security, SendMessageRequest, TailLogEntriesRequest,
    TailLogEntriesResponse,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::authorised::Authorised;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Whose logs are read.
pub(crate) const SITE: &str = "sites/bench";
/// Recipients of a letter: so many replies in the middle of a session.
const RECIPIENTS: usize = 20;
/// The server's pauses before a reply go up to this.
const PAUSE: Duration = Duration::from_millis(200);

/// From the moment before a reply is written to the moment a reader has its entry, for each reply and reader, while
/// letters go one behind the other. `stalled` further readers never read.
pub(crate) async fn latencies(
    connect: impl Fn() -> Outcome<Authorised>,
    letters: usize,
    readers: usize,
    stalled: usize,
) -> Outcome<Vec<Duration>> {
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
    let mut accounts = AccountsServiceClient::new(connect()?);
    let account = accounts.create_account(request).await?.into_inner().account.ok_or("no account")?;
    let update = postroom::api::proto::UpdateAccountRequest {
        account: Some(Account { name: account.name, active: Some(true), ..Account::default() }),
        ..Default::default()
    };
    accounts.update_account(update).await?;
    written.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let mut held = Vec::new();
    for _ in 0..stalled {
        held.push(tail(connect()?).await?);
    }
    let (seen, mut all_seen) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let mut stream = tail(connect()?).await?;
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
    for _ in 0..letters {
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
        SendServiceClient::new(connect()?).send_message(request).await?;
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
    Ok(times)
}

/// Over a connection of its own: what one stream does not read must not hold up the others of its connection.
pub(crate) async fn tail(connection: Authorised) -> Outcome<Streaming<TailLogEntriesResponse>> {
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    Ok(LogsServiceClient::new(connection).tail_log_entries(request).await?.into_inner())
}

type Written = Arc<Mutex<Vec<(usize, Instant)>>>;

/// A mail server that takes its time before each reply, numbers its replies, and notes when it wrote which.
async fn slow_server(written: Written) -> Outcome<u16> {
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
