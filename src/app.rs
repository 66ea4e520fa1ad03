//! The composition root: store, delivery, API and health put together and run until they are told to stop.
//! It binds nothing, traps nothing and reads no environment; `cli` does.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Layer as _;
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::TraceLayer;
use tracing::Span;
use uuid::Uuid;

use crate::api::{self, Api, ApiOptions, CallLimits, CheckLimits};
use crate::config::EgressConfig;
use crate::delivery::{self, Pulse};
use crate::domain::clock::Clock;
use crate::domain::parking::Backoff;
use crate::domain::settings::EffectiveSettings;
use crate::shutdown::Shutdown;
use crate::smtp::{Connector, ConnectorError, ConnectorOptions, Floors, Names};
use crate::store::{PoolLimits, Store, StoreError, load, notices, replicas, sealed};
use crate::transport::{self, TransportOptions};
use crate::vault::Vault;

/// A database that is started together with the server may take so long.
const START_PATIENCE: Duration = Duration::from_secs(30);
const START_RETRY: Duration = Duration::from_millis(500);
/// The name by which we greet servers where the machine has none to offer.
const DEFAULT_HELO: &str = "localhost";
/// Shortest time between two tries that a site may set, unless the operator says otherwise.
const DEFAULT_RETRY_FLOOR: Duration = Duration::from_mins(30);
/// Largest letter unless the operator says otherwise.
const DEFAULT_MAX_LETTER_BYTES: usize = 25 * 1024 * 1024;
/// Calls a second of a key unless the operator says otherwise: more than two cores take in.
const DEFAULT_CALLS_PER_KEY: NonZeroU32 = NonZeroU32::new(20_000).expect("not zero");

/// What the operator decides, with the vault opened.
pub struct AppOptions {
    /// URL of the database.
    pub database_url: String,
    /// How much of it may be taken.
    pub pool: PoolLimits,
    /// The keys to its secrets.
    pub vault: Arc<Vault>,
    /// Certificates that count besides the system's.
    pub smtp_ca_file: Option<PathBuf>,
    /// Where accounts may connect to.
    pub egress: EgressConfig,
    /// Who knows the addresses of mail servers: the system, but in tests.
    pub smtp_names: Names,
    /// What mail servers always get of time: those of the RFC, but in tests.
    pub smtp_floors: Floors,
    /// Smallest retry interval that a site may set.
    pub retry_floor: Duration,
    /// What counts for sites that set nothing.
    pub settings_defaults: EffectiveSettings,
    /// Largest letter in bytes after MIME encoding.
    pub max_letter_bytes: usize,
    /// Checks of accounts allowed a minute.
    pub check_limits: CheckLimits,
    /// Calls a second of a key that sets no limit of its own.
    pub calls_per_key: NonZeroU32,
    /// How long the server goes on serving after health fell, so that load balancers notice.
    pub drain_wait: Duration,
    /// Whether reflection is served.
    pub reflection: bool,
    /// Where metrics are served; nowhere without.
    pub metrics_listener: Option<TcpListener>,
    /// Connections of clients.
    pub transport: TransportOptions,
}

impl AppOptions {
    /// What counts where the operator decides nothing.
    #[must_use]
    pub fn new(database_url: String, vault: Arc<Vault>) -> Self {
        Self {
            database_url,
            pool: PoolLimits::default(),
            vault,
            smtp_ca_file: None,
            egress: EgressConfig::default(),
            smtp_names: Names::default(),
            smtp_floors: Floors::default(),
            retry_floor: DEFAULT_RETRY_FLOOR,
            settings_defaults: EffectiveSettings::default(),
            max_letter_bytes: DEFAULT_MAX_LETTER_BYTES,
            check_limits: CheckLimits::default(),
            calls_per_key: DEFAULT_CALLS_PER_KEY,
            drain_wait: Duration::ZERO,
            reflection: true,
            metrics_listener: None,
            transport: TransportOptions::default(),
        }
    }
}

