//! The database as this server finds it, and the secrets in it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Labels, counters, gauge, gauges};

/// From a connection that is free to the time after which callers are refused.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5];
const POOLS: [&str; 2] = ["calls", "delivery"];

/// Errors of the store of this process. Errors are made where nothing else is at hand; a process is one server.
static FAILED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const FAILURES: [&str; 3] = ["unavailable", "pool_timeout", "refused"];

/// What was wrong with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTrouble {
    /// It did not answer, or could not be written.
    Unavailable,
    /// No connection to it was free in time.
    PoolTimeout,
    /// It refused a statement.
    Refused,
}

/// Counts an error of the store.
pub fn store_failed(trouble: StoreTrouble) {
    FAILED[trouble as usize].fetch_add(1, Ordering::Relaxed);
}

/// A pool of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// That of calls.
    Calls,
    /// That of delivery.
    Delivery,
}

/// The database as this server finds it.
#[derive(Debug)]
pub struct Database {
    size: [Gauge; POOLS.len()],
    idle: [Gauge; POOLS.len()],
    limit: [Gauge; POOLS.len()],
    acquire: [Histogram; POOLS.len()],
    writable: Gauge,
    pulse: Arc<Pulse>,
    vault_alarms: [Counter; 2],
}

impl Database {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let acquire = Family::<Labels<1>, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(BUCKETS)
        });
        let help = "How long a connection was waited for: tried once a second, while metrics are served";
        registry.register_with_unit("postroom_db_acquire", help, Unit::Seconds, acquire.clone());
        let pulse = Arc::new(Pulse { last: Mutex::new(None) });
        registry.register_collector(Box::new(Arc::clone(&pulse)));
        let mut by_pool = |name, help| gauges(registry, [name, help], "pool", POOLS);
        let size = by_pool("postroom_db_connections_open", "Connections to the database that are open");
        let idle = by_pool("postroom_db_connections_idle", "Those of them that nobody uses");
        let limit = by_pool("postroom_db_connections_limit", "How many there may be");
        let alarms = [
            "postroom_vault_alarms",
            "Passwords that did not open, and looks at a key file that could not be used",
        ];
        Self {
            size,
            idle,
            limit,
            acquire: POOLS.map(|pool| acquire.get_or_create_owned(&[("pool", pool)])),
            writable: gauge(
                registry,
                "postroom_store_writable",
                "Whether the last heartbeat was written, and there is room for more",
            ),
            pulse,
            vault_alarms: counters(registry, alarms, "of", ["password", "key_file"]),
        }
    }

    /// What a pool holds now.
    pub fn pool_is(&self, pool: Pool, size: u32, idle: usize, limit: u32) {
        let place = pool as usize;
        self.size[place].set(i64::from(size));
        self.idle[place].set(i64::try_from(idle).unwrap_or(i64::MAX));
        self.limit[place].set(i64::from(limit));
    }

    /// A connection was waited for so long, in vain or not.
    pub fn acquired(&self, pool: Pool, took: Duration) {
        self.acquire[pool as usize].observe(took.as_secs_f64());
    }

    /// A heartbeat was written.
    pub fn beat(&self) {
        *self.pulse.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The store can be written, or not.
    pub fn writable(&self, writable: bool) {
        self.writable.set(i64::from(writable));
    }

    /// The password of an account did not open.
    pub fn password_unopened(&self) {
        self.vault_alarms[0].inc();
    }

    /// The file with the vault's keys could not be used.
    pub fn key_file_unusable(&self) {
        self.vault_alarms[1].inc();
    }
}

/// The last heartbeat that was written.
#[derive(Debug)]
struct Pulse {
    last: Mutex<Option<Instant>>,
}

impl Collector for Pulse {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(last) = *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            let help = "How long ago a heartbeat was written: after 25 s without one others take this server's letters.";
            let (name, unit) = ("postroom_heartbeat_age", Unit::Seconds);
            let mut age = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
            age.encode_gauge(&last.elapsed().as_secs_f64())?;
        }
        let help = "Statements that failed: the database did not answer, no connection was free in time, or it refused them.";
        let mut errors =
            encoder.encode_descriptor("postroom_store_errors", help, None, MetricType::Counter)?;
        for (cause, failed) in FAILURES.iter().zip(&FAILED) {
            let count = ConstCounter::new(failed.load(Ordering::Relaxed));
            count.encode(errors.encode_family(&[("cause", *cause)])?)?;
        }
        Ok(())
    }
}
