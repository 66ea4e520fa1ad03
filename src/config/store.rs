//! Where the store is, and the keys to its secrets.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::{ConfigError, ConfigErrors};
use crate::private_postgres::default_data_dir;

/// The name of the key file that private mode makes.
const VAULT_KEYS_FILE: &str = "vault.keys";

/// Options of every command that works on the store.
#[derive(Args, Clone, Debug)]
pub struct StoreOptions {
    /// Folder of the private PostgreSQL and its key file [default: the platform's data folder]
    #[arg(long, env = "POSTROOM_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// PostgreSQL server to use instead of a private one
    #[arg(long, env = "POSTROOM_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,

    /// File with the vault's keys [default: made in the data folder, unless --database-url is given]
    #[arg(long, env = "POSTROOM_VAULT_KEYS", value_name = "FILE")]
    pub vault_keys: Option<PathBuf>,
}

/// The URL of a database, which may hold a password: not shown in Debug, checked only where an error does not
/// repeat it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(hidden)")
    }
}

/// The store and the keys to its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database.
    pub database: Database,
    /// The vault's key file.
    pub vault_keys: VaultKeys,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A private PostgreSQL in this folder.
    Private {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// A server of the operator's.
    Server {
        /// Where it is.
        url: DatabaseUrl,
    },
}

/// The vault's key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultKeys {
    /// The operator's own: it must exist.
    Given(PathBuf),
    /// Of private mode: made on the first start.
    Made(PathBuf),
}

impl StoreOptions {
    /// Checks the options and turns them into the configuration.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn into_config(self) -> Result<StoreConfig, ConfigErrors> {
        let Self { data_dir, database_url, vault_keys } = self;
        let Some(url) = database_url else {
            let data_dir = data_dir
                .or_else(default_data_dir)
                .ok_or_else(|| ConfigErrors(vec![ConfigError::NoDataDir]))?;
            let made = || VaultKeys::Made(data_dir.join(VAULT_KEYS_FILE));
            let vault_keys = vault_keys.map_or_else(made, VaultKeys::Given);
            return Ok(StoreConfig { database: Database::Private { data_dir }, vault_keys });
        };
        let mut errors = Vec::new();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.0.starts_with(scheme)) {
            errors.push(ConfigError::DatabaseUrl);
        }
        match vault_keys {
            Some(path) if errors.is_empty() => {
                Ok(StoreConfig { database: Database::Server { url }, vault_keys: VaultKeys::Given(path) })
            }
            Some(_) => Err(ConfigErrors(errors)),
            None => {
                errors.push(ConfigError::NoVaultKeys);
                Err(ConfigErrors(errors))
            }
        }
    }
}