/// Brings the schema up to date, makes sure of the vault's keys and sets the clock; waits a while for a database that is not there yet.
async fn prepare(store: &Store, shutdown: &Shutdown) -> Result<(), StoreError> {
    let soft = shutdown.soft();
    let patience = Instant::now() + START_PATIENCE;
    loop {
        let prepared = async {
            store.migrate().await?;
            // Before anything is written.
            sealed::demand_keys(store).await?;
            replicas::hear_keys(store).await?;
            store.synchronise().await
        };
        match prepared.await {
            Err(StoreError::Unavailable(error)) if Instant::now() < patience && !soft.is_cancelled() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the database");
            }
            other => return other,
        }
        let _ = soft.run_until_cancelled(tokio::time::sleep(START_RETRY)).await;
    }
}

type MakeSpan = fn(&http::Request<Body>) -> Span;
type OnResponse = fn(&http::Response<Body>, Duration, &Span);

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// The SMTP client cannot be set up.
    #[error("the SMTP client cannot be set up")]
    Connector(#[from] ConnectorError),
    /// Reflection cannot be set up.
    #[error("reflection cannot be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves on `listener` until `shutdown`.
///
/// At the soft stop health falls and nothing more is claimed; streams end with a token; after `drain_wait` no call is
/// taken any more, and those under way are finished. At the hard stop everything is dropped.
///
/// # Errors
/// When something cannot be set up, or the server fails.
pub async fn run(listener: TcpListener, options: AppOptions, shutdown: Shutdown) -> Result<(), AppError> {
    let AppOptions {
        database_url,
        pool,
        vault,
        smtp_ca_file,
        egress: EgressConfig { policy, plaintext_auth_hosts },
        smtp_names,
        smtp_floors,
        retry_floor,
        settings_defaults,
        max_letter_bytes,
        check_limits,
        calls_per_key,
        drain_wait,
        reflection,
        metrics_listener,
        transport,
    } = options;
    let store =
        Store::open_with(&database_url, &pool, vault, Clock::default())?.with_defaults(settings_defaults);
    prepare(&store, &shutdown).await?;
    let connector = Connector::new(ConnectorOptions {
        ca_file: smtp_ca_file,
        egress: policy,
        names: smtp_names,
        plaintext_auth_hosts,
        helo_name: helo_name(),
        clock: store.clock().clone(),
        floors: smtp_floors,
    })?;
    let connector = Arc::new(connector.with_metrics(Arc::clone(store.metrics())));

    let pulse = Pulse::new();
    let api = Api::new(
        store.clone(),
        Arc::clone(&connector),
        ApiOptions {
            retry_floor,
            max_letter_bytes,
            check_limits,
            calls_per_key,
            call_limits: CallLimits { max_calls: transport.max_calls, max_streams: transport.max_streams },
        },
        shutdown.soft(),
    );
    let health = HealthReporter::new();
    let mut services = api::routes(&api).add_service(tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health.clone()),
    ));
    if reflection {
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(api::proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        services = services.add_service(describe().build_v1()?).add_service(describe().build_v1alpha()?);
    }
    let closed = {
        let soft = shutdown.soft();
        async move {
            soft.cancelled().await;
            tokio::time::sleep(drain_wait).await;
        }
    };
    let service = calls_layer().layer(api::admission(&api, services));
    let serve = transport::serve(listener, &transport, store.clock(), store.metrics(), service, closed);

    // The pulse outlives delivery: leases count as long as it beats.
    let pulse_stop = CancellationToken::new();
    let working = async {
        let delivering =
            delivery::run(store.for_delivery(), connector, Backoff::of_floor(retry_floor), &pulse, &shutdown);
        let hard = shutdown.hard();
        let serving = hard.run_until_cancelled(serve);
        // Nobody is left when it was cut off.
        let ((), _cut) = tokio::join!(delivering, serving);
        pulse_stop.cancel();
    };
    // A task of its own, on which nothing here depends. It outlives delivery, too: the last outcomes are told.
    let notices = AbortOnDropHandle::new(tokio::spawn(notices::run(store.clone(), pulse_stop.clone())));
    let metrics = metrics_listener.map(|listener| serve_metrics(listener, &store));
    let ((), (), (), (), noticed) = tokio::join!(
        working,
        pulse.run(&store, pulse_stop.clone()),
        delivery::watch_keys(store.clone(), pulse_stop.clone()),
        report_health(health, pulse.writable(), &shutdown, drain_wait, &pulse_stop),
        notices,
    );
    if let Err(error) = noticed {
        tracing::error!(%error, "word between servers failed");
    }
    drop(metrics);
    store.close().await;
    Ok(())
}

