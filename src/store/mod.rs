//! Every SQL statement, over one pool of connections. Functions by noun, one file each. They take and give domain types; `sqlx` is known nowhere else.

pub mod accounts;
pub mod audit;
pub mod cancelling;
pub mod candidates;
pub mod changes;
pub mod checks;
pub mod cleaning;
pub mod closing;
mod connecting;
pub mod connections;
pub mod contents;
pub mod departures;
mod error;
pub mod events;
mod gathering;
pub mod handover;
pub mod keys;
pub mod lanes;
mod lines;
pub mod load;
pub mod logs;
pub mod messages;
pub mod notices;
pub mod pace;
pub mod parking;
pub mod passwords;
mod positions;
pub mod queue;
mod renewing;
pub mod replicas;
pub mod rerouting;
pub mod retrying;
mod room;
pub mod routes;
mod schema;
pub mod sealed;
pub mod selection;
pub mod sender_codes;
pub mod senders;
pub mod settings;
pub mod sites;
pub mod taking;
pub mod usable;
mod word;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::{Postgres, Transaction, query_scalar};

use self::changes::Changes;
pub use self::connecting::PoolLimits;
use self::connecting::Pools;
pub use self::error::StoreError;
use self::gathering::Gatherer;
use self::handover::Handover;
use self::queue::Horizons;
use self::renewing::RenewablePool;
use self::room::Room;
use crate::domain::clock::Clock;
use crate::domain::settings::EffectiveSettings;
use crate::metrics::Metrics;
use crate::vault::Vault;

/// The store: a pool of connections, the vault that seals what is secret, the clock it keeps in step with the
/// database's, and word of what changed. Clones share all of them.
#[derive(Clone)]
pub struct Store {
    pool: RenewablePool,
    /// Those of delivery, see [`Store::for_delivery`].
    delivery: RenewablePool,
    /// A connection of its own for the heartbeat: however busy the others are, leases are kept alive.
    pulse: RenewablePool,
    pulse_connections: Arc<AtomicU64>,
    room: Arc<Room>,
    vault: Arc<Vault>,
    clock: Clock,
    changes: Arc<Changes>,
    /// What counts for sites that have set nothing.
    defaults: Arc<EffectiveSettings>,
    /// What was just added to logs that somebody follows.
    recent: Arc<logs::Recent>,
    recent_routes: Arc<routes::Recent>,
    handover: Arc<Handover>,
    horizons: Arc<Horizons>,
    gatherers: Arc<OnceLock<Gatherers>>,
    metrics: Arc<Metrics>,
}

/// What is gathered into groups.
struct Gatherers {
    routes: Gatherer<routes::Question, routes::Route>,
    letters: Gatherer<taking::NewMessage, taking::Grouped>,
}

impl Gatherers {
    fn start(store: &Store) -> Self {
        // One that holds no end of these: they end with the last store that does.
        let inner = Store { gatherers: Arc::default(), ..store.clone() };
        let of_letters = inner.clone();
        Self {
            routes: Gatherer::start(move |questions| {
                let store = inner.clone();
                async move { store.unless_given_up(routes::answer(store.clone(), questions)).await }
            }),
            letters: Gatherer::start(move |letters| taking::answer(of_letters.clone(), letters)),
        }
    }
}

impl Store {
    /// Opens a pool over the database at `url`. Connections are made when they are needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn open(url: &str, vault: Arc<Vault>, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(url, &PoolLimits::default(), vault, clock)
    }

    /// The same, with limits of the operator's.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn open_with(
        url: &str,
        limits: &PoolLimits,
        vault: Arc<Vault>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let Pools { calls, delivery, pulse, pulse_connections, room } = connecting::pools(url, limits)?;
        Ok(Self {
            pool: calls,
            delivery,
            pulse,
            pulse_connections,
            room,
            vault,
            clock,
            changes: Arc::default(),
            defaults: Arc::default(),
            recent: Arc::default(),
            recent_routes: Arc::default(),
            handover: Arc::default(),
            horizons: Arc::default(),
            gatherers: Arc::default(),
            metrics: Metrics::new(),
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

    /// The counters at which letters are handed from those who take them to those who send them.
    #[must_use]
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    fn gatherers(&self) -> &Gatherers {
        self.gatherers.get_or_init(|| Gatherers::start(self))
    }

    /// What counts for sites that have set nothing.
    #[must_use]
    pub fn defaults(&self) -> &EffectiveSettings {
        &self.defaults
    }

    /// What is counted. Whoever works with the store counts there.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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

    /// Begins a transaction; the only way to do so.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.pool.begin().await
    }

    /// Does work that takes several statements, unless the connections are given up meanwhile, see [`Store::renew`]. A single
    /// statement needs it not.
    ///
    /// # Errors
    /// Those of the work, and that the database does not answer; what became of the work is not known then.
    pub async fn unless_given_up<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.pool.unless_given_up(work).await
    }

    /// How many connections the heartbeat has needed so far. Where it is more than one, those that are older than the last may
    /// lead to a machine that is gone.
    #[must_use]
    pub fn pulse_connections(&self) -> u64 {
        self.pulse_connections.load(Ordering::Relaxed)
    }

    /// Gives up all connections but the heartbeat's: what waits for an answer is told that there is none, and goes on with new
    /// ones. Without it statements would wait for a machine that went without a word until TCP gives up.
    pub async fn renew(&self) {
        tokio::join!(self.pool.renew(), self.delivery.renew());
    }

    /// Gives up the heartbeat's own connection. sqlx asks a connection that is given back whether it is there, and waits for
    /// the answer without a limit: the heartbeat's one place would be taken until TCP gives up.
    pub async fn renew_pulse(&self) {
        self.pulse.renew().await;
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.delivery.close(), self.pulse.close());
    }
}
