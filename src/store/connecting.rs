//! The pools of connections: how many, how long each thing may take, and that they are encrypted.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Executor, PgConnection, PgPool, Postgres, Transaction, query_scalar};

use super::StoreError;
use super::renewing::RenewablePool;
use super::room::Room;

/// Connections for calls that are there before they are needed, since a login costs milliseconds.
const CALL_CONNECTIONS_READY: u32 = 2;

/// How much of the database's connections and time a store takes.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// Connections for calls: as many as leave room for several replicas at the default `max_connections` of 100.
    pub connections: u32,
    /// Connections for delivery, so that hundreds of workers do not stand in line before a call.
    pub delivery_connections: u32,
    /// How long a caller waits for a connection; within it a store that is gone is told (CASES 53: 2 s).
    pub acquire_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            connections: 12,
            delivery_connections: 8,
            acquire_timeout: Duration::from_millis(1_500),
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(5),
        }
    }
}

/// The pools of a store.
pub(super) struct Pools {
    pub(super) calls: RenewablePool,
    pub(super) delivery: RenewablePool,
    /// One connection for the heartbeat.
    pub(super) pulse: RenewablePool,
    /// How many connections were made for it until now.
    pub(super) pulse_connections: Arc<AtomicU64>,
    pub(super) room: Arc<Room>,
}

