//! SMTP sessions: those of delivery and those of checks.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Metrics, counter, counters, gauge, seconds};
use crate::domain::outcome::Step;

/// From a server next door to the longest `connection_timeout` of each step.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// SMTP sessions.
#[derive(Debug)]
pub struct Smtp {
    open: Gauge,
    opened: Counter,
    open_seconds: Histogram,
    /// Letters that went over a session that had carried one before.
    pub reused: Counter,
    /// Servers that sent plain text behind their answer to STARTTLS (CASES 7).
    pub injections: Counter,
    failures: [Counter; 5],
}

impl Smtp {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let failures = [
            "postroom_smtp_session_failures",
            "Sessions that could not be opened, by the step that failed; of delivery and of checks",
        ];
        let steps = ["resolve", "connect", "tls", "hello", "auth"];
        Self {
            open: gauge(registry, "postroom_smtp_sessions_open", "SMTP sessions that are open"),
            opened: counter(
                registry,
                "postroom_smtp_sessions_opened",
                "SMTP sessions that were opened, of delivery and of checks",
            ),
            open_seconds: seconds(
                registry,
                "postroom_smtp_session_open",
                "How long it took to open a session, from the look-up of the name to the login",
                &BUCKETS,
            ),
            reused: counter(
                registry,
                "postroom_smtp_sessions_reused",
                "Attempts over a session that had carried a letter before",
            ),
            injections: counter(
                registry,
                "postroom_smtp_starttls_injections",
                "Sessions given up because plain text came behind the answer to STARTTLS: somebody may tamper with them",
            ),
            failures: counters(registry, failures, "step", steps),
        }
    }

    /// A session could not be opened; it is open behind the step `auth`.
    pub fn failed(&self, step: Step) {
        if let Some(failures) = self.failures.get(step as usize) {
            failures.inc();
        }
    }
}

/// A session that is open, until this is dropped.
#[derive(Debug)]
pub struct OpenSession(Arc<Metrics>);

impl OpenSession {
    /// A session was opened, within this time.
    #[must_use]
    pub fn begin(metrics: &Arc<Metrics>, took: Duration) -> Self {
        let Smtp { open, opened, open_seconds, .. } = &metrics.smtp;
        open.inc();
        opened.inc();
        open_seconds.observe(took.as_secs_f64());
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.smtp.open.dec();
    }
}
