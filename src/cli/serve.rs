//! `postroom serve`.

use tokio::net::TcpListener;

use super::Failure;
use super::open::Opened;
use crate::app::{self, AppOptions};
use crate::config::{Config, ListenConfig, ServeOptions};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(options: ServeOptions) -> Result<(), Failure> {
    let Config {
        store,
        log_format,
        log_filter,
        listening: ListenConfig { listen },
        smtp_ca_file,
        egress,
        retry_floor,
        settings_defaults,
        max_letter_bytes,
        drain_wait,
        shutdown_grace,
        reflection,
    } = options.into_config()?;
    telemetry::init(log_format, log_filter);
    let shutdown = Shutdown::on_signals(drain_wait, shutdown_grace)?;
    let listener = TcpListener::bind(listen).await?;
    let opened = Opened::new(store).await?;
    println!("listening on {}", listener.local_addr()?);
    let options = AppOptions {
        smtp_ca_file,
        egress,
        retry_floor,
        settings_defaults,
        max_letter_bytes,
        drain_wait,
        reflection,
        ..AppOptions::new(opened.database_url.clone(), opened.vault.clone())
    };
    let served = app::run(listener, options, shutdown).await;
    opened.close().await?;
    Ok(served?)
}
