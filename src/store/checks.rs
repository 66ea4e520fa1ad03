//! What is known of the state of accounts, moved by checks and by real sessions.

use sqlx::{PgConnection, query};

use super::error::violated_constraint;
use super::{Store, StoreError};
use crate::domain::account::{Check, CheckState};
use crate::domain::site::SiteId;

/// What a change of an account does to its check.
#[derive(Clone, Copy, Debug)]
pub enum CheckChange<'a> {
    /// It still counts.
    Keep,
    /// It counts no more.
    Forget,
    /// This is the new one.
    Set(&'a Check),
}

/// Records what a check or a real session showed. Nothing happens where the account was deleted meanwhile.
///
/// # Errors
/// When the database does not answer.
pub async fn record(store: &Store, site: &SiteId, account: i64, check: &Check) -> Result<(), StoreError> {
    let mut connection = store.pool.acquire().await?;
    match write(&mut connection, site, account, check).await {
        Err(StoreError::Refused(error)) if violated_constraint(&error) == Some("account_checks_account") => {
            Ok(())
        }
        other => other,
    }
}

/// Carries out a change of a check, inside a transaction.
pub(super) async fn apply(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    change: CheckChange<'_>,
) -> Result<(), StoreError> {
    match change {
        CheckChange::Keep => Ok(()),
        CheckChange::Set(check) => write(connection, site, account, check).await,
        CheckChange::Forget => {
            query!(
                "delete from account_checks where site_id = $1 and account_id = $2",
                site.as_str(),
                account
            )
            .execute(connection)
            .await?;
            Ok(())
        }
    }
}

async fn write(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    check: &Check,
) -> Result<(), StoreError> {
    query!(
        "insert into account_checks as c (site_id, account_id, state, check_time, success_time, error, capabilities)
         values ($1, $2, $3, now(), case when $3 = 'passed' then now() end, $4, $5)
         on conflict (site_id, account_id) do update
         set state = excluded.state,
             check_time = excluded.check_time,
             success_time = coalesce(excluded.success_time, c.success_time),
             error = excluded.error,
             capabilities = case
                 when cardinality(excluded.capabilities) > 0 then excluded.capabilities
                 else c.capabilities
             end",
        site.as_str(),
        account,
        state_name(check.state),
        check.error,
        &check.capabilities,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn state_from_name(name: Option<&str>) -> Result<CheckState, StoreError> {
    match name {
        None => Ok(CheckState::NotChecked),
        Some("passed") => Ok(CheckState::Passed),
        Some("failed") => Ok(CheckState::Failed),
        Some(_) => Err(StoreError::Corrupt("check state")),
    }
}

pub(super) const fn state_name(state: CheckState) -> &'static str {
    match state {
        CheckState::NotChecked => "not_checked",
        CheckState::Passed => "passed",
        CheckState::Failed => "failed",
    }
}
