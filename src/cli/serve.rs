//! `postroom serve`.

use tokio::net::TcpListener;

use super::Failure;
use super::open::Opened;
use crate::app::{self, AppOptions};
use crate::config::{Config, ListenConfig, ServeOptions};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::transport::{Tls, TransportOptions, raise_limit};

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(options: ServeOptions) -> Result<(), Failure> {
    let Config {
        store,
        log_format,
        log_filter,
        listening:
            ListenConfig {
                listen,
                tls,
                max_connections,
                max_concurrent_calls,
                max_concurrent_streams,
                max_connection_age,
                metrics,
            },
        smtp_ca_file,
        egress,
        retry_floor,
        settings_defaults,
        max_letter_bytes,
        calls_per_key,
        drain_wait,
        shutdown_grace,
        reflection,
    } = options.into_config()?;
    telemetry::init(log_format, log_filter);
    let tls = tls.map(Tls::open).transpose()?;
    raise_limit(max_connections);
    let shutdown = Shutdown::on_signals(drain_wait, shutdown_grace)?;
    let listener = TcpListener::bind(listen).await?;
    let metrics_listener = match metrics {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    };
    let opened = Opened::new(store).await?;
    println!("listening on {}", listener.local_addr()?);
    if let Some(metrics) = &metrics_listener {
        println!("metrics on http://{}/metrics", metrics.local_addr()?);
    }
    let options = AppOptions {
        smtp_ca_file,
        egress,
        retry_floor,
        settings_defaults,
        max_letter_bytes,
        calls_per_key,
        drain_wait,
        reflection,
        metrics_listener,
        transport: TransportOptions {
            tls,
            max_connections,
            max_calls: max_concurrent_calls,
            max_streams: max_concurrent_streams,
            max_connection_age,
            ..TransportOptions::default()
        },
        pool: opened.pool.clone(),
        ..AppOptions::new(opened.database_url.clone(), opened.vault.clone())
    };
    let served = app::run(listener, options, shutdown).await;
    opened.close().await?;
    Ok(served?)
}
