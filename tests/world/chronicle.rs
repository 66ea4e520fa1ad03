//! What was done to the world, and when, so that whatever happened can be laid to it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// An event that a scenario caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A server was killed.
    Killed,
    /// A server was asked to stop.
    Stopped,
    /// The database went away,
    DatabaseGone,
    /// and answered again.
    DatabaseBack,
}

/// Everything that a scenario caused.
#[derive(Default)]
pub(crate) struct Chronicle(Mutex<Vec<(Instant, Event)>>);

impl Chronicle {
    /// Notes an event that happens now.
    pub(crate) fn note(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event));
    }

    /// Everything so far, in its order.
    pub(crate) fn events(&self) -> Vec<(Instant, Event)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of a kind.
    pub(crate) fn count(&self, event: Event) -> usize {
        self.events().iter().filter(|(_, other)| *other == event).count()
    }
}
