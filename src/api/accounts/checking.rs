//! `CheckAccount`: the ladder, tried now or, if it is young enough, as it was last seen.

use std::time::Duration;

use super::profile::{self, Wanted};
use super::prove::{self, Subject, TestLetter};
use super::{convert, find};
use crate::api::proto::check_account_request::Target;
use crate::api::proto::{CheckAccountRequest, CheckAccountResponse};
use crate::api::{Api, fields};
use crate::domain::account::Check;
use crate::domain::error::Problem;
use crate::domain::site::SiteId;
use crate::store::{checks, lanes, passwords};

/// Tries an account, saved or not.
pub(super) async fn check(
    api: &Api,
    site: &SiteId,
    request: CheckAccountRequest,
) -> Result<CheckAccountResponse, Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let CheckAccountRequest { parent: _, send_test_letter, max_age, target } = request;
    let max_age = max_age.map_or(Ok(Duration::ZERO), fields::duration);
    let max_age = max_age.map_err(|rule| Problem::invalid_field("max_age", rule))?;
    let test = TestLetter::of(send_test_letter);
    let (report, saved) = match target {
        None => return Err(Problem::invalid_field("target", "must be `name` or `account`")),
        Some(Target::Account(account)) => {
            let Wanted { profile, password } = profile::parse_new(*account)?;
            let auth = prove::auth_of(&profile.login, password.as_ref(), None);
            let subject = Subject { profile: &profile, auth, account: 0 };
            (prove::climb_live(api, site, &settings, subject, test).await?, None)
        }
        Some(Target::Name(name)) => {
            let id = fields::within(site, "name", &name, fields::account)?;
            let account = find(&api.store, site, id).await?;
            // What passed under another policy is no answer under this one.
            let is_allowed = prove::demand_allowed(api, &account.profile.server).is_ok();
            if is_allowed && is_young(api, &account.check, max_age) {
                let check = Some(convert::check(&account.check));
                return Ok(CheckAccountResponse { steps: Vec::new(), check });
            }
            let auth = passwords::open(&api.store, site, id).await?;
            let auth = auth.ok_or_else(|| Problem::not_found(name))?;
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
