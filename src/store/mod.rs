//! Every SQL statement, over one pool of connections. Functions by noun, one file each. They take and give domain types; `sqlx` is known nowhere else.

pub mod accounts;
pub mod audit;
pub mod cancelling;
pub mod candidates;
pub mod changes;
pub mod checks;
pub mod cleaning;
pub mod closing;
pub mod connections;
pub mod contents;
pub mod departures;
mod error;
pub mod events;
pub mod keys;
pub mod lanes;
mod lines;
pub mod logs;
pub mod messages;
pub mod notices;
pub mod pace;
pub mod parking;
pub mod passwords;
mod positions;
pub mod queue;
pub mod replicas;
pub mod rerouting;
pub mod retrying;
pub mod selection;
pub mod sender_codes;
pub mod senders;
pub mod settings;
pub mod sites;
pub mod usable;
mod word;

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool, query_scalar};

use self::changes::Changes;
pub use self::error::StoreError;
use crate::domain::clock::Clock;
use crate::domain::settings::EffectiveSettings;
use crate::vault::Vault;

/// Connections for calls: a few are there before they are needed, since a login costs milliseconds; at most as many as
/// leave room for several replicas at the default `max_connections` of 100.
const CALL_CONNECTIONS: RangeInclusive<u32> = 2..=12;
/// Connections for delivery, so that hundreds of workers do not stand in line before a call.
const DELIVERY_CONNECTIONS: RangeInclusive<u32> = 0..=8;
/// How long a caller waits for a connection; within it a store that is gone is told (CASES 53: 2 s).
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Limits set on every connection: nothing waits without one.
const SESSION_LIMITS: [(&str, &str); 4] = [
    ("statement_timeout", "20s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "20s"),
    // The guard below runs ROLLBACK outside a transaction, which warns.
    ("client_min_messages", "error"),
];

/// The store: a pool of connections, the vault that seals what is secret, the clock it keeps in step with the
/// database's, and word of what changed. Clones share all of them.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    /// Those of delivery, see [`Store::for_delivery`].
    delivery: PgPool,
    /// A connection of its own for the heartbeat: however busy the others are, leases are kept alive.
    pulse: PgPool,
    vault: Arc<Vault>,
    clock: Clock,
    changes: Arc<Changes>,
    /// What counts for sites that have set nothing.
    defaults: Arc<EffectiveSettings>,
    /// What was just added to logs that somebody follows.
    recent: Arc<logs::Recent>,
}

impl Store {
    /// Opens a pool over the database at `url`. Connections are made when they are needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn open(url: &str, vault: Arc<Vault>, clock: Clock) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?.application_name("postroom").options(SESSION_LIMITS);
        let pool = |connections: RangeInclusive<u32>| {
            PgPoolOptions::new()
                .min_connections(*connections.start())
                .max_connections(*connections.end())
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(clean(connection)))
                .connect_lazy_with(options.clone())
        };
        let (calls, delivery, pulse) = (pool(CALL_CONNECTIONS), pool(DELIVERY_CONNECTIONS), pool(0..=1));
        Ok(Self {
            pool: calls,
            delivery,
            pulse,
            vault,
            clock,
            changes: Arc::default(),
            defaults: Arc::default(),
            recent: Arc::default(),
        })
    }

    /// The same store with the operator's defaults for sites that have set nothing.
    #[must_use]
    pub fn with_defaults(self, defaults: EffectiveSettings) -> Self {
        Self { defaults: Arc::new(defaults), ..self }
    }

    /// The same store over the connections of delivery: however many workers there are, calls find one of their own.
    #[must_use]
    pub fn for_delivery(&self) -> Self {
        Self { pool: self.delivery.clone(), ..self.clone() }
    }

    /// Brings the schema up to date. Two servers that start at once wait for one another (advisory lock).
    ///
    /// # Errors
    /// When the database does not answer or a migration does not fit.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?.detach();
        connection.execute("set statement_timeout = 0; set lock_timeout = 0").await?;
        // Embedded, forward only. A schema that is newer than this binary is fine: it was expanded, not contracted.
        let mut migrator = sqlx::migrate!();
        migrator.set_ignore_missing(true);
        migrator.run_direct(None, &mut connection, false).await?;
        connection.close().await?;
        Ok(())
    }

    /// The clock, in step with the database's since the last [`Store::synchronise`].
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Word of what changed.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What counts for sites that have set nothing.
    #[must_use]
    pub fn defaults(&self) -> &EffectiveSettings {
        &self.defaults
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Sets the clock by the database's.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn synchronise(&self) -> Result<(), StoreError> {
        let now = query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&self.pulse).await?;
        self.clock.set(now);
        Ok(())
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.delivery.close(), self.pulse.close());
    }
}

/// Makes a pooled connection fit for use again, before every use.
///
/// sqlx 0.9.0 leaves a transaction open when the future of `begin()` is dropped at the wrong moment; what runs on that
/// connection next seems to succeed and is never committed (launchbadge/sqlx#4385). ROLLBACK ends such a transaction.
/// A connection to a server that became a standby is evicted.
async fn clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    connection.execute("rollback").await?;
    let read_only =
        query_scalar!(r#"select pg_is_in_recovery() as "read_only!""#).fetch_one(connection).await?;
    Ok(!read_only)
}
