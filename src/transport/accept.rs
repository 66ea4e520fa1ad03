//! Connections are taken, and their number is bounded.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection::Connecting;
use super::{Calls, TransportOptions};
use crate::metrics::{Metrics, OpenConnection};

/// Wait after the system could give no connection, for want of files or memory: it would say the same again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// What goes on for long is told so often.
const TELL: Duration = Duration::from_mins(1);

/// Takes connections until `closed`, and waits for the end of those that were taken.
pub(super) async fn run(
    listener: TcpListener,
    options: &TransportOptions,
    metrics: &Metrics,
    service: impl Calls,
    closed: impl Future<Output = ()>,
) {
    let TransportOptions {
        tls,
        max_connections,
        max_calls: _,
        max_streams: _,
        max_connection_age,
        handshake,
    } = options;
    let places = Arc::new(Semaphore::new((*max_connections).min(Semaphore::MAX_PERMITS)));
    // Those that have not shown yet that they speak our language leave room for those that have.
    let handshakes = Arc::new(Semaphore::new(max_connections.div_ceil(2).min(Semaphore::MAX_PERMITS)));
    let closing = CancellationToken::new();
    // Cut when this is dropped.
    let mut connections = JoinSet::new();
    let mut closed = pin!(closed);
    let (mut full, mut failing) = (Seldom::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            () = &mut closed => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = Arc::clone(&places).try_acquire_owned();
                let handshaking = Arc::clone(&handshakes).try_acquire_owned();
                let (Ok(place), Ok(handshaking)) = (place, handshaking) else {
                    metrics.calls.connections_refused.inc();
                    // Closed unanswered: a client tries another replica, or again later.
                    full.tell(|| tracing::warn!(max_connections, %peer, "too many connections: refused"));
                    continue;
                };
                let connecting = Connecting {
                    stream,
                    peer,
                    tls: tls.clone(),
                    time: *handshake,
                    max_age: *max_connection_age,
                    closing: closing.clone(),
                    handshaking,
                };
                let service = service.clone();
                let counted = OpenConnection::begin(&metrics.calls);
                connections.spawn(async move {
                    let _counted = counted;
                    connecting.serve(service).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                failing.tell(|| tracing::error!(%error, "no connection can be taken"));
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
    // From here on the system refuses connections.
    drop(listener);
    closing.cancel();
    while connections.join_next().await.is_some() {}
}

/// Whether this concerns only the connection that was about to be taken (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tells of something that may happen thousands of times a second.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn tell(&mut self, tell: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= TELL) {
            self.0 = Some(Instant::now());
            tell();
        }
    }
}
