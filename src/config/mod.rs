//! The command line and the environment, checked once and turned into what the program runs by.
//! Known to `cli` and `app` alone; secrets do not show in Debug.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};
use thiserror::Error;

use crate::private_postgres::default_data_dir;
use crate::telemetry::{LogFilter, LogFormat};

/// A stop that takes longer than this is a fault in the configuration.
const STOP_MAX: Duration = Duration::from_hours(1);
/// Longer than any retry schedule that makes sense: a letter is given up after about a week.
const RETRY_FLOOR_MAX: Duration = Duration::from_hours(7 * 24);
/// The name of the key file that private mode makes.
const VAULT_KEYS_FILE: &str = "vault.keys";

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreOptions,

    /// How to log.
    #[command(flatten)]
    pub log: LogOptions,

    /// Address and port of the gRPC service; port 0 takes any
    #[arg(long, env = "POSTROOM_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// Serve plain text on other than loopback addresses
    #[arg(long, env = "POSTROOM_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// PEM file of certificate authorities to trust for SMTP, besides the system's
    #[arg(long, env = "POSTROOM_SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// Private networks that SMTP may connect to, such as 10.0.0.0/8
    #[arg(long, env = "POSTROOM_EGRESS_ALLOW", value_name = "NETWORKS", value_delimiter = ',')]
    pub egress_allow: Vec<String>,

    /// Ports that SMTP may connect to, single or as ranges such as 1-65535
    #[arg(
        long,
        env = "POSTROOM_EGRESS_PORTS",
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "25,465,587,2525"
    )]
    pub egress_ports: Vec<String>,

    /// SMTP servers that may be sent a password without TLS
    #[arg(long, env = "POSTROOM_PLAINTEXT_AUTH_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub plaintext_auth_hosts: Vec<String>,

    /// The shortest time between two tries that a site may configure
    #[arg(long, env = "POSTROOM_RETRY_FLOOR", value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    pub retry_floor: Duration,

    /// The largest letter in MiB after MIME encoding, 1 to 100
    #[arg(long, env = "POSTROOM_MAX_LETTER_MIB", value_name = "MIB", default_value_t = 25, value_parser = value_parser!(u8).range(1..=100))]
    pub max_letter_mib: u8,

    /// How long a stop waits for load balancers before it drains
    #[arg(long, env = "POSTROOM_DRAIN_WAIT", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_wait: Duration,

    /// How long a stop waits for calls and SMTP sessions that run
    #[arg(long, env = "POSTROOM_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,

    /// Whether to serve gRPC reflection
    #[arg(long, env = "POSTROOM_REFLECTION", value_name = "BOOL", default_value = "true", default_missing_value = "true",
        num_args = 0..=1, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub reflection: bool,
}

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

/// Options of every command that logs.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// Form of the log lines
    #[arg(long, env = "POSTROOM_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which log lines to write: a level, or levels by target such as `info,postroom::smtp=debug`
    #[arg(long, env = "POSTROOM_LOG", value_name = "FILTER", default_value = "info")]
    pub log_filter: LogFilter,
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

/// What `serve` runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store and the keys to its secrets.
    pub store: StoreConfig,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: LogFilter,
    /// Where the gRPC service listens.
    pub listen: SocketAddr,
    /// Certificate authorities to trust for SMTP besides the system's, as PEM.
    pub smtp_ca_file: Option<PathBuf>,
    /// Private networks that SMTP may connect to, as the operator wrote them.
    pub egress_allow: Vec<String>,
    /// Ports that SMTP may connect to: `25` or `1-65535`, in shape but not yet in meaning.
    pub egress_ports: Vec<String>,
    /// Hosts that may be sent a password without TLS.
    pub plaintext_auth_hosts: Vec<String>,
    /// The shortest time between two tries that a site may configure.
    pub retry_floor: Duration,
    /// Largest letter in bytes after MIME encoding.
    pub max_letter_bytes: usize,
    /// From the end of readiness to the drain.
    pub drain_wait: Duration,
    /// From the drain to the hard stop.
    pub shutdown_grace: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
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

