//! One connection as bytes: whole replies within a deadline, whole writes within a deadline, and a letter written while
//! listening. Knows no command.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use super::printable;
use super::reply::{Assembler, Line, Nonsense, RawReply};
use super::transcript::Transcript;
use crate::domain::log::EntryKind;

/// Bytes taken from the connection at once.
const INPUT_BYTES: usize = 8 * 1024;
/// How long closing in order may take; after that the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why no reply could be had, or nothing written.
#[derive(Debug)]
pub(super) enum Broken {
    /// The deadline passed; what had arrived of a reply.
    TimedOut(Vec<Line>),
    /// The server closed the connection; what had arrived of a reply.
    Closed(Vec<Line>),
    /// The connection broke.
    Failed(io::Error),
    /// What came was no reply; its lines, as far as they are kept.
    Nonsense(Nonsense, Vec<Line>),
    /// The server said something before it was asked.
    Unasked(Option<RawReply>),
}

impl Broken {
    /// Whether the connection is gone, other than by a deadline or by nonsense.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Failed(_))
    }

    /// What happened, for a person.
    pub(super) fn words(&self) -> String {
        match self {
            Self::TimedOut(lines) if lines.is_empty() => "the server did not answer in time".to_owned(),
            Self::TimedOut(_) => "the server did not finish its answer in time".to_owned(),
            Self::Closed(_) => "the server closed the connection".to_owned(),
            Self::Failed(error) => format!("the connection broke: {}", printable::escape(error.to_string())),
            Self::Nonsense(Nonsense::Line, _) => "the server's answer is no SMTP reply".to_owned(),
            Self::Nonsense(Nonsense::Endless, _) => "the server's answer does not end".to_owned(),
            Self::Unasked(_) => "the server talked without being asked".to_owned(),
        }
    }

    /// The lines that came without making up a reply.
    pub(super) fn lines(&self) -> &[Line] {
        match self {
            Self::TimedOut(lines) | Self::Closed(lines) | Self::Nonsense(_, lines) => lines,
            Self::Failed(_) | Self::Unasked(_) => &[],
        }
    }
}

/// How a block of content went.
#[derive(Debug)]
pub(super) enum Written {
    /// All of it is on its way.
    All,
    /// The server spoke or closed before that; how many bytes may have gone out.
    Interrupted { sent: usize },
    /// The deadline passed or the connection broke.
    Broken { sent: usize, broken: Broken },
}

/// A connection with its input buffer.
pub(super) struct Wire {
    stream: Stream,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that arrived while nobody read, and that no transcript has yet.
    unnoted: usize,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Closed,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            input: vec![0; INPUT_BYTES].into(),
            start: 0,
            end: 0,
            unnoted: 0,
        }
    }

    /// Takes the plain connection out, to come back as TLS.
    pub(super) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(&mut self.stream, Stream::Closed) {
            Stream::Plain(stream) => Some(stream),
            other => {
                self.stream = other;
                None
            }
        }
    }

    pub(super) fn put_tls(&mut self, stream: TlsStream<TcpStream>) {
        self.stream = Stream::Tls(Box::new(stream));
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.stream, Stream::Closed)
    }

    /// Bytes that have arrived and nobody asked for yet.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Looks, without waiting, whether the server closed the connection or said something.
    pub(super) fn is_disturbed(&mut self) -> bool {
        if !self.buffered().is_empty() {
            return true;
        }
        let mut context = Context::from_waker(Waker::noop());
        self.poll_input(&mut context).is_ready()
    }

    /// One whole reply, before the deadline.
    pub(super) async fn read_reply(
        &mut self,
        deadline: Instant,
        log: &Transcript,
    ) -> Result<RawReply, Broken> {
        let mut assembler = Assembler::default();
        let unnoted = std::mem::take(&mut self.unnoted);
        if unnoted > 0 {
            record_count(log, "read", unnoted);
        }
        loop {
            let (taken, end) = assembler.feed(&self.input[self.start..self.end]);
            self.start += taken;
            match end {
                Some(Ok(reply)) => return Ok(reply),
                Some(Err(nonsense)) => return Err(Broken::Nonsense(nonsense, assembler.into_lines())),
                None => {}
            }
            match timeout_at(deadline, self.stream.read(&mut self.input)).await {
                Err(_) => return Err(Broken::TimedOut(assembler.into_lines())),
                Ok(Err(error)) => return Err(Broken::Failed(error)),
                Ok(Ok(0)) => return Err(Broken::Closed(assembler.into_lines())),
                Ok(Ok(count)) => self.filled(count),
            }
            record_count(log, "read", self.end);
        }
    }

    /// Writes all of it before the deadline.
    pub(super) async fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Broken> {
        let all = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(deadline, all).await {
            Err(_) => Err(Broken::TimedOut(Vec::new())),
            Ok(Err(error)) => Err(Broken::Failed(error)),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Writes all of it before the deadline, unless the server speaks meanwhile: a server that refuses a letter in
    /// the middle may never read the rest.
    pub(super) async fn write_listening(&mut self, bytes: &[u8], deadline: Instant) -> Written {
        let mut sent = 0;
        let progress = poll_fn(|context| {
            loop {
                if !self.buffered().is_empty() {
                    return Poll::Ready(Ok(true));
                }
                match self.poll_input(context) {
                    Poll::Ready(Ok(_)) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
                if sent == bytes.len() {
                    return Pin::new(&mut self.stream).poll_flush(context).map_ok(|()| false);
                }
                match Pin::new(&mut self.stream).poll_write(context, &bytes[sent..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let end = timeout_at(deadline, progress).await;
        match end {
            Err(_) => Written::Broken { sent, broken: Broken::TimedOut(Vec::new()) },
            Ok(Err(error)) => Written::Broken { sent, broken: Broken::Failed(error) },
            Ok(Ok(true)) => Written::Interrupted { sent },
            Ok(Ok(false)) => Written::All,
        }
    }

    /// Closes in order, TLS first, as far as the server lets us in half a second.
    pub(super) async fn close(&mut self) {
        let mut stream = std::mem::replace(&mut self.stream, Stream::Closed);
        self.start = self.end;
        // Late or refused, the connection is dropped either way.
        let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
    }

    /// Reads once into the empty buffer; `Ready(Ok(0))` is the end.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.input);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.filled(count);
                self.unnoted = count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn filled(&mut self, count: usize) {
        self.start = 0;
        self.end = count;
    }
}

/// Notes the size of a read or write, at the level that shows it.
pub(super) fn record_count(log: &Transcript, what: &str, bytes: usize) {
    if log.keeps(EntryKind::Data) {
        log.record(EntryKind::Data, format!("{what} {bytes} bytes"));
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}
