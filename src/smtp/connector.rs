//! What all sessions of a process share: trusted roots, the egress policy, the name we greet with.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use super::connect::demand_allowed;
use super::connector_error::ConnectorError;
use super::deadlines::Floors;
use super::egress::Policy;
use super::failure::Failure;
use super::names::{LookUps, Names};
use crate::domain::account::{Auth, Server};
use crate::domain::clock::Clock;
use crate::metrics::Metrics;

/// Longest name in EHLO, in bytes (RFC 5321 4.5.3.1.2).
const MAX_HELO_BYTES: usize = 255;

/// Where a session goes and how it logs in.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub server: Server,
    /// The login.
    pub auth: Auth,
}

/// What a [`Connector`] is made of.
#[derive(Clone, Debug)]
pub struct ConnectorOptions {
    /// PEM file of issuers the operator trusts besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Where connections may go.
    pub egress: Policy,
    /// Who knows the addresses of names: the system, but in tests.
    pub names: Names,
    /// Hosts to which a password may be sent without TLS.
    pub plaintext_auth_hosts: Vec<String>,
    /// The name in EHLO: a domain or an address literal such as `[192.0.2.1]`.
    pub helo_name: String,
    /// The process's clock.
    pub clock: Clock,
    /// What servers always get of time.
    pub floors: Floors,
}

/// Opens sessions. One per process, shared in an `Arc`.
#[derive(Debug)]
pub struct Connector {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) egress: Policy,
    pub(super) look_ups: LookUps,
    pub(super) helo_name: String,
    plaintext_auth_hosts: Vec<String>,
    clock: Clock,
    pub(super) floors: Floors,
    pub(super) metrics: Arc<Metrics>,
}

impl Connector {
    /// Loads the trusted roots and checks the options.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(options: ConnectorOptions) -> Result<Self, ConnectorError> {
        let ConnectorOptions { ca_file, egress, names, plaintext_auth_hosts, helo_name, clock, floors } =
            options;
        if helo_name.is_empty()
            || helo_name.len() > MAX_HELO_BYTES
            || !helo_name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(ConnectorError::HeloName(helo_name.escape_default().to_string()));
        }
        let plaintext_auth_hosts = plaintext_auth_hosts.iter().map(|host| plain_host(host)).collect();
        let tls = super::tls::client_config(ca_file.as_deref())?;
        Ok(Self {
            tls,
            egress,
            look_ups: LookUps::new(names),
            helo_name,
            plaintext_auth_hosts,
            clock,
            floors,
            metrics: Metrics::new(),
        })
    }

    /// The same, whose sessions are counted there.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Refuses a server that the policy forbids by port, name or literal address, without a look-up. Where a name
    /// leads is judged at every connection.
    ///
    /// # Errors
    /// As a session to it would fail.
    pub fn demand_allowed(&self, server: &Server) -> Result<(), Failure> {
        demand_allowed(&self.egress, server)
    }

    /// The clock that entries of transcripts are stamped by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether a password may go to this host without TLS.
    pub(super) fn allows_plaintext_auth(&self, host: &str) -> bool {
        self.plaintext_auth_hosts.contains(&plain_host(host))
    }
}

/// Hosts are compared without case, closing dot and brackets.
fn plain_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}
