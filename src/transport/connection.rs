//! One connection: TLS, the preface, HTTP/2 with its limits, and its end at an age or at the stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::Calls;
use super::preface;
use super::tls::Tls;

/// HTTP/2 keep-alive: a peer that is gone is noticed within a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one connection; a client that wants more waits, or opens another.
const MAX_STREAMS: u32 = 200;
/// What a stream may have sent that no call has read yet, in bytes: 5 MiB/s over 50 ms. Only calls in flight have any, and
/// their number is bounded: with the limits that count by default, and the places of calls without a key, all together stay
/// below 1 GiB.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection: that of several streams, so that one that is held up because its client reads no results
/// holds up no other call of its connection.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Answers that a client does not read, for each stream.
const MAX_SEND_BUFFER: usize = 256 * 1024;
/// All header fields of a call, unpacked, in bytes: a key and metadata fit many times. Parts of headers (CONTINUATION) are
/// counted by the same measure.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Streams that a client has reset before we took them: more, and the connection is closed (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset for a client's faults: more, and the connection is closed.
const MAX_FAULTY_STREAMS: usize = 256;
/// By how much the age of connections differs, so that not all clients come back at once.
const AGE_JITTER: f64 = 0.1;

/// A connection that was taken.
pub(super) struct Connecting {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Tls>,
    /// Time for the TLS handshake, and for the preface.
    pub(super) time: Duration,
    pub(super) max_age: Duration,
    /// No further calls.
    pub(super) closing: CancellationToken,
    /// A place among those that have not shown yet that they speak HTTP/2.
    pub(super) handshaking: OwnedSemaphorePermit,
}

impl Connecting {
    /// Serves it to its end. What is wrong with a connection is the client's business, and told at debug level.
    pub(super) async fn serve(self, service: impl Calls) {
        let Self { stream, peer, tls, time, max_age, closing, handshaking } = self;
        // Small answers leave at once. Fails only where the connection is gone already.
        let _ = stream.set_nodelay(true);
        let until = Until {
            max_age: max_age.mul_f64(rand::random_range(1.0 - AGE_JITTER..=1.0 + AGE_JITTER)),
            closing,
        };
        let served = match tls {
            Some(tls) => match in_time(time, &until, tls.handshake(stream)).await {
                Ok(stream) => greet_and_serve(stream, time, until, handshaking, service).await,
                Err(error) => Err(error.into()),
            },
            None => greet_and_serve(stream, time, until, handshaking, service).await,
        };
        if let Err(error) = served {
            tracing::debug!(%peer, error = &*error as &dyn std::error::Error, "a connection ended");
        }
    }
}

/// When a connection takes no further calls.
struct Until {
    max_age: Duration,
    closing: CancellationToken,
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn greet_and_serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    time: Duration,
    until: Until,
    handshaking: OwnedSemaphorePermit,
    service: impl Calls,
) -> Ended {
    let io = in_time(time, &until, preface::read(io)).await?;
    drop(handshaking);
    let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
    let connection = limits().serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let Until { max_age, closing } = until;
    let mut end = pin!(async move {
        tokio::select! {
            () = sleep(max_age) => {}
            () = closing.cancelled() => {}
        }
    });
    tokio::select! {
        served = connection.as_mut() => return Ok(served?),
        () = &mut end => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// HTTP/2 with its limits.
fn limits() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_FAULTY_STREAMS);
    builder
}

/// A part of the beginning, within its time and before the stop.
async fn in_time<T>(
    time: Duration,
    until: &Until,
    part: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match until.closing.run_until_cancelled(timeout(time, part)).await {
        Some(Ok(done)) => done,
        Some(Err(_)) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
        None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is about to stop")),
    }
}
