//! The command line and the environment, checked once and turned into what the program runs by.
//! Known to `cli` and `app` alone; secrets do not show in Debug.

mod egress;
mod listening;
mod site_defaults;
mod store;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};
use thiserror::Error;

pub use self::egress::{EgressConfig, EgressOptions};
pub use self::listening::{ListenConfig, ListenOptions, TlsFiles};
pub use self::site_defaults::SiteDefaultsOptions;
pub use self::store::{
    Database, DatabaseUrl, KEY_DATA, KeyData, PoolOptions, StoreConfig, StoreOptions, VaultKeys,
};
use crate::domain::settings::EffectiveSettings;
use crate::telemetry::{LogFilter, LogFormat};

/// A stop that takes longer than this is a fault in the configuration.
const STOP_MAX: Duration = Duration::from_hours(1);
/// Longer than any retry schedule that makes sense: a letter is given up after about a week.
const RETRY_FLOOR_MAX: Duration = Duration::from_hours(7 * 24);

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreOptions,

    /// How to log.
    #[command(flatten)]
    pub log: LogOptions,

    /// Where and how to listen.
    #[command(flatten)]
    pub listening: ListenOptions,

    /// PEM file of certificate authorities to trust for SMTP, besides the system's
    #[arg(long, env = "POSTROOM_SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// Where SMTP may connect to.
    #[command(flatten)]
    pub egress: EgressOptions,

    /// The shortest time between two tries that a site may configure
    #[arg(long, env = "POSTROOM_RETRY_FLOOR", value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    pub retry_floor: Duration,

    /// What counts for sites that set nothing.
    #[command(flatten)]
    pub site_defaults: SiteDefaultsOptions,

    /// The largest letter in MiB after MIME encoding, 1 to 100
    #[arg(long, env = "POSTROOM_MAX_LETTER_MIB", value_name = "MIB", default_value_t = 25, value_parser = value_parser!(u8).range(1..=100))]
    pub max_letter_mib: u8,

    /// Calls a second that a key may make at this server, unless it was made with a limit of its own
    #[arg(long, env = "POSTROOM_CALLS_PER_KEY", value_name = "CALLS", default_value = "20000")]
    pub calls_per_key: NonZeroU32,

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

/// What `serve` runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store and the keys to its secrets.
    pub store: StoreConfig,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: LogFilter,
    /// Where and how the gRPC service listens.
    pub listening: ListenConfig,
    /// Certificate authorities to trust for SMTP besides the system's, as PEM.
    pub smtp_ca_file: Option<PathBuf>,
    /// Where SMTP may connect to.
    pub egress: EgressConfig,
    /// The shortest time between two tries that a site may configure.
    pub retry_floor: Duration,
    /// What counts for sites that set nothing.
    pub settings_defaults: EffectiveSettings,
    /// Largest letter in bytes after MIME encoding.
    pub max_letter_bytes: usize,
    /// Calls a second of a key that sets no limit of its own.
    pub calls_per_key: NonZeroU32,
    /// From the end of readiness to the drain.
    pub drain_wait: Duration,
    /// From the drain to the hard stop.
    pub shutdown_grace: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
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
        "--listen {0} is not a loopback address: keys and letters would travel in plain text; give --tls-cert and --tls-key, or add --insecure if that is meant"
    )]
    PlainText(SocketAddr),
    /// One file of TLS without another.
    #[error("{given} needs {missing}")]
    Incomplete {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Nowhere to put the private PostgreSQL.
    #[error("there is no folder for data (no home folder): give --data-dir, or --database-url")]
    NoDataDir,
    /// Not a URL of PostgreSQL. It is not repeated, as it may hold a password.
    #[error("--database-url must begin with postgres:// or postgresql://")]
    DatabaseUrl,
    /// Keys made in a local folder would not be there for another replica, or after a move.
    #[error(
        "--database-url needs --vault-keys: a file with lines `<id>:<base64 of 32 bytes>` that all replicas share; or {KEY_DATA} with such keys"
    )]
    NoVaultKeys,
    /// Which of them would count nobody could tell.
    #[error("there are both --vault-keys and {KEY_DATA}: give one of them")]
    TwoVaultKeys,
    /// A list element that is not what the list is of.
    #[error("{flag}: {error}")]
    Element {
        /// The flag.
        flag: &'static str,
        /// What is wrong, with the element.
        error: String,
    },
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
    /// Shorter than makes sense.
    #[error("{flag} is at least {}", humantime::format_duration(*min))]
    TooShort {
        /// The flag.
        flag: &'static str,
        /// The least it may be.
        min: Duration,
    },
    /// A wait for a lock that its statement does not live to see.
    #[error("--db-lock-timeout is at most --db-statement-timeout")]
    LockTimeout,
    /// Shorter or longer than makes sense.
    #[error("{flag} is {} to {}", humantime::format_duration(*min), humantime::format_duration(*max))]
    OutOfRange {
        /// The flag.
        flag: &'static str,
        /// The least it may be.
        min: Duration,
        /// The most it may be.
        max: Duration,
    },
    /// A file of settings that cannot be used.
    #[error("--settings-defaults {}: {problem}", path.display())]
    SettingsDefaults {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
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
            listening,
            smtp_ca_file,
            egress,
            retry_floor,
            site_defaults,
            max_letter_mib,
            calls_per_key,
            drain_wait,
            shutdown_grace,
            reflection,
        } = self;
        let mut errors = Vec::new();
        let listening = listening.into_config(&mut errors);
        let egress = egress.into_config(&mut errors);
        let settings_defaults = site_defaults.into_config(retry_floor, &mut errors);
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
            listening,
            smtp_ca_file,
            egress,
            retry_floor,
            settings_defaults,
            max_letter_bytes: usize::from(max_letter_mib) * 1024 * 1024,
            calls_per_key,
            drain_wait,
            shutdown_grace,
            reflection,
        })
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

#[cfg(test)]
mod tests;
