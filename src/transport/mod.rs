//! The connections of the gRPC server: taken and bounded, TLS, HTTP/2. What is said over them is the business of others.

mod accept;
mod connection;
mod expiry;
mod open_files;
mod preface;
mod reload;
mod scrapes;
mod tls;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use tonic::body::Body;
use tower::Service;

pub use self::open_files::raise_limit;
pub use self::scrapes::serve as serve_scrapes;
pub use self::tls::{Tls, TlsError};
use crate::domain::clock::Clock;
use crate::metrics::Metrics;

/// Connections at once unless the operator says otherwise. An idle one takes some 32 KiB over plain text and some 40 KiB over
/// TLS (measured), so that all together stay below 256 MiB.
pub const DEFAULT_MAX_CONNECTIONS: usize = 4_096;
/// Calls at once that are answered by one message; each may have letters, statements and a stream's window in memory.
pub const DEFAULT_MAX_CALLS: usize = 1_024;
/// Streams of calls that may go on for hours.
pub const DEFAULT_MAX_STREAMS: usize = 1_024;
/// Clients behind a balancer come back through it after this time, so that new replicas get their share.
pub const DEFAULT_MAX_CONNECTION_AGE: Duration = Duration::from_hours(1);
/// From a connection's first byte to the end of the TLS handshake, and again to the HTTP/2 preface.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the operator decides about connections.
#[derive(Clone)]
pub struct TransportOptions {
    /// Certificate and key; plain text without.
    pub tls: Option<Tls>,
    /// Connections at once, at least 1; further ones are closed at once.
    pub max_connections: usize,
    /// Calls in flight at once that are answered by one message.
    pub max_calls: usize,
    /// Streams open at once that may go on for hours.
    pub max_streams: usize,
    /// After this time, give or take a tenth, a connection takes no further calls; those on it end in their own time.
    pub max_connection_age: Duration,
    /// Time for a TLS handshake, and for the first bytes of HTTP/2.
    pub handshake: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            tls: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_calls: DEFAULT_MAX_CALLS,
            max_streams: DEFAULT_MAX_STREAMS,
            max_connection_age: DEFAULT_MAX_CONNECTION_AGE,
            handshake: HANDSHAKE,
        }
    }
}

/// What answers the calls of all connections: a service that is copied for each, and never fails itself.
pub trait Calls:
    Service<Request<Body>, Response = Response<<Self as Calls>::Answer>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of an answer.
    type Answer: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static;
}

impl<S, B> Calls for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    type Answer = B;
}

/// Serves the connections of `listener` until `closed`; then no further one is taken, and the calls under way are finished.
/// Connections that are left are cut when this is dropped.
pub async fn serve(
    listener: TcpListener,
    options: &TransportOptions,
    clock: &Clock,
    metrics: &Metrics,
    service: impl Calls,
    closed: impl Future<Output = ()>,
) {
    let serving = accept::run(listener, options, metrics, service, closed);
    match &options.tls {
        Some(tls) => tokio::select! {
            () = serving => {}
            () = reload::run(tls, clock) => {}
        },
        None => serving.await,
    }
}
