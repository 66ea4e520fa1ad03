//! Where and how the gRPC service listens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};

use super::ConfigError;

/// Connections that end sooner are more work than the calls on them.
const AGE_MIN: Duration = Duration::from_mins(1);
/// Longer than any process runs unchanged.
const AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// Options of the listener.
#[derive(Args, Clone, Debug)]
pub struct ListenOptions {
    /// Address and port of the gRPC service; port 0 takes any
    #[arg(long, env = "POSTROOM_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// Serve plain text on other than loopback addresses
    #[arg(long, env = "POSTROOM_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// PEM file of the server's certificate and those between it and its authority; serves TLS
    #[arg(long, env = "POSTROOM_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key
    #[arg(long, env = "POSTROOM_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// PEM file of the authorities whose certificates clients must present (mutual TLS)
    #[arg(long, env = "POSTROOM_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Connections at once; further ones are closed at once
    #[arg(long, env = "POSTROOM_MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 4096, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Calls in flight at once that are answered by one message; further ones are refused at once
    #[arg(long, env = "POSTROOM_MAX_CONCURRENT_CALLS", value_name = "NUMBER", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=100_000))]
    pub max_concurrent_calls: u32,

    /// Streams open at once, such as tails of logs; further ones are refused at once
    #[arg(long, env = "POSTROOM_MAX_CONCURRENT_STREAMS", value_name = "NUMBER", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=100_000))]
    pub max_concurrent_streams: u32,

    /// After this time, give or take a tenth, a connection takes no further calls
    #[arg(long, env = "POSTROOM_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub max_connection_age: Duration,

    /// Address and port where Prometheus finds metrics, over plain text and without a key [default: none]
    #[arg(long, env = "POSTROOM_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
}

/// The files of TLS, in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients, which then must present a certificate.
    pub client_ca: Option<PathBuf>,
}

/// Where and how the gRPC service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// TLS; plain text without.
    pub tls: Option<TlsFiles>,
    /// Connections at once.
    pub max_connections: usize,
    /// Calls in flight at once that are answered by one message.
    pub max_concurrent_calls: usize,
    /// Streams open at once.
    pub max_concurrent_streams: usize,
    /// From here on a connection takes no further calls.
    pub max_connection_age: Duration,
    /// Where metrics are served; nowhere without.
    pub metrics: Option<SocketAddr>,
}

impl ListenOptions {
    /// Checks the options; what is wrong with them goes to `errors`.
    pub(super) fn into_config(self, errors: &mut Vec<ConfigError>) -> ListenConfig {
        let Self {
            listen,
            insecure,
            tls_cert,
            tls_key,
            tls_client_ca,
            max_connections,
            max_concurrent_calls,
            max_concurrent_streams,
            max_connection_age,
            metrics_listen,
        } = self;
        let flag = "--max-connection-age";
        if max_connection_age < AGE_MIN {
            errors.push(ConfigError::TooShort { flag, min: AGE_MIN });
        }
        if max_connection_age > AGE_MAX {
            errors.push(ConfigError::TooLong { flag, max: AGE_MAX });
        }
        let incomplete = |given, missing| ConfigError::Incomplete { given, missing };
        let tls = match (tls_cert, tls_key, tls_client_ca) {
            (Some(cert), Some(key), client_ca) => Some(TlsFiles { cert, key, client_ca }),
            (None, None, None) => {
                if !listen.ip().to_canonical().is_loopback() && !insecure {
                    errors.push(ConfigError::PlainText(listen));
                }
                None
            }
            (Some(_), None, _) => {
                errors.push(incomplete("--tls-cert", "--tls-key"));
                None
            }
            (None, Some(_), _) => {
                errors.push(incomplete("--tls-key", "--tls-cert"));
                None
            }
            (None, None, Some(_)) => {
                errors.push(incomplete("--tls-client-ca", "--tls-cert and --tls-key"));
                None
            }
        };
        ListenConfig {
            listen,
            tls,
            max_connections: number(max_connections),
            max_concurrent_calls: number(max_concurrent_calls),
            max_concurrent_streams: number(max_concurrent_streams),
            max_connection_age,
            metrics: metrics_listen,
        }
    }
}

/// Numbers of options fit where usize has 32 bits.
fn number(option: u32) -> usize {
    usize::try_from(option).unwrap_or(usize::MAX)
}
