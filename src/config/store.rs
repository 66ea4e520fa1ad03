//! Where the store is, and the keys to its secrets.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, value_parser};
use zeroize::Zeroizing;

use super::{ConfigError, ConfigErrors};
use crate::private_postgres::default_data_dir;

/// The name of the key file that private mode makes.
const VAULT_KEYS_FILE: &str = "vault.keys";

/// The environment variable that holds the vault's keys themselves. It has no flag: everybody on the machine can read
/// what stands on a command line.
pub const KEY_DATA: &str = "POSTROOM_VAULT_KEY_DATA";
/// What a wait for the database may be: a caller waits no longer for anything.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_mins(1)];
/// What a statement, or its wait for a lock, may be given: less breaks ordinary work, more is no limit.
const STATEMENTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(10)];

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

    /// How much of the database may be taken.
    #[command(flatten)]
    pub pool: PoolOptions,
}

/// How much of the database's connections and time a server takes.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Connections to the database for calls, at most, 2 to 200
    #[arg(long, env = "POSTROOM_DB_CONNECTIONS", value_name = "NUMBER", default_value_t = 12, value_parser = value_parser!(u32).range(2..=200))]
    pub db_connections: u32,

    /// Connections to the database for delivery, at most, 1 to 200
    #[arg(long, env = "POSTROOM_DB_DELIVERY_CONNECTIONS", value_name = "NUMBER", default_value_t = 8, value_parser = value_parser!(u32).range(1..=200))]
    pub db_delivery_connections: u32,

    /// How long a call waits for a connection to the database before it is refused
    #[arg(long, env = "POSTROOM_DB_ACQUIRE_TIMEOUT", value_name = "DURATION", default_value = "1500ms", value_parser = humantime::parse_duration)]
    pub db_acquire_timeout: Duration,

    /// How long a statement may take
    #[arg(long, env = "POSTROOM_DB_STATEMENT_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    pub db_statement_timeout: Duration,

    /// How long a statement may wait for a lock
    #[arg(long, env = "POSTROOM_DB_LOCK_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub db_lock_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            db_connections: 12,
            db_delivery_connections: 8,
            db_acquire_timeout: Duration::from_millis(1_500),
            db_statement_timeout: Duration::from_secs(20),
            db_lock_timeout: Duration::from_secs(5),
        }
    }
}

impl PoolOptions {
    fn check(&self, errors: &mut Vec<ConfigError>) {
        let Self {
            db_connections: _,
            db_delivery_connections: _,
            db_acquire_timeout,
            db_statement_timeout,
            db_lock_timeout,
        } = self;
        let limits = [
            ("--db-acquire-timeout", db_acquire_timeout, WAITS),
            ("--db-statement-timeout", db_statement_timeout, STATEMENTS),
            ("--db-lock-timeout", db_lock_timeout, STATEMENTS),
        ];
        for (flag, value, [min, max]) in limits {
            if *value < min || *value > max {
                errors.push(ConfigError::OutOfRange { flag, min, max });
            }
        }
        if db_lock_timeout > db_statement_timeout {
            errors.push(ConfigError::LockTimeout);
        }
    }
}

/// Keys of the vault: not shown in Debug, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyData(Zeroizing<Vec<u8>>);

impl KeyData {
    /// The keys themselves. Never log them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyData(hidden)")
    }
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
    /// The vault's keys.
    pub vault_keys: VaultKeys,
    /// How much of the database may be taken.
    pub pool: PoolOptions,
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

/// Where the vault's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultKeys {
    /// In a file of the operator's: it must exist.
    Given(PathBuf),
    /// In a file of private mode: made on the first start.
    Made(PathBuf),
    /// In the environment.
    Environment(KeyData),
}

impl StoreOptions {
    /// Checks the options and turns them, with the keys of the environment, into the configuration.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn into_config(self) -> Result<StoreConfig, ConfigErrors> {
        self.with_key_data(env::var_os(KEY_DATA))
    }

    pub(super) fn with_key_data(self, key_data: Option<OsString>) -> Result<StoreConfig, ConfigErrors> {
        let Self { data_dir, database_url, vault_keys, pool } = self;
        let mut errors = Vec::new();
        pool.check(&mut errors);
        // An empty variable is how deployments say "none".
        let key_data = key_data.filter(|data| !data.is_empty());
        let key_data = key_data.map(|data| KeyData(Zeroizing::new(data.into_vec())));
        let given = match (vault_keys, key_data) {
            (Some(_), Some(_)) => {
                errors.push(ConfigError::TwoVaultKeys);
                None
            }
            (Some(path), None) => Some(VaultKeys::Given(path)),
            (None, Some(data)) => Some(VaultKeys::Environment(data)),
            (None, None) => None,
        };
        let (database, vault_keys) = if let Some(url) = database_url {
            if !["postgres://", "postgresql://"].iter().any(|scheme| url.0.starts_with(scheme)) {
                errors.push(ConfigError::DatabaseUrl);
            }
            if given.is_none() && !errors.contains(&ConfigError::TwoVaultKeys) {
                errors.push(ConfigError::NoVaultKeys);
            }
            (Some(Database::Server { url }), given)
        } else if let Some(data_dir) = data_dir.or_else(default_data_dir) {
            let made = || VaultKeys::Made(data_dir.join(VAULT_KEYS_FILE));
            let vault_keys = given.unwrap_or_else(made);
            (Some(Database::Private { data_dir }), Some(vault_keys))
        } else {
            errors.push(ConfigError::NoDataDir);
            (None, None)
        };
        match database.zip(vault_keys) {
            Some((database, vault_keys)) if errors.is_empty() => {
                Ok(StoreConfig { database, vault_keys, pool })
            }
            _ => Err(ConfigErrors(errors)),
        }
    }
}
