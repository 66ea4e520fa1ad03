//! Connections of clients, and calls: begun, answered, refused.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Metrics, counter, counters, gauge, gauges};
use crate::domain::access::Rpc;

/// From what memory answers to what waits for the slowest mail server.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// The names of gRPC's codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
/// Calls that are none of ours: path, and the name they are counted under.
const NOT_OURS: [(&str, &str); 4] = [
    ("/grpc.health.v1.Health/Check", "Health/Check"),
    ("/grpc.health.v1.Health/Watch", "Health/Watch"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "ServerReflection/ServerReflectionInfo"),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "ServerReflection.v1alpha/ServerReflectionInfo",
    ),
];
/// What anybody may make up is one name.
const OTHER: &str = "other";

/// What calls wait for, and so how they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// With a key, answered by one message.
    Call,
    /// With a key, for long.
    Stream,
    /// A check of health.
    Check,
    /// Anything else.
    Open,
}

/// Why a call was refused for the server's sake, before it was worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// As many of its kind are in hand as may be.
    Places(CallKind),
    /// Large letters hold all the memory for requests.
    Memory,
    /// Its key makes more calls a second than it may.
    KeyRate,
}

/// Connections and calls of clients.
#[derive(Debug)]
pub struct Calls {
    connections: Gauge,
    connections_accepted: Counter,
    /// Connections that were closed unanswered, since there were too many.
    pub connections_refused: Counter,
    in_flight: [Gauge; 4],
    shed: [Counter; 6],
    /// Where a method's handles are, by path.
    methods: HashMap<String, usize>,
    handles: Vec<Method>,
    seconds: Family<MethodAndCode, Histogram, fn() -> Histogram>,
    streams: Family<MethodAndCode, Counter>,
}

type MethodAndCode = [(&'static str, String); 2];

/// The handles of a method by code, each made at its first use: most codes never come.
#[derive(Debug)]
struct Method {
    name: String,
    seconds: [OnceLock<Histogram>; CODES.len()],
    streams: [OnceLock<Counter>; CODES.len()],
}

impl Calls {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS);
        let seconds = Family::new_with_constructor(constructor);
        registry.register_with_unit(
            "postroom_rpc",
            "Calls that are answered by one message, and how long they took, by method and code",
            Unit::Seconds,
            seconds.clone(),
        );
        let streams = Family::default();
        registry.register("postroom_rpc_streams", "Streams that ended, by method and code", streams.clone());
        let ours = Rpc::ALL.map(|rpc| {
            let name = format!("{}/{rpc:?}", rpc.service());
            (format!("/postroom.v1.{name}"), name)
        });
        let others = NOT_OURS.map(|(path, name)| (path.to_owned(), name.to_owned()));
        let (mut methods, mut handles) = (HashMap::new(), vec![Method::new(OTHER.to_owned())]);
        for (path, name) in ours.into_iter().chain(others) {
            methods.insert(path, handles.len());
            handles.push(Method::new(name));
        }
        let kinds = ["call", "stream", "check", "open"];
        let in_flight =
            ["postroom_rpc_in_flight", "Calls that are being worked on, and streams that are open"];
        let shed =
            ["postroom_rpc_shed", "Calls that were refused for want of room, before they were worked on"];
        Self {
            connections: gauge(registry, "postroom_connections_open", "Connections of clients that are open"),
            connections_accepted: counter(
                registry,
                "postroom_connections_accepted",
                "Connections of clients that were taken",
            ),
            connections_refused: counter(
                registry,
                "postroom_connections_refused",
                "Connections of clients that were closed unanswered, since there were too many",
            ),
            in_flight: gauges(registry, in_flight, "kind", kinds),
            shed: counters(
                registry,
                shed,
                "cause",
                ["calls", "streams", "checks", "open", "memory", "key_rate"],
            ),
            methods,
            handles,
            seconds,
            streams,
        }
    }

    /// A call was refused.
    pub fn shed(&self, cause: Shed) {
        let place = match cause {
            Shed::Places(kind) => kind as usize,
            Shed::Memory => 4,
            Shed::KeyRate => 5,
        };
        self.shed[place].inc();
    }

    fn ended(&self, method: usize, kind: CallKind, code: usize, start: Instant) {
        let method = &self.handles[method];
        let code = if code < CODES.len() { code } else { UNKNOWN };
        let labels = || [("method", method.name.clone()), ("code", CODES[code].to_owned())];
        match kind {
            CallKind::Call | CallKind::Check => {
                let handle = method.seconds[code].get_or_init(|| self.seconds.get_or_create_owned(&labels()));
                handle.observe(start.elapsed().as_secs_f64());
            }
            CallKind::Stream | CallKind::Open => {
                let handle = method.streams[code].get_or_init(|| self.streams.get_or_create_owned(&labels()));
                handle.inc();
            }
        }
    }
}

impl Method {
    fn new(name: String) -> Self {
        Self { name, seconds: Default::default(), streams: Default::default() }
    }
}

/// A connection of a client, until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl OpenConnection {
    /// A connection was taken.
    #[must_use]
    pub fn begin(calls: &Calls) -> Self {
        calls.connections_accepted.inc();
        calls.connections.inc();
        Self(calls.connections.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A call in flight, counted as cancelled where it is dropped before its end is known.
#[derive(Debug)]
pub struct Running {
    metrics: Arc<Metrics>,
    method: usize,
    kind: CallKind,
    start: Instant,
    code: usize,
}

impl Running {
    /// A call of this path begins.
    #[must_use]
    pub fn begin(metrics: &Arc<Metrics>, path: &str, kind: CallKind) -> Self {
        metrics.calls.in_flight[kind as usize].inc();
        let method = metrics.calls.methods.get(path).copied().unwrap_or_default();
        Self { metrics: Arc::clone(metrics), method, kind, start: Instant::now(), code: CANCELLED }
    }

    /// It ends with this code, by number; one that nobody knows is UNKNOWN.
    pub fn end(mut self, code: Option<usize>) {
        self.code = code.unwrap_or(UNKNOWN);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let calls = &self.metrics.calls;
        calls.in_flight[self.kind as usize].dec();
        calls.ended(self.method, self.kind, self.code, self.start);
    }
}
