//! An SMTP server that does what a test says: well-behaved with rules for single events, or scripted byte by byte.
//!
//! Self-contained (std, tokio, tokio-rustls, rcgen), so that other test binaries can include it by `#[path]`.

#[path = "certificates.rs"]
pub(crate) mod certificates;
#[path = "ordinary.rs"]
pub(crate) mod ordinary;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::certificates::Certificate;

/// A letter that a server took, with its envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// What MAIL said behind `FROM:`, parameters included.
    pub(crate) sender: String,
    /// What the accepted RCPTs said behind `TO:`.
    pub(crate) recipients: Vec<String>,
    /// The letter, dots undoubled.
    pub(crate) content: Vec<u8>,
    /// The user who had logged in.
    pub(crate) user: Option<String>,
    /// Whether the connection was in TLS.
    pub(crate) tls: bool,
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
}

/// What a server saw and did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    /// Connections accepted.
    pub(crate) connections: usize,
    /// Commands heard, in order, over all connections.
    pub(crate) commands: Vec<String>,
    /// Letters taken.
    pub(crate) letters: Vec<Received>,
    /// Faults played, by name: what shows that a test tested something.
    pub(crate) faults: Vec<String>,
    /// Connections that the client has ended.
    pub(crate) ended: usize,
}

/// A server on a free port of 127.0.0.1, gone when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    journal: Shared,
    accepting: JoinHandle<()>,
}

/// The journal as server and connections share it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<(Mutex<Journal>, watch::Sender<()>)>);

impl Shared {
    fn new() -> Self {
        Self(Arc::new((Mutex::default(), watch::Sender::new(()))))
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes into the journal and wakes those who wait for it.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Journal)) {
        write(&mut self.lock());
        self.0.1.send_replace(());
    }
}

impl Server {
    /// A server whose every connection is handled by `script`.
    pub(crate) async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let journal = Shared::new();
        let shared = journal.clone();
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket option");
                let mut number = 0;
                shared.write(|journal| {
                    number = journal.connections;
                    journal.connections += 1;
                });
                let journal = shared.clone();
                let peer = Peer {
                    stream: Stream::Plain(stream),
                    input: Vec::new(),
                    start: 0,
                    number,
                    journal: journal.clone(),
                };
                let script = script(peer);
                connections.spawn(async move {
                    // A broken connection is the end of a script like any other.
                    let _ = script.await;
                    journal.write(|journal| journal.ended += 1);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, journal, accepting }
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it saw and did so far.
    pub(crate) fn journal(&self) -> Journal {
        self.journal.lock().clone()
    }

    /// Waits until the journal says so.
    pub(crate) async fn wait_until(&self, mut condition: impl FnMut(&Journal) -> bool) -> Journal {
        let mut changes = self.journal.0.1.subscribe();
        loop {
            let journal = self.journal();
            if condition(&journal) {
                return journal;
            }
            if changes.changed().await.is_err() {
                return journal;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, from the server's side.
pub(crate) struct Peer {
    stream: Stream,
    input: Vec<u8>,
    /// Where the bytes begin that were not taken yet.
    start: usize,
    /// The number of the connection, from 0.
    pub(crate) number: usize,
    journal: Shared,
}

impl Peer {
    /// Says exactly these bytes.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// One line without its line end; an error at the end of the connection.
    pub(crate) async fn line(&mut self) -> io::Result<String> {
        let bytes = self.raw_line().await?;
        Ok(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
    }

    /// One command, noted in the journal.
    pub(crate) async fn command(&mut self) -> io::Result<String> {
        let line = self.line().await?;
        self.journal.write(|journal| journal.commands.push(line.clone()));
        Ok(line)
    }

    /// Hears one command and answers.
    pub(crate) async fn answer(&mut self, reply: impl AsRef<[u8]>) -> io::Result<String> {
        let line = self.command().await?;
        self.say(reply).await?;
        Ok(line)
    }

    /// Greets and answers EHLO, with these extensions.
    pub(crate) async fn hello(&mut self, extensions: &[&str]) -> io::Result<()> {
        self.say("220 scripted.example ESMTP\r\n").await?;
        self.ehlo(extensions).await
    }

    /// Answers EHLO, with these extensions.
    pub(crate) async fn ehlo(&mut self, extensions: &[&str]) -> io::Result<()> {
        let mut reply = String::new();
        for line in std::iter::once(&"scripted.example").chain(extensions) {
            reply += "250-";
            reply += line;
            reply += "\r\n";
        }
        let last = reply.rfind("250-").unwrap_or_default();
        reply.replace_range(last + 3..last + 4, " ");
        self.answer(reply).await.map(|_| ())
    }

    /// Hears MAIL, one RCPT and DATA, takes all of them.
    pub(crate) async fn envelope(&mut self) -> io::Result<()> {
        self.answer("250 sender ok\r\n").await?;
        self.answer("250 recipient ok\r\n").await?;
        self.answer("354 go ahead\r\n").await.map(|_| ())
    }

    /// The content up to the dot, dots undoubled.
    pub(crate) async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let line = self.raw_line().await?;
            if line == b".\r\n" {
                return Ok(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// Does the handshake as the server.
    pub(crate) async fn tls(mut self, certificate: Certificate) -> io::Result<Self> {
        let Stream::Plain(stream) = self.stream else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let stream = TlsAcceptor::from(certificate.server_config()).accept(stream).await?;
        self.stream = Stream::Tls(Box::new(stream));
        Ok(self)
    }

    /// Whether the connection is in TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Notes that a fault was played.
    pub(crate) fn fault(&self, name: impl Into<String>) {
        self.journal.write(|journal| journal.faults.push(name.into()));
    }

    /// Notes a letter that was taken.
    pub(crate) fn take(&self, letter: Received) {
        self.journal.write(|journal| journal.letters.push(letter));
    }

    /// Reads on, answering nothing, until the client is gone; how many bytes came.
    pub(crate) async fn hold(&mut self) -> io::Result<usize> {
        let mut count = self.input.len() - self.start;
        let mut buffer = vec![0; 4096];
        loop {
            match self.stream.read(&mut buffer).await? {
                0 => return Ok(count),
                more => count += more,
            }
        }
    }

    /// Waits until the client is gone, reading nothing.
    pub(crate) async fn stop_reading(&mut self) -> io::Result<()> {
        loop {
            let tcp = self.stream.tcp();
            let ready = tcp.ready(tokio::io::Interest::ERROR).await?;
            if ready.is_error() || ready.is_read_closed() {
                return Ok(());
            }
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) -> io::Result<()> {
        self.stream.tcp().set_zero_linger()
    }

    async fn raw_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.input[self.start..].iter().position(|byte| *byte == b'\n') {
                let line = self.input[self.start..=self.start + end].to_vec();
                self.start += line.len();
                return Ok(line);
            }
            self.input.drain(..self.start);
            self.start = 0;
            let mut buffer = vec![0; 16 * 1024];
            match self.stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