/// Serves metrics until the answer is dropped, to the last: what happens at the stop is told, too.
fn serve_metrics(listener: TcpListener, store: &Store) -> [AbortOnDropHandle<()>; 2] {
    let (backlog, of) = (Arc::new(load::Reading::new(store)), store.clone());
    let scrapes = transport::serve_scrapes(listener, move || {
        let (backlog, store) = (Arc::clone(&backlog), of.clone());
        async move {
            backlog.refresh().await;
            load::tell_pools(&store);
            let rendered = store.metrics().render();
            rendered.inspect_err(|error| tracing::error!(%error, "metrics cannot be told")).ok()
        }
    });
    let trying = store.clone();
    let waits = async move { load::try_pools(&trying).await };
    [tokio::spawn(scrapes), tokio::spawn(waits)].map(AbortOnDropHandle::new)
}

/// Gives every call a span with a request id, and tells of its end: at debug level, or at info level where it failed.
fn calls_layer() -> TraceLayer<SharedClassifier<GrpcErrorsAsFailures>, MakeSpan, (), OnResponse, (), (), ()> {
    TraceLayer::new_for_grpc()
        .make_span_with(
            (|request| tracing::info_span!("rpc", method = request.uri().path(), request_id = %Uuid::now_v7()))
                as MakeSpan,
        )
        .on_request(())
        .on_response(
            (|response, latency, _| {
                let milliseconds = latency.as_millis();
                match Status::from_header_map(response.headers()).map(|status| status.code()) {
                    None | Some(Code::Ok) => tracing::debug!(milliseconds, "answered"),
                    Some(code) => tracing::info!(milliseconds, ?code, "answered with an error"),
                }
            }) as OnResponse,
        )
        .on_body_chunk(())
        .on_eos(())
        .on_failure(())
}

/// Keeps health true: `liveness` as long as the process works, everything else while the store can be written and the
/// server is not about to stop. `drain_wait` after the soft stop there is nothing more to report, and those who watch are
/// let go: they would keep the server from its end.
async fn report_health(
    mut health: HealthReporter,
    mut writable: watch::Receiver<bool>,
    shutdown: &Shutdown,
    drain_wait: Duration,
    end: &CancellationToken,
) {
    health.set_service_status("liveness", ServingStatus::Serving).await;
    let soft = shutdown.soft();
    let by_readiness = || ["", "readiness"].into_iter().chain(api::SERVICE_NAMES);
    loop {
        let stopping = soft.is_cancelled();
        let ready = *writable.borrow_and_update() && !stopping;
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in by_readiness() {
            health.set_service_status(name, status).await;
        }
        if stopping {
            break;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = soft.cancelled() => {}
            changed = writable.changed() => if changed.is_err() { return },
        }
    }
    if end.run_until_cancelled(tokio::time::sleep(drain_wait)).await.is_some() {
        for name in by_readiness().chain(["liveness"]) {
            health.clear_service_status(name).await;
        }
    }
}

/// The name of this machine, if it is one that servers accept in EHLO (RFC 5321 4.1.1.1).
fn helo_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        !name.is_empty() && name.chars().all(right)
    })
    .unwrap_or_else(|| DEFAULT_HELO.to_owned())
}
