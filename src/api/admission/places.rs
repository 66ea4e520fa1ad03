//! How many calls are in flight: what is above a bound is refused at once, before anything is read or asked of the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CallLimits;
use crate::domain::error::{Problem, Reason};
use crate::metrics::CallKind;

/// Checks of health in flight. They need no key, so that they have places of their own: neither do they take others' places,
/// nor do others take theirs.
const MAX_CHECKS: usize = 1_024;
/// Everything else without a key: watches of health, reflection.
const MAX_OPEN: usize = 1_024;
/// When to try again: calls are short.
const CALLS_RETRY: Duration = Duration::from_secs(1);
/// Streams are long.
const STREAMS_RETRY: Duration = Duration::from_secs(30);

/// Calls whose answer, or question, is a stream that may go on for long.
const STREAMS: [&str; 5] = [
    "/postroom.v1.SendService/SendMessages",
    "/postroom.v1.SendService/GetMessageContent",
    "/postroom.v1.SendService/WatchEvents",
    "/postroom.v1.LogsService/TailLogEntries",
    "/postroom.v1.LogsService/DownloadLog",
];
/// Where our services are.
const OURS: &str = "/postroom.v1.";

/// Kinds of calls, each with places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With a key, answered by one message.
    Call,
    /// With a key, for long.
    Stream,
    /// A check of health.
    Check,
    /// Anything else: it needs no key.
    Open,
}

impl Kind {
    pub(super) fn of(path: &str) -> Self {
        match path {
            path if STREAMS.contains(&path) => Self::Stream,
            path if path.starts_with(OURS) => Self::Call,
            "/grpc.health.v1.Health/Check" => Self::Check,
            _ => Self::Open,
        }
    }

    /// How it is counted.
    pub(super) fn counted(self) -> CallKind {
        match self {
            Self::Call => CallKind::Call,
            Self::Stream => CallKind::Stream,
            Self::Check => CallKind::Check,
            Self::Open => CallKind::Open,
        }
    }

    /// Whether a call needs a key.
    pub(super) fn needs_key(self) -> bool {
        match self {
            Self::Call | Self::Stream => true,
            Self::Check | Self::Open => false,
        }
    }
}

/// A place of a call in flight, free again when this is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// The places of all kinds.
pub(super) struct Places {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(limits: CallLimits) -> Self {
        let CallLimits { max_calls, max_streams } = limits;
        let places = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        Self {
            calls: places(max_calls),
            streams: places(max_streams),
            checks: places(MAX_CHECKS),
            open: places(MAX_OPEN),
        }
    }

    /// A place for a call of this kind.
    ///
    /// # Errors
    /// `RATE_LIMITED` where all are taken.
    pub(super) fn take(&self, kind: Kind) -> Result<Place, Problem> {
        let (places, retry) = match kind {
            Kind::Call => (&self.calls, CALLS_RETRY),
            Kind::Stream => (&self.streams, STREAMS_RETRY),
            Kind::Check => (&self.checks, CALLS_RETRY),
            Kind::Open => (&self.open, STREAMS_RETRY),
        };
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            let text = "the server has as many calls in hand as it takes at once, try again later";
            Problem::new(Reason::RateLimited, text).retry_after(retry)
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::api::proto::DESCRIPTORS;

    #[test]
    fn all_streams_of_the_protos_are_known() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors").file;
        let mut streams = Vec::new();
        for file in files.iter().filter(|file| file.package() == "postroom.v1") {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("{OURS}{}/{}", service.name(), method.name());
                    let is_stream = method.client_streaming() || method.server_streaming();
                    assert_eq!(Kind::of(&path), if is_stream { Kind::Stream } else { Kind::Call }, "{path}");
                    streams.extend(is_stream.then_some(path));
                }
            }
        }
        assert_eq!(streams.len(), STREAMS.len(), "{streams:?}");
    }

    #[test]
    fn kinds_do_not_take_the_places_of_others() {
        let places = Places::new(CallLimits { max_calls: 1, max_streams: 1 });
        let call = places.take(Kind::Call).expect("a place");
        assert_eq!(places.take(Kind::Call).expect_err("taken").reason, Reason::RateLimited);
        let _stream = places.take(Kind::Stream).expect("a place");
        assert!(places.take(Kind::Stream).is_err());
        for kind in [Kind::Check, Kind::Open] {
            drop(places.take(kind).expect("a place"));
            assert!(!kind.needs_key());
        }
        drop(call);
        drop(places.take(Kind::Call).expect("free again"));
    }
}
