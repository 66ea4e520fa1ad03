//! Opens database and vault for a subcommand, the private PostgreSQL included.

use std::sync::Arc;

use super::Failure;
use crate::config::{Database, PoolOptions, StoreConfig, StoreOptions, VaultKeys};
use crate::domain::clock::Clock;
use crate::private_postgres::{self, PrivatePostgres};
use crate::store::{PoolLimits, Store};
use crate::vault::Vault;

/// A database and the keys to its secrets.
pub(super) struct Opened {
    /// URL of the database.
    pub(super) database_url: String,
    /// How much of it may be taken.
    pub(super) pool: PoolLimits,
    /// The vault.
    pub(super) vault: Arc<Vault>,
    /// The private cluster, where there is one; the last one that leaves stops it.
    postgres: Option<PrivatePostgres>,
}

impl Opened {
    /// Starts or attaches to the private cluster, or takes the given database; opens the vault.
    pub(super) async fn new(config: StoreConfig) -> Result<Self, Failure> {
        let StoreConfig { database, vault_keys, pool } = config;
        let (database_url, postgres) = match database {
            Database::Server { url } => (url.expose().to_owned(), None),
            Database::Private { data_dir } => {
                let postgres = private_postgres::start(&data_dir).await?;
                (postgres.database_url(), Some(postgres))
            }
        };
        let vault = Arc::new(match vault_keys {
            VaultKeys::Given(path) => Vault::load(&path)?,
            VaultKeys::Made(path) => Vault::load_or_create(&path)?,
            VaultKeys::Environment(data) => Vault::parse_variable(data.expose())?,
        });
        Ok(Self { database_url, pool: limits(&pool), vault, postgres })
    }

    /// Leaves the database.
    pub(super) async fn close(self) -> Result<(), Failure> {
        if let Some(postgres) = self.postgres {
            postgres.stop().await?;
        }
        Ok(())
    }
}

/// The limits that the options mean.
fn limits(options: &PoolOptions) -> PoolLimits {
    let PoolOptions {
        db_connections,
        db_delivery_connections,
        db_acquire_timeout,
        db_statement_timeout,
        db_lock_timeout,
    } = options;
    PoolLimits {
        connections: *db_connections,
        delivery_connections: *db_delivery_connections,
        acquire_timeout: *db_acquire_timeout,
        statement_timeout: *db_statement_timeout,
        lock_timeout: *db_lock_timeout,
    }
}

/// Opens the store, its schema up to date, runs `work` with it, and leaves.
pub(super) async fn with_store<T>(
    options: StoreOptions,
    work: impl AsyncFnOnce(&Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let opened = Opened::new(options.into_config()?).await?;
    let vault = Arc::clone(&opened.vault);
    let store = Store::open_with(&opened.database_url, &opened.pool, vault, Clock::default())?;
    let result = async {
        store.migrate().await?;
        work(&store).await
    }
    .await;
    store.close().await;
    opened.close().await?;
    result
}
