//! What a test decides about its server.

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use postroom::api::CheckLimits;
use postroom::app::AppOptions;
use postroom::config::EgressConfig;
use postroom::domain::settings::EffectiveSettings;
use postroom::smtp::egress::Policy;
use postroom::smtp::{Floors, Names};
use postroom::store::PoolLimits;
use postroom::transport::TransportOptions;
use postroom::vault::Vault;

use crate::cluster::patient;

/// What a test decides about its server.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Checks a minute; more than any test needs where none are given.
    pub(crate) check_limits: Option<CheckLimits>,
    /// CA file of the SMTP servers that the test runs.
    pub(crate) ca_file: Option<PathBuf>,
    /// Networks and hosts that accounts may not reach, and the only hosts they may.
    pub(crate) egress_deny: &'static str,
    pub(crate) egress_deny_hosts: &'static str,
    pub(crate) egress_allow_hosts: &'static str,
    /// Who knows the addresses of mail servers.
    pub(crate) smtp_names: Names,
    /// What mail servers always get of time.
    pub(crate) smtp_floors: Floors,
    /// Smallest retry interval.
    pub(crate) retry_floor: Duration,
    /// What counts for sites that set nothing.
    pub(crate) settings_defaults: EffectiveSettings,
    /// Networks that accounts may reach besides public ones; the loopback unless named.
    pub(crate) egress_allow: Option<&'static str>,
    /// Ports that accounts may reach; all unless named.
    pub(crate) egress_ports: Option<&'static str>,
    /// Largest letter in bytes; 40 MiB unless named.
    pub(crate) max_letter_bytes: Option<usize>,
    /// A database of the test's own, migrated; one of the shared cluster unless named.
    pub(crate) database_url: Option<String>,
    /// Connections of clients.
    pub(crate) transport: TransportOptions,
    /// Whether metrics are served.
    pub(crate) metrics: bool,
    /// How much of the database may be taken; with patience unless named.
    pub(crate) pool: Option<PoolLimits>,
}

impl Options {
    /// The server's options.
    pub(crate) fn for_server(&self, database_url: &str, vault: &Arc<Vault>) -> AppOptions {
        AppOptions {
            pool: self.pool.clone().unwrap_or_else(patient),
            smtp_ca_file: self.ca_file.clone(),
            egress: EgressConfig {
                policy: self.policy(),
                plaintext_auth_hosts: vec!["127.0.0.1".to_owned()],
            },
            smtp_names: self.smtp_names.clone(),
            smtp_floors: self.smtp_floors,
            retry_floor: self.retry_floor,
            settings_defaults: self.settings_defaults.clone(),
            max_letter_bytes: self.max_letter_bytes.unwrap_or(40 * 1024 * 1024),
            check_limits: self.check_limits.unwrap_or(CheckLimits { per_site: 10_000, per_host: 10_000 }),
            transport: self.transport.clone(),
            ..AppOptions::new(database_url.to_owned(), Arc::clone(vault))
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            allow: list(self.egress_allow.unwrap_or("127.0.0.0/8")),
            deny: list(self.egress_deny),
            ports: list(self.egress_ports.unwrap_or("1-65535")),
            allow_hosts: list(self.egress_allow_hosts),
            deny_hosts: list(self.egress_deny_hosts),
        }
    }
}

/// A list as an operator writes it.
fn list<T: FromStr<Err: Debug>>(text: &str) -> Vec<T> {
    text.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().expect("an element")).collect()
}
