//! `ListProviders`: the table of mail providers as it is answered.

use super::{convert, profile};
use crate::api::proto::Provider as ProtoProvider;
use crate::api::proto::provider::UsernameForm as ProtoForm;
use crate::domain::error::Problem;
use crate::domain::providers::{self, Provider, UsernameForm};

/// All providers, or that of one address.
pub(super) fn list(email: &str) -> Result<Vec<ProtoProvider>, Problem> {
    if email.is_empty() {
        return Ok(providers::all().iter().map(provider).collect());
    }
    let address = profile::parse_filter_address(email);
    let address = address.map_err(|error| Problem::invalid_field("email", error.to_string()))?;
    Ok(providers::of_domain(address.domain()).map(provider).into_iter().collect())
}

fn provider(provider: &Provider) -> ProtoProvider {
    let server = provider.server();
    ProtoProvider {
        name: provider.name().to_owned(),
        domains: provider.domains().to_vec(),
        host: server.host.clone(),
        port: u32::from(server.port),
        security: convert::security(server.security).into(),
        username_form: match provider.username_form() {
            UsernameForm::Address => ProtoForm::Address,
            UsernameForm::LocalPart => ProtoForm::LocalPart,
            UsernameForm::Other => ProtoForm::Other,
        }
        .into(),
        files_sent_copies: provider.files_sent_copies(),
        limits: provider.limits().to_owned(),
        advice: provider.advice().to_owned(),
    }
}
