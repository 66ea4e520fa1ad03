//! Where SMTP may connect to.

use std::fmt;
use std::str::FromStr;

use clap::Args;

use super::{ConfigError, elements};
use crate::smtp::egress::Policy;

/// Options of the egress policy.
#[derive(Args, Clone, Debug)]
pub struct EgressOptions {
    /// Networks that SMTP may connect to besides the public ones, such as 10.0.0.0/8
    #[arg(long, env = "POSTROOM_EGRESS_ALLOW", value_name = "NETWORKS", value_delimiter = ',')]
    pub egress_allow: Vec<String>,

    /// Networks that SMTP may not connect to, also where they are public or allowed
    #[arg(long, env = "POSTROOM_EGRESS_DENY", value_name = "NETWORKS", value_delimiter = ',')]
    pub egress_deny: Vec<String>,

    /// Ports that SMTP may connect to, single or as ranges such as 1-65535
    #[arg(
        long,
        env = "POSTROOM_EGRESS_PORTS",
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "25,465,587,2525"
    )]
    pub egress_ports: Vec<String>,

    /// The only hosts that accounts may name, such as mail.example.com or *.example.com
    #[arg(long, env = "POSTROOM_EGRESS_ALLOW_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub egress_allow_hosts: Vec<String>,

    /// Hosts that accounts may not name, also where they are among the only ones
    #[arg(long, env = "POSTROOM_EGRESS_DENY_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub egress_deny_hosts: Vec<String>,

    /// SMTP servers that may be sent a password without TLS
    #[arg(long, env = "POSTROOM_PLAINTEXT_AUTH_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub plaintext_auth_hosts: Vec<String>,
}

/// Where SMTP may connect to, and what it may say there. By default public addresses and the ports of SMTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressConfig {
    /// Where connections may go.
    pub policy: Policy,
    /// Hosts that may be sent a password without TLS.
    pub plaintext_auth_hosts: Vec<String>,
}

impl EgressOptions {
    /// Checks the options; what is wrong with them goes to `errors`.
    pub(super) fn into_config(self, errors: &mut Vec<ConfigError>) -> EgressConfig {
        let Self {
            egress_allow,
            egress_deny,
            egress_ports,
            egress_allow_hosts,
            egress_deny_hosts,
            plaintext_auth_hosts,
        } = self;
        let before = errors.len();
        let policy = Policy {
            allow: parsed("--egress-allow", &egress_allow, errors),
            deny: parsed("--egress-deny", &egress_deny, errors),
            ports: parsed("--egress-ports", &egress_ports, errors),
            allow_hosts: parsed("--egress-allow-hosts", &egress_allow_hosts, errors),
            deny_hosts: parsed("--egress-deny-hosts", &egress_deny_hosts, errors),
        };
        if policy.ports.is_empty() && errors.len() == before {
            errors.push(ConfigError::NoPort);
        }
        let plaintext_auth_hosts = elements("--plaintext-auth-hosts", &plaintext_auth_hosts, errors);
        EgressConfig { policy, plaintext_auth_hosts }
    }
}

/// The elements of a list that can be read; each of the others is an error.
fn parsed<T>(flag: &'static str, list: &[String], errors: &mut Vec<ConfigError>) -> Vec<T>
where
    T: FromStr<Err: fmt::Display>,
{
    let mut read = Vec::new();
    for element in list.iter().map(|element| element.trim()).filter(|element| !element.is_empty()) {
        match element.parse() {
            Ok(element) => read.push(element),
            Err(error) => errors.push(ConfigError::Element { flag, error: format!("{error}") }),
        }
    }
    read
}
