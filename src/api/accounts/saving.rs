//! Creating and changing accounts: proven first, then saved.

use prost::Message;

use super::profile::{self, Wanted};
use super::prove::{Subject, TestLetter};
use super::{convert, find, ownership, prove};
use crate::api::Api;
use crate::api::fields::{self, Etag, Violations};
use crate::api::proto::{Account as ProtoAccount, CreateAccountRequest, UpdateAccountRequest};
use crate::domain::account::{Account, CheckState, Origin, Profile, account_name};
use crate::domain::address::Address;
use crate::domain::audit::{Actor, Deed, Note};
use crate::domain::error::{Problem, Reason};
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;
use crate::store::accounts::{self, AccountFilter, Created, NewAccount, Replaced};
use crate::store::checks::CheckChange;
use crate::store::{passwords, sites};
use crate::vault::Fingerprint;

/// What the MAC over a request's content is made for.
const REQUEST_MAC: &str = "CreateAccount request";

/// What is wrong with a request for a new account, where its site is not known.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn check_new(request: &CreateAccountRequest) -> Result<(), Problem> {
    let CreateAccountRequest { parent: _, account, request_id, validate_only: _ } = request;
    let mut violations = Violations::default();
    violations.take("request_id", fields::request_id(request_id));
    let account = account.clone().ok_or_else(|| Problem::invalid_field("account", "must be set"));
    violations.take_parsed(account.and_then(profile::parse_new));
    violations.finish()
}

/// What is wrong with a request for a change, where the account is not known.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn check_change(request: &UpdateAccountRequest) -> Result<(), Problem> {
    let UpdateAccountRequest { account, update_mask, validate_only: _ } = request;
    let paths = update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    profile::check_change(account.clone().unwrap_or_default(), paths)
}

/// Proves and saves a new account.
pub(super) async fn create(
    api: &Api,
    by: &Actor,
    site: &SiteId,
    request: CreateAccountRequest,
) -> Result<ProtoAccount, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    // The check may take a minute. What is saved then is for this site, and for none that has its id by then.
    let life = sites::life(&api.store, site).await?.ok_or_else(|| Problem::not_found(site.name()))?;
    let CreateAccountRequest { parent: _, account, request_id, validate_only } = request;
    let mut violations = Violations::default();
    let request_id = violations.take("request_id", fields::request_id(&request_id)).flatten();
    let account = account.ok_or_else(|| Problem::invalid_field("account", "must be set"));
    let account = violations.take_parsed(account);
    let own =
        account.as_ref().map(|account| api.store.vault().fingerprint(REQUEST_MAC, &account.encode_to_vec()));
    let request = request_id.zip(own.as_ref());
    if let Some((id, own)) = request
        && let Some((account, known)) = accounts::find_by_request(&api.store, site, id).await?
    {
        violations.finish()?;
        return first_result(api, site, account, &known, Some(own)).await;
    }
    if let Some(wanted) = &account
        && let Some(crm) = crm_account(api, site, wanted).await?
    {
        violations.finish()?;
        let wanted = account.unwrap_or_default();
        return take_over(api, site, &settings, crm, wanted, Saving { by, validate_only, request }).await;
    }
    let wanted = account.and_then(|account| violations.take_parsed(profile::parse_new(account)));
    let Some(Wanted { profile, password }) = wanted else { return Err(violations.problem()) };
    violations.finish()?;
    demand_user_accounts(&settings, &profile)?;
    prove::demand_allowed(api, &profile.server)?;
    let check = if profile.active {
        let auth = prove::auth_of(&profile.login, password.as_ref(), None);
        let subject = Subject { profile: &profile, auth, account: 0 };
        let report = prove::climb_live(api, site, &settings, subject, test_on_save(&settings)).await?;
        Some(prove::demand(&report, &profile.server)?)
    } else {
        None
    };
    if validate_only {
        return Ok(ProtoAccount { check: check.as_ref().map(convert::check), ..convert::profile(&profile) });
    }
    let id = accounts::next_id(&api.store, site, life).await?;
    let id = id.ok_or_else(|| Problem::not_found(site.name()))?;
    let new = NewAccount {
        site,
        life,
        id,
        profile: &profile,
        password: password.as_ref(),
        request: kept(request),
        check: check.as_ref(),
    };
    let note = Note { by: by.clone(), deed: Deed::CreateAccount(id) };
    match accounts::create(&api.store, &new, &note).await? {
        Created::NoSite => Err(Problem::not_found(site.name())),
        Created::Saved => Ok(convert::account(&find(&api.store, site, id).await?)),
        Created::RequestKnown { account, mac } => {
            first_result(api, site, account, &mac, request.map(|(_, own)| own)).await
        }
    }
}

/// What is kept of a request: its id and the MAC of its content.
fn kept<'a>(request: Option<(&'a str, &'a Fingerprint)>) -> Option<(&'a str, &'a [u8])> {
    request.map(|(id, own)| (id, own.mac().as_slice()))
}

/// The account that an earlier call with the same request id created, if its content was the same.
async fn first_result(
    api: &Api,
    site: &SiteId,
    account: i64,
    known: &[u8],
    own: Option<&Fingerprint>,
) -> Result<ProtoAccount, Problem> {
    if !own.is_some_and(|own| own.is(known)) {
        let text = "this request_id was used before, for another account";
        return Err(Problem::new(Reason::RequestIdReused, text));
    }
    Ok(convert::account(&find(&api.store, site, account).await?))
}