/// Why the configuration is refused: everything that is wrong with it, one a line.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One thing that is wrong with the configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Plain text would leave the machine.
    #[error(
        "--listen {0} is not a loopback address: keys and letters would travel in plain text; add --insecure if that is meant"
    )]
    PlainText(SocketAddr),
    /// Nowhere to put the private PostgreSQL.
    #[error("there is no folder for data (no home folder): give --data-dir, or --database-url")]
    NoDataDir,
    /// Not a URL of PostgreSQL. It is not repeated, as it may hold a password.
    #[error("--database-url must begin with postgres:// or postgresql://")]
    DatabaseUrl,
    /// Keys made in a local folder would not be there for another replica, or after a move.
    #[error(
        "--database-url needs --vault-keys: a file with lines `<id>:<base64 of 32 bytes>` that all replicas share"
    )]
    NoVaultKeys,
    /// Not a port or range.
    #[error("--egress-ports: `{0}` is neither a port nor a range such as 1-65535")]
    Port(String),
    /// No port at all: nothing could be sent.
    #[error("--egress-ports is empty")]
    NoPort,
    /// A list element with blanks in it is two elements, or a slip.
    #[error("{flag}: `{element}` holds a blank; elements are separated by commas")]
    Blank {
        /// The flag.
        flag: &'static str,
        /// The element.
        element: String,
    },
    /// Longer than makes sense.
    #[error("{flag} is at most {}", humantime::format_duration(*max))]
    TooLong {
        /// The flag.
        flag: &'static str,
        /// The most it may be.
        max: Duration,
    },
}

impl ServeOptions {
    /// Checks the options and turns them into the configuration.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn into_config(self) -> Result<Config, ConfigErrors> {
        let Self {
            store,
            log: LogOptions { log_format, log_filter },
            listen,
            insecure,
            smtp_ca_file,
            egress_allow,
            egress_ports,
            plaintext_auth_hosts,
            retry_floor,
            max_letter_mib,
            drain_wait,
            shutdown_grace,
            reflection,
        } = self;
        let mut errors = Vec::new();
        if !listen.ip().to_canonical().is_loopback() && !insecure {
            errors.push(ConfigError::PlainText(listen));
        }
        let egress_allow = elements("--egress-allow", &egress_allow, &mut errors);
        let egress_ports = elements("--egress-ports", &egress_ports, &mut errors);
        let plaintext_auth_hosts = elements("--plaintext-auth-hosts", &plaintext_auth_hosts, &mut errors);
        if egress_ports.is_empty() {
            errors.push(ConfigError::NoPort);
        }
        errors.extend(
            egress_ports.iter().filter(|range| !is_port_range(range)).cloned().map(ConfigError::Port),
        );
        let limits = [
            ("--retry-floor", retry_floor, RETRY_FLOOR_MAX),
            ("--drain-wait", drain_wait, STOP_MAX),
            ("--shutdown-grace", shutdown_grace, STOP_MAX),
        ];
        for (flag, value, max) in limits {
            if value > max {
                errors.push(ConfigError::TooLong { flag, max });
            }
        }
        let store = match store.into_config() {
            Ok(store) if errors.is_empty() => store,
            Ok(_) => return Err(ConfigErrors(errors)),
            Err(ConfigErrors(of_store)) => {
                errors.extend(of_store);
                return Err(ConfigErrors(errors));
            }
        };
        Ok(Config {
            store,
            log_format,
            log_filter,
            listen,
            smtp_ca_file,
            egress_allow,
            egress_ports,
            plaintext_auth_hosts,
            retry_floor,
            max_letter_bytes: usize::from(max_letter_mib) * 1024 * 1024,
            drain_wait,
            shutdown_grace,
            reflection,
        })
    }
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

/// The elements of a list without blanks around them; empty ones fall away, as an empty variable has one.
fn elements(flag: &'static str, list: &[String], errors: &mut Vec<ConfigError>) -> Vec<String> {
    let elements: Vec<String> =
        list.iter().map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect();
    let blank = elements.iter().filter(|element| element.contains(char::is_whitespace));
    errors.extend(blank.map(|element| ConfigError::Blank { flag, element: element.clone() }));
    elements
}

/// `25`, or `1-65535` with the smaller one first.
fn is_port_range(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        None => port(text).is_some(),
        Some((first, last)) => {
            matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last)
        }
    }
}

#[cfg(test)]
mod tests;