/// Pools over the database at `url`.
pub(super) fn pools(url: &str, limits: &PoolLimits) -> Result<Pools, StoreError> {
    let PoolLimits { connections, delivery_connections, acquire_timeout, statement_timeout, lock_timeout } =
        limits;
    let session = session(*statement_timeout, *lock_timeout);
    let options = connect_options(url)?.application_name("postroom").options(session);
    let pool = |connections: RangeInclusive<u32>| {
        PgPoolOptions::new()
            .min_connections(*connections.start())
            .max_connections(*connections.end())
            .acquire_timeout(*acquire_timeout)
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(writable(connection)))
            .before_acquire(|connection, met| Box::pin(clean(connection, met.idle_for)))
    };
    let lazily = |pool: PgPoolOptions| pool.connect_lazy_with(options.clone());
    let room = Arc::<Room>::default();
    let renewable = |pool| RenewablePool::new(lazily(pool), Arc::clone(&room));
    let pulse_connections = Arc::<AtomicU64>::default();
    let made = Arc::clone(&pulse_connections);
    // A new connection of the pulse is a sign, see `Store::renew`: it is kept as long as it works.
    let pulse = pool(0..=1).max_lifetime(None).idle_timeout(None).after_connect(move |connection, _| {
        let made = Arc::clone(&made);
        Box::pin(async move {
            writable(connection).await?;
            made.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    });
    Ok(Pools {
        calls: renewable(pool(CALL_CONNECTIONS_READY.min(*connections)..=*connections)),
        delivery: renewable(pool(0..=*delivery_connections)),
        pulse: renewable(pulse),
        pulse_connections,
        room,
    })
}

/// What is set on every connection: nothing waits without a limit.
///
/// Every statement has its index. On a new database PostgreSQL knows of no rows, finds that reading a whole table is cheapest,
/// and keeps to that plan while the table grows: measured, 2.4 ms instead of 0.03 ms for each look at a letter after the first
/// few thousand. So whole tables are read only where there is no other way; such plans count as costly, which would have them
/// compiled each time.
fn session(statement: Duration, lock: Duration) -> [(&'static str, String); 6] {
    let milliseconds = |limit: Duration| format!("{}ms", limit.as_millis());
    [
        ("statement_timeout", milliseconds(statement)),
        ("lock_timeout", milliseconds(lock)),
        ("idle_in_transaction_session_timeout", milliseconds(statement)),
        // The guard below runs ROLLBACK outside a transaction, which warns.
        ("client_min_messages", "error".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("jit", "off".to_owned()),
    ]
}

/// How to connect. What leaves this machine is encrypted and the server's certificate verified, unless the operator says
/// otherwise: by itself sqlx would go on in plain text where somebody in between says that there is no TLS.
fn connect_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    let says_mode = url.split_once('?').is_some_and(|(_, query)| {
        query.split('&').any(|pair| pair.starts_with("sslmode=") || pair.starts_with("ssl-mode="))
    });
    // Any other than this default was said in the environment.
    let is_default = !says_mode && matches!(options.get_ssl_mode(), PgSslMode::Prefer);
    let stays_here = options.get_socket().is_some() || is_here(options.get_host());
    Ok(if is_default && !stays_here { options.ssl_mode(PgSslMode::VerifyFull) } else { options })
}

/// Whether a host is this machine: the path of a socket, or a loopback address.
fn is_here(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || literal.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Refuses a connection to a standby: nothing can be written there. A server that becomes one begins anew, and ends those it has.
async fn writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let read_only =
        query_scalar!(r#"select pg_is_in_recovery() as "read_only!""#).fetch_one(connection).await?;
    if read_only { Err(sqlx::Error::Protocol("the database server is a standby".to_owned())) } else { Ok(()) }
}

/// A connection that was used so lately is used again as it is: under load a question before each statement would cost as
/// much as the statement. One that died meanwhile fails its statement, as it would have a moment later.
const FRESH: Duration = Duration::from_secs(1);

/// Whether a pooled connection that lay idle for so long is alive, and fit for use again.
///
/// The ROLLBACK is a second line of defence. sqlx 0.9.0 leaves a transaction open when the future of `begin()` is dropped
/// at the wrong moment, and what runs on that connection next seems to succeed and is never committed
/// (launchbadge/sqlx#4385); [`begin`] does not let it come to that.
async fn clean(connection: &mut PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for >= FRESH {
        connection.execute("rollback").await?;
    }
    Ok(true)
}

/// Begins a transaction, in a task of its own that goes on to its end where the caller is dropped: then the transaction is
/// known to be open, and rolled back.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    match tokio::spawn(async move { pool.begin().await }).await {
        Ok(begun) => begun,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending.
            Err(_cancelled) => Err(sqlx::Error::PoolClosed),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::postgres::PgSslMode;

    use super::{PoolLimits, connect_options, pools, session};

    #[test]
    fn what_leaves_this_machine_is_encrypted_unless_the_operator_says_otherwise() {
        let table = [
            ("postgres://u:p@db.example.com/d", "VerifyFull"),
            ("postgres://u:p@10.0.0.1:5433/d", "VerifyFull"),
            ("postgres://u:p@[2001:db8::1]/d", "VerifyFull"),
            ("postgres://u:p@localhost/d?host=db.example.com", "VerifyFull"),
            ("postgres://u:p@db/d?sslrootcert=/ca.pem&options=-csslmode%3Dx", "VerifyFull"),
            ("postgres://u:p@localhost.example.com/d", "VerifyFull"),
            ("postgres://u:p@db/d?sslmode=disable", "Disable"),
            ("postgres://u:p@db/d?application_name=x&sslmode=prefer", "Prefer"),
            ("postgres://u:p@db/d?ssl-mode=require", "Require"),
            ("postgres://u:p@db/d?sslmode=verify-ca", "VerifyCa"),
            ("postgres://u:p@localhost/d", "Prefer"),
            ("postgres://u:p@127.0.0.2/d", "Prefer"),
            ("postgres://u:p@[::1]/d", "Prefer"),
            ("postgres://u:p@localhost/d?host=%2Frun%2Fpostgresql", "Prefer"),
            ("postgres://u:p@%2Frun%2Fpostgresql/d", "Prefer"),
            ("postgres://u:p@localhost/d?sslmode=verify-full", "VerifyFull"),
        ];
        for (url, mode) in table {
            let found: PgSslMode = connect_options(url).unwrap().get_ssl_mode();
            assert_eq!(format!("{found:?}"), mode, "{url}");
        }
        assert!(connect_options("postgres://db/d?sslmode=sometimes").is_err());
    }

    #[tokio::test]
    async fn limits_reach_every_connection() {
        let limits = PoolLimits {
            connections: 3,
            delivery_connections: 1,
            acquire_timeout: Duration::from_millis(700),
            statement_timeout: Duration::from_secs(7),
            lock_timeout: Duration::from_secs(2),
        };
        let pools = pools("postgres://localhost/d", &limits).unwrap();
        pools.calls.renew().await;
        for (pool, most) in [(&pools.calls.now(), 3), (&pools.delivery.now(), 1), (&pools.pulse.now(), 1)] {
            assert_eq!(pool.options().get_max_connections(), most);
            assert_eq!(pool.options().get_acquire_timeout(), limits.acquire_timeout);
            let options = pool.connect_options();
            let options = options.get_options().unwrap();
            for (name, value) in session(limits.statement_timeout, limits.lock_timeout) {
                assert!(options.contains(&format!("{name}={value}")), "{name}: {options}");
            }
            assert!(options.contains("statement_timeout=7000ms") && options.contains("lock_timeout=2000ms"));
        }
    }
}
