//! Which letters are cancelled or retried together.

use super::convert;
use super::terms::tag_of_filter;
use crate::api::fields::{self, Violations};
use crate::domain::error::Problem;
use crate::domain::message::MessageState;
use crate::domain::site::SiteId;
use crate::store::selection::Selection;

/// What a request may say of states.
pub(super) struct States {
    /// Those that may be named.
    pub(super) allowed: &'static [MessageState],
    /// Those that count where none is named.
    pub(super) usual: &'static [MessageState],
}

/// What requests name letters by.
pub(super) struct Arguments {
    pub(super) account: String,
    pub(super) tag: String,
    pub(super) states: Vec<i32>,
    pub(super) since: Option<prost_types::Timestamp>,
}

/// Parses what a request names letters by.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn parse(
    site: Option<&SiteId>,
    arguments: Arguments,
    states: &States,
) -> Result<Selection, Problem> {
    let Arguments { account, tag, states: named, since } = arguments;
    let mut violations = Violations::default();
    let account = violations.within(site, "account", &account, fields::account);
    let tag = violations.take("tag", tag_of_filter(&tag)).flatten();
    let mut wanted = Vec::with_capacity(named.len());
    for (index, state) in named.into_iter().enumerate() {
        let state = convert::state_from_proto(state).filter(|state| states.allowed.contains(state));
        let state = state.ok_or("is not a state in which this can be done");
        wanted.extend(violations.take(&format!("states[{index}]"), state));
    }
    let since = violations.time("since", since);
    violations.finish()?;
    if wanted.is_empty() {
        wanted.extend_from_slice(states.usual);
    }
    Ok(Selection { account, tag, states: wanted, since })
}
