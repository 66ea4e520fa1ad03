//! What real sessions show of an account's state.

use time::Duration;

use crate::domain::account::{Account, Check, CheckState};
use crate::smtp::{Failure, Session};
use crate::store::{Store, checks};

/// An unchanged state is written at most so often.
const REFRESH: Duration = Duration::minutes(1);

/// Records whether a session could be opened, if that is news.
pub(super) async fn note(store: &Store, account: &Account, opened: Result<&Session, &Failure>) {
    let (state, error, capabilities) = match opened {
        Ok(session) => (CheckState::Passed, String::new(), session.capabilities().to_vec()),
        Err(failure) => (CheckState::Failed, failure.to_string(), Vec::new()),
    };
    let known = &account.check;
    let fresh = known.check_time.is_some_and(|time| store.clock().now() - time < REFRESH);
    if known.state == state && known.error == error && fresh {
        return;
    }
    let check = Check { state, check_time: None, success_time: None, error, capabilities };
    let record = checks::record(store, &account.site, account.id, &check);
    if let Err(error) = store.unless_given_up(record).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the state of an account cannot be recorded"
        );
    }
}
