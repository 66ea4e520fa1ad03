//! `CheckAccount`: the ladder, tried now or, if it is young enough, as it was last seen.

use std::time::Duration;

use super::profile::{self, Wanted};
use super::prove::{self, Subject, TestLetter};
use super::{convert, find};
use crate::api::Api;
use crate::api::fields::{self, Violations};
use crate::api::proto::check_account_request::Target;
use crate::api::proto::{CheckAccountRequest, CheckAccountResponse};
use crate::domain::account::{Check, account_name};
use crate::domain::error::Problem;
use crate::domain::site::SiteId;
use crate::store::{checks, lanes, passwords};

/// What a request asks for.
pub(super) struct Asked {
    subject: Tried,
    test: TestLetter,
    max_age: Duration,
}

/// Which account is tried.
enum Tried {
    /// A saved one.
    Saved(i64),
    /// One that is not.
    New(Box<Wanted>),
}

/// Parses a request.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn parse(site: Option<&SiteId>, request: CheckAccountRequest) -> Result<Asked, Problem> {
    let CheckAccountRequest { parent: _, send_test_letter, max_age, target } = request;
    let mut violations = Violations::default();
    let max_age = violations.take("max_age", max_age.map_or(Ok(Duration::ZERO), fields::duration));
    let subject = match target {
        None => Err(Problem::invalid_field("target", "must be `name` or `account`")),
        Some(Target::Account(account)) => profile::parse_new(*account).map(|new| Tried::New(Box::new(new))),
        Some(Target::Name(name)) => fields::within(site, "name", &name, fields::account).map(Tried::Saved),
    };
    let subject = violations.take_parsed(subject);
    let (subject, max_age) = violations.finish_with(subject.zip(max_age))?;
    Ok(Asked { subject, test: TestLetter::of(send_test_letter), max_age })
}

/// Tries an account, saved or not.
pub(super) async fn check(api: &Api, site: &SiteId, asked: Asked) -> Result<CheckAccountResponse, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let Asked { subject, test, max_age } = asked;
    let (report, saved) = match subject {
        Tried::New(wanted) => {
            let Wanted { profile, password } = *wanted;
            let auth = prove::auth_of(&profile.login, password.as_ref(), None);
            let subject = Subject { profile: &profile, auth, account: 0 };
            (prove::climb_live(api, site, &settings, subject, test).await?, None)
        }
        Tried::Saved(id) => {
            let account = find(&api.store, site, id).await?;
            // What passed under another policy is no answer under this one.
            let is_allowed = prove::demand_allowed(api, &account.profile.server).is_ok();
            if is_allowed && is_young(api, &account.check, max_age) {
                let check = Some(convert::check(&account.check));
                return Ok(CheckAccountResponse { steps: Vec::new(), check });
            }
            let auth = passwords::open(&api.store, site, id).await?;
            let auth = auth.ok_or_else(|| Problem::not_found(account_name(site, id)))?;
            let subject = Subject { profile: &account.profile, auth, account: id };
            (prove::climb_live(api, site, &settings, subject, test).await?, Some(id))
        }
    };
    let mut check = prove::check_of(&report);
    check.check_time = Some(api.store.clock().now());
    check.success_time = check.check_time.filter(|_| report.passed());
    if let Some(id) = saved {
        checks::record(&api.store, site, id, &check).await?;
        if report.passed() {
            lanes::resume_now(&api.store, site, id).await?;
        }
        check = find(&api.store, site, id).await?.check;
    }
    let steps = report.steps.into_iter().map(convert::check_step).collect();
    Ok(CheckAccountResponse { steps, check: Some(convert::check(&check)) })
}

/// Whether a stored result may be answered instead of a new one.
fn is_young(api: &Api, check: &Check, max_age: Duration) -> bool {
    check.check_time.is_some_and(|time| api.store.clock().now() - time < max_age)
}
