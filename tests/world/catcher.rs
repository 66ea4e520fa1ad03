//! The mail server behind everything, with a ledger of its own: every letter that it took, for whom, when, and whether it
//! said so. It can be told to misbehave.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Longest line it reads.
const MAX_LINE_BYTES: u64 = 4_096;
/// What shares are told in.
const SHARES: u32 = 10_000;

/// How it behaves: shares in ten thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    /// Longest time to the answer at the dot, in milliseconds; each is drawn.
    pub(crate) slow: u32,
    /// MAIL is answered with 4xx.
    pub(crate) mail_later: u32,
    /// A recipient is answered with 4xx.
    pub(crate) recipient_later: u32,
    /// A recipient is refused for good.
    pub(crate) recipient_never: u32,
    /// The letter is answered with 4xx.
    pub(crate) dot_later: u32,
    /// The letter is refused for good.
    pub(crate) dot_never: u32,
    /// The connection is cut within the content.
    pub(crate) cut_before: u32,
    /// The letter is taken, and the connection cut instead of an answer.
    pub(crate) cut_after: u32,
}

/// What was said of a letter that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// 250.
    Yes,
    /// Nothing, on purpose: the connection was cut.
    Nothing,
}

/// A letter that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Its Message-ID.
    pub(crate) message_id: String,
    /// For whom, of this transaction.
    pub(crate) recipients: Vec<String>,
    /// When its dot was read.
    pub(crate) at: Instant,
    /// What was said.
    pub(crate) said: Said,
    /// Number of the connection.
    pub(crate) connection: usize,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// When.
    pub(crate) at: Instant,
    /// Whether QUIT was heard, or the catcher itself cut it; otherwise the other side was gone.
    pub(crate) in_order: bool,
}

#[derive(Default)]
struct Ledger {
    taken: Vec<Taken>,
    /// By number; none while it is open.
    connections: Vec<Option<Ended>>,
}

/// The server, gone when dropped.
pub(crate) struct Catcher {
    port: u16,
    ledger: Arc<Mutex<Ledger>>,
    mood: Arc<watch::Sender<Mood>>,
    count: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Catcher {
    /// Starts it in good mood. Its draws come from the seed.
    pub(crate) async fn start(seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let ledger = Arc::<Mutex<Ledger>>::default();
        let mood = Arc::new(watch::Sender::new(Mood::default()));
        let (taken, count) = watch::channel(0);
        let (shared, moods) = (Arc::clone(&ledger), Arc::clone(&mood));
        let accepting = tokio::spawn(async move {
            let taken = Arc::new(taken);
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let number = {
                    let mut ledger = lock(&shared);
                    ledger.connections.push(None);
                    ledger.connections.len() - 1
                };
                let draws = StdRng::seed_from_u64(seed ^ u64::try_from(number).unwrap_or_default());
                let mood = moods.subscribe();
                let mut talk =
                    Talk { number, ledger: Arc::clone(&shared), taken: Arc::clone(&taken), mood, draws };
                connections.spawn(async move {
                    let in_order = talk.run(stream).await.is_ok();
                    lock(&talk.ledger).connections[number] = Some(Ended { at: Instant::now(), in_order });
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, ledger, mood, count, accepting })
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Behaves like this from the next command on.
    pub(crate) fn behave(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many transactions were taken, as it changes.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.clone()
    }

    /// Everything that was taken, in the order of the dots.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        lock(&self.ledger).taken.clone()
    }

    /// How each connection ended.
    pub(crate) fn connections(&self) -> Vec<Option<Ended>> {
        lock(&self.ledger).connections.clone()
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection.
struct Talk {
    number: usize,
    ledger: Arc<Mutex<Ledger>>,
    taken: Arc<watch::Sender<usize>>,
    mood: watch::Receiver<Mood>,
    draws: StdRng,
}

impl Talk {
    fn drawn(&mut self, share: u32) -> bool {
        share > 0 && self.draws.random_range(0..SHARES) < share
    }

    /// Talks to the end; an error where the other side went away without QUIT.
    async fn run(&mut self, stream: TcpStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        write.write_all(b"220 catcher.example ESMTP\r\n").await?;
        let mut recipients = Vec::new();
        loop {
            let line = line(&mut read).await?;
            let mood = *self.mood.borrow();
            let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
            let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => "250-catcher.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                "MAIL" => {
                    recipients.clear();
                    if self.drawn(mood.mail_later) { "451 4.3.0 later\r\n" } else { "250 2.1.0 ok\r\n" }
                }
                "RCPT" if self.drawn(mood.recipient_later) => "450 4.2.1 later\r\n",
                "RCPT" if self.drawn(mood.recipient_never) => "550 5.1.1 nobody of that name\r\n",
                "RCPT" => {
                    recipients.push(path.unwrap_or_default().to_owned());
                    "250 2.1.5 ok\r\n"
                }
                "DATA" if recipients.is_empty() => "503 5.5.1 nobody to send to\r\n",
                "DATA" => {
                    write.write_all(b"354 go\r\n").await?;
                    let cut = self.drawn(mood.cut_before);
                    let Some(message_id) = content(&mut read, cut).await? else { return Ok(()) };
                    if mood.slow > 0 {
                        sleep(Duration::from_millis(self.draws.random_range(0..=mood.slow).into())).await;
                    }
                    let recipients = std::mem::take(&mut recipients);
                    if self.drawn(mood.dot_later) {
                        "451 4.3.0 later\r\n"
                    } else if self.drawn(mood.dot_never) {
                        "554 5.6.0 not such a letter\r\n"
                    } else {
                        let said = if self.drawn(mood.cut_after) { Said::Nothing } else { Said::Yes };
                        // In the ledger before it is said, as with any server that can be trusted.
                        let (at, connection) = (Instant::now(), self.number);
                        let letter = Taken { message_id, recipients, at, said, connection };
                        lock(&self.ledger).taken.push(letter);
                        self.taken.send_modify(|count| *count += 1);
                        if said == Said::Nothing {
                            return Ok(());
                        }
                        "250 2.0.0 taken\r\n"
                    }
                }
                "RSET" | "NOOP" => "250 2.0.0 ok\r\n",
                "QUIT" => {
                    // Whoever says QUIT need not wait for the answer.
                    let _ = write.write_all(b"221 2.0.0 bye\r\n").await;
                    return Ok(());
                }
                _ => "502 5.5.1 unknown\r\n",
            };
            write.write_all(reply.as_bytes()).await?;
        }
    }
}

/// Reads the content up to the dot; its Message-ID. None where the connection is to be cut, which is after its header.
async fn content(read: &mut (impl AsyncBufRead + Unpin + Send), cut: bool) -> io::Result<Option<String>> {
    let mut message_id = String::new();
    loop {
        let line = line(read).await?;
        if line == "." {
            return Ok(Some(message_id));
        }
        if let (Some(id), true) = (line.strip_prefix("Message-ID: "), message_id.is_empty()) {
            id.clone_into(&mut message_id);
        }
        if line.is_empty() && cut {
            return Ok(None);
        }
    }
}

async fn line(read: &mut (impl AsyncBufRead + Unpin + Send)) -> io::Result<String> {
    let mut line = String::new();
    if read.take(MAX_LINE_BYTES).read_line(&mut line).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
