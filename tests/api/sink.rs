//! A quick mail server for tests with many letters: it takes everything and notes when which transaction began, for whom,
//! over which connection. Self-contained, so that a bench can include it by `#[path]`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Longest line it reads.
const MAX_LINE_BYTES: u64 = 4_096;

/// One transaction: MAIL to dot.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// When MAIL was heard.
    pub(crate) begun: Instant,
    /// When the letter was taken, before that was said.
    pub(crate) taken: Instant,
    /// The envelope sender.
    pub(crate) sender: String,
    /// The recipients.
    pub(crate) recipients: Vec<String>,
    /// The Message-ID of its letter.
    pub(crate) message_id: String,
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
}

/// A connection, and when it was open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Accepted.
    pub(crate) from: Instant,
    /// Closed by the client; none while it is open.
    pub(crate) to: Option<Instant>,
}

#[derive(Default)]
struct Seen {
    transactions: Vec<Transaction>,
    connections: Vec<Span>,
}

/// The server, gone when dropped.
pub(crate) struct Sink {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// A server that takes so long to answer the dot.
    pub(crate) async fn start(slowness: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let (taken, count) = watch::channel(0);
        let shared = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let taken = Arc::new(taken);
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket option");
                let (seen, taken) = (Arc::clone(&shared), Arc::clone(&taken));
                connections.spawn(async move {
                    let number = {
                        let mut seen = lock(&seen);
                        seen.connections.push(Span { from: Instant::now(), to: None });
                        seen.connections.len() - 1
                    };
                    // A broken connection is an end like any other.
                    let _ = talk(stream, number, slowness, &seen, &taken).await;
                    lock(&seen).connections[number].to.get_or_insert_with(Instant::now);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, seen, count, accepting }
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Letters taken so far.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Every transaction that was taken, in the order of their dots.
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        lock(&self.seen).transactions.clone()
    }

    /// Every connection, by number.
    pub(crate) fn connections(&self) -> Vec<Span> {
        lock(&self.seen).connections.clone()
    }

    /// Waits until so many letters were taken; panics where that takes longer than `within`.
    pub(crate) async fn wait_for(&self, letters: usize, within: Duration) {
        let mut count = self.count.clone();
        let waited = timeout(within, count.wait_for(|count| *count >= letters)).await;
        assert!(waited.is_ok(), "only {} of {letters} letters came", self.count());
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Most connections that were open at the same time.
pub(crate) fn most_at_once(spans: &[Span]) -> usize {
    let at = |moment: Instant| {
        spans.iter().filter(|span| span.from <= moment && span.to.is_none_or(|to| to > moment)).count()
    };
    spans.iter().map(|span| at(span.from)).max().unwrap_or(0)
}

async fn talk(
    stream: TcpStream,
    number: usize,
    slowness: Duration,
    seen: &Mutex<Seen>,
    taken: &watch::Sender<usize>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write.write_all(b"220 sink.example ESMTP\r\n").await?;
    let mut open: Option<Transaction> = None;
    loop {
        let line = line(&mut read).await?;
        let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
        let path = path.unwrap_or_default().to_owned();
        let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => "250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            "MAIL" => {
                let begun = Instant::now();
                open = Some(Transaction {
                    begun,
                    taken: begun,
                    sender: path,
                    recipients: Vec::new(),
                    message_id: String::new(),
                    connection: number,
                });
                "250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                if let Some(transaction) = &mut open {
                    transaction.recipients.push(path);
                }
                "250 2.1.5 ok\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go\r\n").await?;
                let message_id = content(&mut read).await?;
                if !slowness.is_zero() {
                    sleep(slowness).await;
                }
                // Taken before it is said, as by any server that can be trusted.
                if let Some(transaction) = open.take() {
                    let taken = Instant::now();
                    lock(seen).transactions.push(Transaction { taken, message_id, ..transaction });
                }
                taken.send_modify(|count| *count += 1);
                "250 2.0.0 taken\r\n"
            }
            "RSET" | "NOOP" => "250 2.0.0 ok\r\n",
            "QUIT" => {
                // Said before it is answered: behind the answer the client may open the next one.
                lock(seen).connections[number].to = Some(Instant::now());
                return write.write_all(b"221 2.0.0 bye\r\n").await;
            }
            _ => "502 5.5.1 unknown\r\n",
        };
        write.write_all(reply.as_bytes()).await?;
    }
}

/// Reads the content; its Message-ID.
async fn content(read: &mut (impl tokio::io::AsyncBufRead + Unpin + Send)) -> io::Result<String> {
    let mut message_id = String::new();
    loop {
        let line = line(read).await?;
        if line == "." {
            return Ok(message_id);
        }
        if let Some(id) = line.strip_prefix("Message-ID: ") {
            id.clone_into(&mut message_id);
        }
    }
}

async fn line(read: &mut (impl tokio::io::AsyncBufRead + Unpin + Send)) -> io::Result<String> {
    let mut line = String::new();
    if read.take(MAX_LINE_BYTES).read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
