//! What a server counts of itself: handles that every layer may increment, and their text for Prometheus. How it is served
//! is the business of `transport`; what the database is asked for it, of `store::load`.
//!
//! Every handle is made at the start, so that counting is an addition (a histogram: a short lock of its own), and a series
//! is there, with 0, before anything happened. docs/operations.md tells what each means.

mod backlog;
mod calls;
mod database;
mod delivery;
mod followers;
mod process;
mod smtp;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use self::backlog::{Backlog, OfAccount, Waiting};
pub use self::calls::{CallKind, Calls, OpenConnection, Running, Shed};
pub use self::database::{Database, Pool, StoreTrouble, store_failed};
pub use self::delivery::{Delivery, Via};
pub use self::followers::{Followed, Followers, Following};
pub use self::smtp::{OpenSession, Smtp};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels, by name.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// All that one server counts.
#[derive(Debug)]
pub struct Metrics {
    /// Connections and calls of clients.
    pub calls: Calls,
    /// Streams that follow a table.
    pub followers: Followers,
    /// SMTP sessions.
    pub smtp: Smtp,
    /// Letters.
    pub delivery: Delivery,
    /// The database, and the secrets in it.
    pub database: Database,
    /// What waits in the database.
    pub backlog: Backlog,
    registry: Registry,
}

impl Metrics {
    /// Everything at 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("postroom_build", "The version that runs", Info::new(version));
        registry.register_collector(Box::new(process::Process));
        Arc::new(Self {
            calls: Calls::new(&mut registry),
            followers: Followers::new(&mut registry),
            smtp: Smtp::new(&mut registry),
            delivery: Delivery::new(&mut registry),
            database: Database::new(&mut registry),
            backlog: Backlog::new(&mut registry),
            registry,
        })
    }

    /// All of it as text (OpenMetrics 1.0.0).
    ///
    /// # Errors
    /// When something cannot be told as text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry)?;
        Ok(rendered)
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// Counters by one label.
fn counters<const N: usize>(
    registry: &mut Registry,
    [name, help]: [&str; 2],
    label: &'static str,
    values: [&'static str; N],
) -> [Counter; N] {
    let family = Family::<Labels<1>, Counter>::default();
    registry.register(name, help, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}

/// Gauges by one label.
fn gauges<const N: usize>(
    registry: &mut Registry,
    [name, help]: [&str; 2],
    label: &'static str,
    values: [&'static str; N],
) -> [Gauge; N] {
    let family = Family::<Labels<1>, Gauge>::default();
    registry.register(name, help, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}

/// A histogram of times; its name gets the unit.
fn seconds(registry: &mut Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

#[cfg(test)]
mod tests;