/// Proves and saves a change of an account.
pub(super) async fn update(
    api: &Api,
    by: &Actor,
    site: &SiteId,
    id: i64,
    request: UpdateAccountRequest,
) -> Result<ProtoAccount, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let UpdateAccountRequest { account, update_mask, validate_only } = request;
    let change = account.unwrap_or_default();
    let current = find(&api.store, site, id).await?;
    // One that cannot be an etag is told together with whatever else is wrong.
    if let Ok(etag) = Etag::parse(&change.etag) {
        demand_etag(&current, &etag)?;
    }
    let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
    let wanted = profile::parse_change(&current.profile, change, &paths)?;
    if wanted.profile == current.profile && wanted.password.is_none() {
        return Ok(convert::account(&current));
    }
    save_change(api, site, &settings, current, wanted, Saving { by, validate_only, request: None }).await
}

/// How a change is saved.
struct Saving<'a> {
    /// Who saves it.
    by: &'a Actor,
    /// Check only, save nothing.
    validate_only: bool,
    /// The request id of a call that creates, and the fingerprint of its content.
    request: Option<(&'a str, &'a Fingerprint)>,
}

/// The CRM account of this person and address, which a new mailbox account takes over (API 4).
async fn crm_account(api: &Api, site: &SiteId, wanted: &ProtoAccount) -> Result<Option<Account>, Problem> {
    let is_mailbox = ownership::origin_from_proto(wanted.origin).flatten() == Some(Origin::Mailbox);
    let Ok(address) = Address::parse(&wanted.sender_email) else { return Ok(None) };
    if !is_mailbox || wanted.user.is_empty() {
        return Ok(None);
    }
    let filter = AccountFilter {
        origin: Some(Origin::Crm),
        user: Some(wanted.user.clone()),
        sender_key: Some(address.key()),
        ..AccountFilter::default()
    };
    Ok(accounts::list(&api.store, site, &filter, 0, 1).await?.pop())
}

/// Turns a CRM account into the mailbox account that is wanted: the same id, and what the request leaves out is kept.
async fn take_over(
    api: &Api,
    site: &SiteId,
    settings: &EffectiveSettings,
    crm: Account,
    mut wanted: ProtoAccount,
    saving: Saving<'_>,
) -> Result<ProtoAccount, Problem> {
    // The origin is what changes here, and only here.
    wanted.origin = 0;
    let mut wanted = profile::parse_change(&crm.profile, wanted, &[])?;
    wanted.profile.ownership.origin = Origin::Mailbox;
    save_change(api, site, settings, crm, wanted, saving).await
}

/// Proves a change where it must be, and saves it. The account's logs begin anew with the check.
async fn save_change(
    api: &Api,
    site: &SiteId,
    settings: &EffectiveSettings,
    mut current: Account,
    wanted: Wanted,
    saving: Saving<'_>,
) -> Result<ProtoAccount, Problem> {
    let Saving { by, validate_only, request } = saving;
    let Wanted { profile, password } = wanted;
    demand_user_accounts(settings, &profile)?;
    // An account whose host the operator forbade meanwhile can still be switched off.
    if profile.active || profile.server != current.profile.server {
        prove::demand_allowed(api, &profile.server)?;
    }
    let id = current.id;
    let reaches_server = profile.server != current.profile.server
        || profile.login != current.profile.login
        || profile.sender_email != current.profile.sender_email
        || password.is_some();
    let unproven = current.check.state != CheckState::Passed && !current.profile.active;
    let proof = if profile.active && (reaches_server || unproven) {
        // A new password mends an account whose old one cannot be opened any more.
        let kept = if password.is_some() { None } else { passwords::open(&api.store, site, id).await? };
        let auth = prove::auth_of(&profile.login, password.as_ref(), kept);
        let subject = Subject { profile: &profile, auth, account: id };
        Some(prove::climb(api, site, settings, subject, test_on_save(settings)).await?)
    } else {
        None
    };
    let proof = match proof {
        Some(proof) if validate_only || !proof.report.passed() => {
            current.check = prove::demand(&proof.record(api).await?, &profile.server)?;
            None
        }
        proof => proof,
    };
    let check = proof.as_ref().map(|proof| prove::demand(&proof.report, &profile.server)).transpose()?;
    let deed = Deed::change_account(id, &current.profile, &profile, password.is_some());
    current.profile = profile;
    if validate_only {
        return Ok(convert::account(&current));
    }
    let change = match &check {
        Some(check) => CheckChange::Set(check),
        None if reaches_server => CheckChange::Forget,
        None => CheckChange::Keep,
    };
    let note = Note { by: by.clone(), deed };
    match accounts::replace(&api.store, &current, password.as_ref(), change, kept(request), &note).await? {
        Replaced::Saved => {}
        Replaced::VersionChanged => return Err(fields::etag_mismatch(&account_name(site, id))),
        Replaced::RequestKnown { account, mac } => {
            return first_result(api, site, account, &mac, request.map(|(_, own)| own)).await;
        }
    }
    if let Some(proof) = proof {
        proof.record(api).await?;
    }
    Ok(convert::account(&find(&api.store, site, id).await?))
}

fn test_on_save(settings: &EffectiveSettings) -> TestLetter {
    TestLetter::of(settings.send_test_on_save)
}

/// Refuses accounts of users where the site does not have them.
fn demand_user_accounts(settings: &EffectiveSettings, profile: &Profile) -> Result<(), Problem> {
    if profile.ownership.origin == Origin::Admin || settings.user_accounts_enabled {
        return Ok(());
    }
    let text = "accounts of users are switched off in the site's settings";
    Err(Problem::new(Reason::UserAccountsDisabled, text))
}

/// Refuses a stale etag.
pub(super) fn demand_etag(account: &Account, etag: &Etag) -> Result<(), Problem> {
    if etag.fits("account", account.version) {
        return Ok(());
    }
    Err(fields::etag_mismatch(&account_name(&account.site, account.id)))
}
