//! Streams that follow a table, and how far they are behind it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// `TailLogEntries`.
    Logs,
    /// `WatchEvents`.
    Events,
}

const KINDS: [(Followed, &str); 2] = [(Followed::Logs, "logs"), (Followed::Events, "events")];

/// Streams that follow a table.
#[derive(Clone, Debug)]
pub struct Followers(Arc<Open>);

#[derive(Debug)]
struct Open {
    start: Instant,
    next: AtomicU64,
    /// When each had been told everything, in microseconds since the start.
    streams: Mutex<HashMap<u64, (Followed, Arc<AtomicU64>)>>,
}

impl Followers {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let followers = Self(Arc::new(Open {
            start: Instant::now(),
            next: AtomicU64::new(0),
            streams: Mutex::default(),
        }));
        registry.register_collector(Box::new(followers.clone()));
        followers
    }

    /// A stream begins.
    #[must_use]
    pub fn follow(&self, what: Followed) -> Following {
        let Open { start, next, streams } = &*self.0;
        let id = next.fetch_add(1, Ordering::Relaxed);
        let told = Arc::new(AtomicU64::new(microseconds(start.elapsed())));
        streams.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (what, Arc::clone(&told)));
        Following { followers: self.clone(), id, told }
    }
}

impl Collector for Followers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Open { start, streams, .. } = &*self.0;
        let now = microseconds(start.elapsed());
        let mut found = [(0_u64, 0_u64); KINDS.len()];
        for (what, told) in streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let (count, behind) = &mut found[*what as usize];
            *count += 1;
            *behind = (*behind).max(now.saturating_sub(told.load(Ordering::Relaxed)));
        }
        let help = "Streams that follow a table, of TailLogEntries (logs) and WatchEvents (events).";
        let mut open = encoder.encode_descriptor("postroom_followers_open", help, None, MetricType::Gauge)?;
        for ((_, kind), (count, _)) in KINDS.iter().zip(found) {
            open.encode_family(&[("of", *kind)])?.encode_gauge(&count)?;
        }
        let help = "How long ago the one that is farthest behind had been told everything.";
        let (name, unit) = ("postroom_followers_behind", Unit::Seconds);
        let mut most = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for ((_, kind), (_, behind)) in KINDS.iter().zip(found) {
            let behind = Duration::from_micros(behind).as_secs_f64();
            most.encode_family(&[("of", *kind)])?.encode_gauge(&behind)?;
        }
        Ok(())
    }
}

/// A stream that is open.
#[derive(Debug)]
pub struct Following {
    followers: Followers,
    id: u64,
    told: Arc<AtomicU64>,
}

impl Following {
    /// Everything that was there at this moment was handed to the reader.
    pub fn told_all(&self, of: Instant) {
        let since = of.saturating_duration_since(self.followers.0.start);
        self.told.store(microseconds(since), Ordering::Relaxed);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.0.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
