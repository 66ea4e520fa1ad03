//! What waits in the database, as it was found last. Every server over a database tells the same.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::parking::ParkingReason;

/// What waits.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Accounts with mail, at most as many as are told of.
    pub accounts: Vec<OfAccount>,
    /// Letters of one account are counted up to this number.
    pub counted_to: i64,
    /// Accounts that are parked, by reason.
    pub parked: Vec<(ParkingReason, i64)>,
    /// How long it took to find out.
    pub took: Duration,
}

/// What waits for one account.
#[derive(Clone, Debug)]
pub struct OfAccount {
    /// The id of its site.
    pub site: String,
    /// Its id.
    pub account: i64,
    /// Its letters.
    pub letters: i64,
    /// How long ago the first of them was due; less than 0 where it is not due yet.
    pub oldest_due: f64,
}

/// What waits, as it was found last.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Mutex<Option<Waiting>>>);

impl Backlog {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let backlog = Self(Arc::default());
        registry.register_collector(Box::new(backlog.clone()));
        backlog
    }

    /// What waits now; `None` where it is not known: then nothing is told rather than what was.
    pub fn found(&self, waiting: Option<Waiting>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }
}

impl Collector for Backlog {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut one = |name: &str, help: &str, value: i64| {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
        };
        let help = "Whether it is known what waits: else the other figures of the queue are missing.";
        one("postroom_queue_known", help, i64::from(found.is_some()))?;
        let Some(Waiting { accounts, counted_to, parked, took }) = &*found else { return Ok(()) };
        let help = "Letters of one account are counted up to this number.";
        one("postroom_queue_counted_to", help, *counted_to)?;
        let help = "Accounts for which mail waits, of those that are told of.";
        one("postroom_queue_accounts", help, i64::try_from(accounts.len()).unwrap_or(i64::MAX))?;
        let (name, unit) = ("postroom_queue_read", Unit::Seconds);
        let help = "How long it took to find out what waits.";
        let mut read = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        read.encode_gauge(&took.as_secs_f64())?;
        let labels = |of: &OfAccount| [("site", of.site.clone()), ("account", of.account.to_string())];
        let help = "Letters of an account that wait or are under way.";
        let mut letters =
            encoder.encode_descriptor("postroom_queue_letters", help, None, MetricType::Gauge)?;
        for of in accounts {
            letters.encode_family(&labels(of))?.encode_gauge(&of.letters)?;
        }
        let help = "How long ago the first letter of an account was due; 0 where none is due yet.";
        let (name, unit) = ("postroom_queue_oldest_due", Unit::Seconds);
        let mut oldest = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for of in accounts {
            oldest.encode_family(&labels(of))?.encode_gauge(&of.oldest_due.max(0.0))?;
        }
        let help = "Accounts that are parked, by reason.";
        let mut of_reason =
            encoder.encode_descriptor("postroom_accounts_parked", help, None, MetricType::Gauge)?;
        for reason in ParkingReason::ALL {
            let count = parked.iter().filter(|(of, _)| *of == reason).map(|(_, count)| count).sum::<i64>();
            of_reason.encode_family(&[("reason", reason.name())])?.encode_gauge(&count)?;
        }
        Ok(())
    }
}
