//! An address in front of PostgreSQL: it leads to one cluster or another, and can lose questions and answers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rand::RngExt as _;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What shares are told in.
const SHARES: u32 = 100_000;
/// A message of PostgreSQL's protocol: its type, and its length, which counts itself.
const HEADER: usize = 5;
/// Bytes of an answer that are passed on before its end.
const LARGE: usize = 65_536;

/// What was lost.
#[derive(Default)]
struct Losses {
    /// Shares of the round trips whose answer is lost, all and those that end a transaction.
    share: AtomicU32,
    share_of_commits: AtomicU32,
    questions: AtomicUsize,
    answers: AtomicUsize,
    commits: AtomicUsize,
}

/// How many round trips were broken off.
#[derive(Clone, Copy)]
pub(crate) struct Lost {
    /// Before the question reached the database.
    pub(crate) questions: usize,
    /// After the database had answered, and what it had done was done.
    pub(crate) answers: usize,
    /// Of those, answers to COMMIT.
    pub(crate) commits: usize,
}

/// Where the address leads.
#[derive(Clone, Debug)]
enum Target {
    /// To the cluster behind this socket.
    Socket(PathBuf),
    /// Nowhere.
    Silence,
}

/// The address, gone when dropped.
pub(crate) struct Proxy {
    port: u16,
    target: watch::Sender<Target>,
    losses: Arc<Losses>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// An address that leads to the cluster behind this socket.
    pub(crate) async fn start(socket: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (target, targets) = watch::channel(Target::Socket(socket));
        let losses = Arc::<Losses>::default();
        let shared = Arc::clone(&losses);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (mut targets, losses) = (targets.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // Who knocks where nobody answers knocks again, until somebody does.
                    let leads = |target: &Target| matches!(target, Target::Socket(_));
                    let Ok(target) = targets.wait_for(leads).await.map(|target| target.clone()) else {
                        return;
                    };
                    let Target::Socket(socket) = target else { return };
                    let (from_client, mut to_client) = stream.into_split();
                    let mut from_client = BufReader::new(from_client);
                    // A connection that breaks is what this is for.
                    tokio::select! {
                        _ = pass(&mut from_client, &mut to_client, socket, &losses) => return,
                        _ = targets.changed() => {}
                    }
                    if leads(&targets.borrow()) {
                        return;
                    }
                    // Who waits for an answer waits without end. Who sends something sends it again and again, until
                    // somebody else has the address, who knows nothing of this connection.
                    let _ = from_client.fill_buf().await;
                    let _ = targets.wait_for(leads).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, target, losses, accepting })
    }

    /// The port, at 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Leads to another cluster from now on; all connections end.
    pub(crate) fn lead_to(&self, socket: PathBuf) {
        self.target.send_replace(Target::Socket(socket));
    }

    /// Answers nothing any more, as a machine that lost its power, until it leads somewhere again. Connections over which
    /// an answer was awaited just then stay silent.
    pub(crate) fn freeze(&self) {
        self.target.send_replace(Target::Silence);
    }

    /// Loses such shares of the round trips, in hundred thousandths, from now on: of all, and of those that end a
    /// transaction.
    pub(crate) fn lose(&self, share: u32, share_of_commits: u32) {
        self.losses.share.store(share, Ordering::Relaxed);
        self.losses.share_of_commits.store(share_of_commits, Ordering::Relaxed);
    }

    /// What was lost so far.
    pub(crate) fn lost(&self) -> Lost {
        let Losses { share: _, share_of_commits: _, questions, answers, commits } = &*self.losses;
        let [questions, answers, commits] =
            [questions, answers, commits].map(|count| count.load(Ordering::Relaxed));
        Lost { questions, answers, commits }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes whole messages, so that it is known where a round trip ends.
async fn pass(
    mut from_client: &mut BufReader<OwnedReadHalf>,
    mut to_client: &mut OwnedWriteHalf,
    socket: PathBuf,
    losses: &Losses,
) -> io::Result<()> {
    let server = UnixStream::connect(socket).await?;
    let (from_server, mut to_server) = server.into_split();
    let mut from_server = BufReader::new(from_server);
    // The first message has no type.
    let startup = from_client.read_u32().await?;
    to_server.write_u32(startup).await?;
    let mut rest = vec![0; usize::try_from(startup).unwrap_or(0).saturating_sub(4)];
    from_client.read_exact(&mut rest).await?;
    to_server.write_all(&rest).await?;
    ready(&mut from_server, Some(&mut to_client)).await?;
    loop {
        tokio::select! {
            asked = from_client.fill_buf() => { asked?; }
            // Notifications come without being asked for.
            told = from_server.fill_buf() => {
                told?;
                let message = message(&mut from_server).await?;
                to_client.write_all(&message).await?;
                continue;
            }
        }
        let question = question(&mut from_client).await?;
        let is_commit =
            question.iter().any(|message| message.starts_with(b"Q") && contains(message, b"COMMIT"));
        let share = if is_commit { &losses.share_of_commits } else { &losses.share };
        let is_lost = rand::rng().random_range(0..SHARES) < share.load(Ordering::Relaxed);
        let closing = question.last().is_none_or(|message| message.starts_with(b"X"));
        if is_lost && rand::rng().random_range(0..3) == 0 {
            losses.questions.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        to_server.write_all(&question.concat()).await?;
        if closing {
            return Ok(());
        }
        if is_lost {
            // Whatever was asked has been done, and nobody hears of it.
            ready(&mut from_server, None).await?;
            losses.answers.fetch_add(1, Ordering::Relaxed);
            losses.commits.fetch_add(usize::from(is_commit), Ordering::Relaxed);
            return Ok(());
        }
        ready(&mut from_server, Some(&mut to_client)).await?;
    }
}

/// The messages up to the one that ends a round trip: Query, Sync or Terminate.
async fn question(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    loop {
        let message = message(from).await?;
        let ends = matches!(message.first(), Some(b'Q' | b'S' | b'X'));
        messages.push(message);
        if ends {
            return Ok(messages);
        }
    }
}

/// Passes on what the server says until it is ready for the next question.
async fn ready(
    from: &mut (impl AsyncBufRead + Unpin),
    mut to: Option<&mut OwnedWriteHalf>,
) -> io::Result<()> {
    let mut answer = Vec::new();
    loop {
        let message = message(from).await?;
        answer.extend_from_slice(&message);
        let ends = message.starts_with(b"Z");
        if ends || answer.len() >= LARGE {
            if let Some(to) = &mut to {
                to.write_all(&answer).await?;
            }
            answer.clear();
        }
        if ends {
            return Ok(());
        }
    }
}

async fn message(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    message.resize(usize::try_from(length).unwrap_or(0).max(4) + 1, 0);
    from.read_exact(&mut message[HEADER..]).await?;
    Ok(message)
}

fn contains(message: &[u8], word: &[u8]) -> bool {
    message.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}
