//! Creating and changing accounts: proven first, then saved.

use prost::Message;

use super::profile::{self, Wanted};
use super::{convert, find, prove};
use crate::api::Api;
use crate::api::fields::{self, Violations};
use crate::api::proto::{Account as ProtoAccount, CreateAccountRequest, UpdateAccountRequest};
use crate::domain::account::{Account, CheckState};
use crate::domain::error::{Problem, Reason};
use crate::domain::site::SiteId;
use crate::store::accounts::{self, Created, NewAccount};
use crate::store::checks::CheckChange;
use crate::store::passwords;

/// What the MAC over a request's content is made for.
const REQUEST_MAC: &str = "CreateAccount request";

/// Proves and saves a new account.
pub(super) async fn create(
    api: &Api,
    site: &SiteId,
    request: CreateAccountRequest,
) -> Result<ProtoAccount, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let CreateAccountRequest { parent: _, account, request_id, validate_only } = request;
    let mut violations = Violations::default();
    let request_id = violations.take("request_id", fields::request_id(&request_id)).flatten();
    let account = account.ok_or_else(|| Problem::invalid_field("account", "must be set"));
    let account = violations.take_parsed(account);
    let mac =
        account.as_ref().map(|account| api.store.vault().content_mac(REQUEST_MAC, &account.encode_to_vec()));
    let wanted = account.and_then(|account| violations.take_parsed(profile::parse_new(account)));
    let (Some(Wanted { profile, password }), Some(mac)) = (wanted, mac) else {
        return Err(violations.problem());
    };
    violations.finish()?;
    if let Some(id) = request_id
        && let Some((account, known)) = accounts::find_by_request(&api.store, site, id).await?
    {
        return first_result(api, site, account, &known, &mac).await;
    }
    let check = if profile.active {
        let auth = prove::auth_of(&profile.login, password.as_ref(), None);
        let report = prove::climb(api, site, &settings, &profile, auth, 0).await?;
        Some(prove::demand(&report)?)
    } else {
        None
    };
    if validate_only {
        return Ok(ProtoAccount { check: check.as_ref().map(convert::check), ..convert::profile(&profile) });
    }
    let id = accounts::next_id(&api.store, site).await?;
    let id = id.ok_or_else(|| Problem::not_found(site.name()))?;
    let new = NewAccount {
        site,
        id,
        profile: &profile,
        password: password.as_ref(),
        request: request_id.map(|id| (id, mac.as_slice())),
        check: check.as_ref(),
    };
    match accounts::create(&api.store, &new).await? {
        Created::Saved => Ok(convert::account(&find(&api.store, site, id).await?)),
        Created::RequestKnown { account, mac: known } => first_result(api, site, account, &known, &mac).await,
    }
}

/// The account that an earlier call with the same request id created, if its content was the same.
async fn first_result(
    api: &Api,
    site: &SiteId,
    account: i64,
    known: &[u8],
    mac: &[u8],
) -> Result<ProtoAccount, Problem> {
    if known != mac {
        let text = "this request_id was used before, for another account";
        return Err(Problem::new(Reason::RequestIdReused, text));
    }
    Ok(convert::account(&find(&api.store, site, account).await?))
}

/// Proves and saves a change of an account.
pub(super) async fn update(
    api: &Api,
    site: &SiteId,
    id: i64,
    request: UpdateAccountRequest,
) -> Result<ProtoAccount, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let UpdateAccountRequest { account, update_mask, validate_only } = request;
    let change = account.unwrap_or_default();
    let mut current = find(&api.store, site, id).await?;
    if !change.etag.is_empty() {
        demand_etag(&current, &change.etag)?;
    }
    let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
    let Wanted { profile, password } = profile::parse_change(&current.profile, change, &paths)?;
    if profile == current.profile && password.is_none() {
        return Ok(convert::account(&current));
    }
    let reaches_server = profile.server != current.profile.server
        || profile.login != current.profile.login
        || profile.sender_email != current.profile.sender_email
        || password.is_some();
    let unproven = current.check.state != CheckState::Passed && !current.profile.active;
    let check = if profile.active && (reaches_server || unproven) {
        let kept = passwords::open(&api.store, site, id).await?;
        let auth = prove::auth_of(&profile.login, password.as_ref(), kept);
        let report = prove::climb(api, site, &settings, &profile, auth, id).await?;
        Some(prove::demand(&report)?)
    } else {
        None
    };
    current.profile = profile;
    if validate_only {
        if let Some(check) = check {
            current.check = check;
        }
        return Ok(convert::account(&current));
    }
    let change = match &check {
        Some(check) => CheckChange::Set(check),
        None if reaches_server => CheckChange::Forget,
        None => CheckChange::Keep,
    };
    if !accounts::replace(&api.store, &current, password.as_ref(), change).await? {
        return Err(fields::etag_mismatch(&crate::domain::account::account_name(site, id)));
    }
    Ok(convert::account(&find(&api.store, site, id).await?))
}

/// Refuses a stale etag.
pub(super) fn demand_etag(account: &Account, etag: &str) -> Result<(), Problem> {
    if etag == fields::etag("account", account.version) {
        return Ok(());
    }
    Err(fields::etag_mismatch(&crate::domain::account::account_name(&account.site, account.id)))
}
