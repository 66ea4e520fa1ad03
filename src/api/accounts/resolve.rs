//! `ResolveAccount`: the choice of account, explained.

use crate::api::fields::{self, Violations};
use crate::api::proto::candidate::Reason as ProtoReason;
use crate::api::proto::{
    Candidate as ProtoCandidate, ResolveAccountRequest, ResolveAccountResponse, Rule as ProtoRule,
};
use crate::api::{Api, mailbox};
use crate::domain::account::account_name;
use crate::domain::address::Mailbox;
use crate::domain::error::Problem;
use crate::domain::routing::{self, Letter, Rule, Unchosen};
use crate::domain::site::SiteId;
use crate::store::candidates::{self, Owners};

/// What a request asks about.
pub(super) struct Asked {
    from: Mailbox,
    user: String,
    mailing: bool,
    show_all: bool,
}

/// Parses a request.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn parse(request: ResolveAccountRequest) -> Result<Asked, Problem> {
    let ResolveAccountRequest { parent: _, from_address, user, mailing, show_all } = request;
    let mut violations = Violations::default();
    let from = violations.take("from_address", mailbox::parse(&from_address));
    let user = violations.take("user", fields::user(user));
    let (from, user) = violations.finish_with(from.zip(user))?;
    Ok(Asked { from, user, mailing, show_all })
}

/// Which account a letter of this From would go through, and why.
pub(super) async fn resolve(
    api: &Api,
    site: &SiteId,
    asked: Asked,
) -> Result<ResolveAccountResponse, Problem> {
    let Asked { from, user, mailing, show_all } = asked;
    let settings = api.settings_of(site).await?;
    let owners = if show_all { Owners::All } else { Owners::UsableBy(&user) };
    let candidates = candidates::list(&api.store, site, &from.address.key(), owners).await?;
    let letter = Letter { from_name: from.name.as_deref(), user: &user, mailing, requested: None };
    let priority = settings.account_priority;
    let chosen = routing::choose(&letter, priority, &candidates);
    let verdicts = routing::explain(&letter, priority, &candidates);
    let explained = candidates.iter().zip(verdicts).map(|(candidate, verdict)| ProtoCandidate {
        account: account_name(site, candidate.account),
        chosen: verdict.is_ok(),
        rule: verdict.map_or(ProtoRule::Unspecified, rule).into(),
        reason: verdict.map_or_else(reason, |_| ProtoReason::Unspecified).into(),
    });
    Ok(ResolveAccountResponse {
        account: chosen.map(|(account, _)| account_name(site, account)).unwrap_or_default(),
        rule: chosen.map_or(ProtoRule::Unspecified, |(_, decided)| rule(decided)).into(),
        candidates: explained.collect(),
    })
}

const fn rule(rule: Rule) -> ProtoRule {
    match rule {
        Rule::MailingNameAndAddress => ProtoRule::MailingNameAndAddress,
        Rule::MailingAddress => ProtoRule::MailingAddress,
        Rule::NameAndAddress => ProtoRule::NameAndAddress,
        Rule::Address => ProtoRule::Address,
        Rule::Requested => ProtoRule::Requested,
    }
}

const fn reason(reason: Unchosen) -> ProtoReason {
    match reason {
        Unchosen::Inactive => ProtoReason::Inactive,
        Unchosen::OfAnotherUser => ProtoReason::OfAnotherUser,
        Unchosen::NotForMailings => ProtoReason::NotForMailings,
        Unchosen::ClassSearchedLater => ProtoReason::ClassSearchedLater,
        // Another one is requested only by a letter, and this is none.
        Unchosen::LaterRule | Unchosen::AnotherRequested => ProtoReason::LaterRule,
        Unchosen::LowerId => ProtoReason::LowerId,
    }
}
