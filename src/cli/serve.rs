//! `postroom serve`.

use tokio::net::TcpListener;

use super::Failure;
use super::open::Opened;
use crate::api::CheckLimits;
use crate::app::{self, AppOptions};
use crate::config::{Config, ServeOptions};
use crate::shutdown::Shutdown;
use crate::smtp::Floors;
use crate::telemetry;

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(options: ServeOptions) -> Result<(), Failure> {
    let Config {
        store,
        log_format,
        log_filter,
        listen,
        smtp_ca_file,
        egress_allow,
        egress_ports,
        plaintext_auth_hosts,
        retry_floor,
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
        database_url: opened.database_url.clone(),
        vault: opened.vault.clone(),
        smtp_ca_file,
        egress_allow,
        egress_ports,
        plaintext_auth_hosts,
        smtp_floors: Floors::default(),
        retry_floor,
        max_letter_bytes,
        check_limits: CheckLimits::default(),
        drain_wait,
        reflection,
    };
    let served = app::run(listener, options, shutdown).await;
    opened.close().await?;
    Ok(served?)
}
