//! `postroom vault check|rotate`: straight on the store, beside running servers.

mod check;
mod rotate;

use std::time::Duration;

use clap::Subcommand;

use super::Failure;
use super::open::with_store;
use crate::config::StoreOptions;
use crate::store::sealed::Sealed;
use crate::vault::VaultError;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Open every stored secret as a proof, and tell which keys are in use
    Check {
        #[command(flatten)]
        store: StoreOptions,
    },
    /// Seal every stored secret anew that is not under the first key
    Rotate {
        /// First put a new key before the others of the key file
        #[arg(long)]
        new_key: bool,
        /// How long to wait until every running server seals under the first key
        #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
        wait: Duration,
        #[command(flatten)]
        store: StoreOptions,
    },
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { store } => with_store(store, check::run).await,
        Command::Rotate { new_key, wait, store } => rotate::run(new_key, wait, store).await,
    }
}

/// Tells people of a secret that does not open.
fn tell_unopened(value: &Sealed, error: &VaultError) {
    eprintln!("{}\t{}\t{error}", value.owner(), value.column.name());
}
