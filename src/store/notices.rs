//! Word between replicas: one connection of its own, over which a server tells the others what changed and hears what they
//! tell. It only saves waiting; while it is gone, everybody's look at the tables each second is enough.

use std::io;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use sqlx::{Acquire as _, Connection as _, query, query_scalar};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};

/// The channel of LISTEN and NOTIFY.
const CHANNEL: &str = "postroom_changes";
/// By this name operators find the connection in `pg_stat_activity`.
const APPLICATION_NAME: &str = "postroom notices";
/// Time between two notifications: at most ten a second. The first after a silence goes out at once.
const GAP: Duration = Duration::from_millis(100);
/// Wait before the first try to connect again; each is twice the one before, up to the most.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; then the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the connection may take to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is asked whether it still is there, since who only listens does not notice.
const PING: Duration = Duration::from_secs(15);

/// Tells and hears until `stop`, over a new connection whenever one is lost.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut wait = RECONNECT;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let Err(error) = converse(&store, &stop).await else { break };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "no word from other servers: all look each second"
        );
        if began.elapsed() > RECONNECT_MOST {
            wait = RECONNECT;
        }
        let _ = stop.run_until_cancelled(sleep(wait)).await;
        wait = RECONNECT_MOST.min(wait * 2);
    }
}

/// Tells and hears over one connection until it is lost or `stop`.
async fn converse(store: &Store, stop: &CancellationToken) -> Result<(), StoreError> {
    // Hints need not survive a crash: their commits wait for no disk and no standby.
    let options = store.pool.connect_options().as_ref().clone();
    let options = options.application_name(APPLICATION_NAME).options([("synchronous_commit", "off")]);
    // sqlx listens by a pool only; of one connection, and for each try a new one, since a connection that hangs goes
    // back to its pool when it likes.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_lazy_with(options);
    let listening = in_time(CONNECT_TIMEOUT, Box::pin(Notices::listen(store, &pool)));
    let ended = match stop.run_until_cancelled(listening).await {
        Some(Ok(notices)) => notices.run(stop).await,
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    let _ = timeout(CLOSE_TIMEOUT, pool.close()).await;
    Ok(ended?)
}

/// The connection while it lasts.
struct Notices<'a> {
    store: &'a Store,
    listener: PgListener,
    /// The process that serves this connection: what it notified we know.
    own: i32,
}

/// What comes next.
enum Next {
    Stop,
    /// A payload for the others.
    Tell(String),
    /// What somebody told.
    Heard(PgNotification),
    Ping,
}

impl<'a> Notices<'a> {
    async fn listen(store: &'a Store, pool: &sqlx::PgPool) -> Result<Self, sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        // A lost connection is told, so that everybody is woken once there is another one.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        let own = query_scalar!(r#"select pg_backend_pid() as "own!""#).fetch_one(&mut listener).await?;
        // What was told until now nobody here has heard.
        store.changes.wake_everyone();
        Ok(Self { store, listener, own })
    }

    async fn run(mut self, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        let mut free = Instant::now();
        let mut ping = free + PING;
        loop {
            let payload = async {
                sleep_until(free).await;
                self.store.changes.next_payload().await
            };
            let next = tokio::select! {
                () = stop.cancelled() => Next::Stop,
                payload = payload => Next::Tell(payload),
                heard = self.listener.try_recv() => {
                    Next::Heard(heard?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?)
                }
                () = sleep_until(ping) => Next::Ping,
            };
            match next {
                Next::Stop => break,
                Next::Heard(notification) => {
                    if i32::try_from(notification.process_id()) != Ok(self.own) {
                        self.store.changes.hear(notification.payload());
                    }
                    continue;
                }
                Next::Tell(payload) => {
                    self.tell(&payload).await?;
                    free = Instant::now() + GAP;
                }
                Next::Ping => {
                    in_time(ANSWER_TIMEOUT, async { self.listener.acquire().await?.ping().await }).await?;
                }
            }
            ping = Instant::now() + PING;
        }
        // The last outcomes.
        match self.store.changes.take_payload() {
            Some(payload) => self.tell(&payload).await,
            None => Ok(()),
        }
    }

    async fn tell(&mut self, payload: &str) -> Result<(), sqlx::Error> {
        let telling = query!("select pg_notify($1, $2)", CHANNEL, payload).execute(&mut self.listener);
        in_time(ANSWER_TIMEOUT, telling).await?;
        Ok(())
    }
}

/// The result, unless it takes longer than this.
async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}
