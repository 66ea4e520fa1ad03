//! Whose accounts are, as callers say it.

use crate::api::fields::{self, Violations};
use crate::api::proto::{Account as ProtoAccount, Origin as ProtoOrigin};
use crate::domain::account::{Origin, Ownership};

/// Origin, owner and use of an account.
pub(super) fn parse(
    origin: i32,
    user: String,
    shared: Option<bool>,
    mailings_first: Option<bool>,
    violations: &mut Violations,
) -> Option<Ownership> {
    let origin = violations.take("account.origin", origin_from_proto(origin).ok_or("is not an origin"));
    let user = violations.take("account.user", fields::user(user));
    let (origin, user) = (origin?.unwrap_or(Origin::Admin), user?);
    match (origin, user.is_empty()) {
        (Origin::Admin, false) => {
            violations.add("account.user", "must be empty for an account of the administrator");
        }
        (Origin::Mailbox | Origin::Crm, true) => {
            violations.add("account.user", "must name the person whose account it is");
        }
        _ => {}
    }
    Some(Ownership {
        origin,
        user,
        shared: shared.unwrap_or(false),
        mailings_first: mailings_first.unwrap_or(false),
    })
}

/// Notes a change of origin or owner, which cannot be changed.
pub(super) fn demand_unchanged(current: &Ownership, change: &ProtoAccount, violations: &mut Violations) {
    match origin_from_proto(change.origin) {
        None => violations.add("account.origin", "is not an origin"),
        Some(Some(origin)) if origin != current.origin => {
            violations.add("account.origin", "cannot be changed");
        }
        Some(_) => {}
    }
    if !change.user.is_empty() && change.user != current.user {
        violations.add("account.user", "cannot be changed");
    }
}

/// The origin of this number; `Some(None)` where none is named, `None` where there is no such origin.
#[expect(clippy::option_option, reason = "an unknown number, none and one are three things")]
pub(super) fn origin_from_proto(origin: i32) -> Option<Option<Origin>> {
    Some(match ProtoOrigin::try_from(origin).ok()? {
        ProtoOrigin::Unspecified => None,
        ProtoOrigin::Admin => Some(Origin::Admin),
        ProtoOrigin::Mailbox => Some(Origin::Mailbox),
        ProtoOrigin::Crm => Some(Origin::Crm),
    })
}

/// An origin as it is answered.
pub(super) const fn origin_to_proto(origin: Origin) -> ProtoOrigin {
    match origin {
        Origin::Admin => ProtoOrigin::Admin,
        Origin::Mailbox => ProtoOrigin::Mailbox,
        Origin::Crm => ProtoOrigin::Crm,
    }
}
