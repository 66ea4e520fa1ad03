//! Where and how the gRPC service listens.

use std::net::SocketAddr;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::ConfigError;

/// Options of the listener.
#[derive(Args, Clone, Debug)]
pub struct ListenOptions {
    /// Address and port of the gRPC service; port 0 takes any
    #[arg(long, env = "POSTROOM_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// Serve plain text on other than loopback addresses
    #[arg(long, env = "POSTROOM_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,
}

/// Where and how the gRPC service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Address and port.
    pub listen: SocketAddr,
}

impl ListenOptions {
    /// Checks the options; what is wrong with them goes to `errors`.
    pub(super) fn into_config(self, errors: &mut Vec<ConfigError>) -> ListenConfig {
        let Self { listen, insecure } = self;
        if !listen.ip().to_canonical().is_loopback() && !insecure {
            errors.push(ConfigError::PlainText(listen));
        }
        ListenConfig { listen }
    }
}
