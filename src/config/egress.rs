//! Where SMTP may connect to.

use clap::Args;

use super::{ConfigError, elements};

/// Options of the egress policy.
#[derive(Args, Clone, Debug)]
pub struct EgressOptions {
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
}

/// The egress policy as the operator wrote it, in shape but not yet in meaning. By default public
/// addresses and the ports of SMTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressConfig {
    /// Private networks that SMTP may connect to, as the operator wrote them.
    pub egress_allow: Vec<String>,
    /// Ports that SMTP may connect to: `25` or `1-65535`, in shape but not yet in meaning.
    pub egress_ports: Vec<String>,
    /// Hosts that may be sent a password without TLS.
    pub plaintext_auth_hosts: Vec<String>,
}

impl EgressOptions {
    /// Checks the options; what is wrong with them goes to `errors`.
    pub(super) fn into_config(self, errors: &mut Vec<ConfigError>) -> EgressConfig {
        let Self { egress_allow, egress_ports, plaintext_auth_hosts } = self;
        let config = EgressConfig {
            egress_allow: elements("--egress-allow", &egress_allow, errors),
            egress_ports: elements("--egress-ports", &egress_ports, errors),
            plaintext_auth_hosts: elements("--plaintext-auth-hosts", &plaintext_auth_hosts, errors),
        };
        let ports = &config.egress_ports;
        if ports.is_empty() {
            errors.push(ConfigError::NoPort);
        }
        errors.extend(ports.iter().filter(|range| !is_port_range(range)).cloned().map(ConfigError::Port));
        config
    }
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
