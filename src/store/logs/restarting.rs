//! Logs that begin afresh: the next position is drawn, and whatever lies below it is gone for every reader at once.

use sqlx::{PgConnection, query};
use time::OffsetDateTime;

use super::super::{Store, StoreError, audit, positions};
use super::{held, rotation};
use crate::domain::audit::Note;
use crate::domain::log::LogId;
use crate::domain::log::rotation::RestartCause;
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;

/// Logs that are looked at in one statement.
const GROUP: i64 = 1_000;

/// Empties the logs of an account that is changed, inside the transaction that changes it.
pub(in crate::store) async fn restart_changed(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    positions::lock(&mut *connection, site).await?;
    restart(connection, site, &LogId::of_account(account), RestartCause::AccountChanged, now).await?;
    Ok(())
}

/// Empties the logs of an account that is deleted, inside the transaction that deletes it. Under the lock, so that whoever
/// adds to them afterwards sees that the account is gone.
pub(in crate::store) async fn restart_deleted(
    connection: &mut PgConnection,
    site: &SiteId,
    account: i64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    positions::lock(&mut *connection, site).await?;
    restart(connection, site, &LogId::of_account(account), RestartCause::AccountDeleted, now).await?;
    Ok(())
}

/// Empties a log, and notes it unless the log is empty; whether there is such a one.
///
/// # Errors
/// When the database does not answer.
pub async fn clear(store: &Store, site: &SiteId, log: LogId, note: &Note) -> Result<bool, StoreError> {
    let mut transaction = store.begin().await?;
    positions::lock(&mut transaction, site).await?;
    let found = super::find_start(&mut transaction, site, log).await?.is_some();
    if found && restart(&mut transaction, site, &[log], RestartCause::Cleared, store.clock().now()).await? {
        // Behind the restart: the log `audit` then holds who cleared it, and nothing else.
        audit::append(&mut transaction, &store.clock, site, note).await?;
    }
    transaction.commit().await?;
    store.changes.recorded(site, &[]);
    Ok(found)
}

/// Empties the logs whose period is over at `now`, although nothing is added to them; how many.
///
/// # Errors
/// When the database does not answer; what was done until then stays so.
pub async fn restart_due(store: &Store, site: &SiteId, now: OffsetDateTime) -> Result<usize, StoreError> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        // Mostly there is none, and nobody is held up.
        let mut connection = store.pool.acquire().await?;
        let looked_at = due(&mut connection, site, &store.defaults, &after, now).await?;
        drop(connection);
        if !looked_at.due.is_empty() {
            let mut transaction = store.begin().await?;
            positions::lock(&mut transaction, site).await?;
            // Again, now that nobody else can empty them or add to them.
            let Due { due, last: _ } = due(&mut transaction, site, &store.defaults, &after, now).await?;
            restart(&mut transaction, site, &due, RestartCause::Period, now).await?;
            transaction.commit().await?;
            store.changes.recorded(site, &[]);
            count += due.len();
        }
        let Some(last) = looked_at.last else { return Ok(count) };
        after = last;
    }
}

/// Those of a group of logs whose period is over.
struct Due {
    due: Vec<LogId>,
    /// The last one of the group; `None` where there was none.
    last: Option<String>,
}

/// Looks at the next group of logs behind the id `after`.
async fn due(
    connection: &mut PgConnection,
    site: &SiteId,
    defaults: &EffectiveSettings,
    after: &str,
    now: OffsetDateTime,
) -> Result<Due, StoreError> {
    let rows = query!(
        r#"select l.log_id, l.size_bytes, l.first_time, a.update_time as "account_time?",
                  s.log_rewrite_period, s.log_max_size_mib
           from logs l
           join settings s on s.site_id = l.site_id
           left join accounts a on a.site_id = l.site_id
                               and a.account_id = substring(l.log_id from '[0-9]+$')::bigint
           where l.site_id = $1
             and l.log_id > $2
             and l.size_bytes > 0
           order by l.log_id
           limit $3"#,
        site.as_str(),
        after,
        GROUP,
    )
    .fetch_all(connection)
    .await?;
    let last = rows.last().map(|row| row.log_id.clone());
    let mut due = Vec::new();
    for row in rows {
        let log = LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?;
        let held = held(row.size_bytes, row.first_time, row.account_time);
        let rotation = rotation(log, row.log_rewrite_period.as_deref(), row.log_max_size_mib, defaults)?;
        // With nothing to add: a log that is full stays as long as nobody adds to it.
        if rotation.and_then(|rotation| rotation.due(&held, now, 0)) == Some(RestartCause::Period) {
            due.push(log);
        }
    }
    Ok(Due { due, last })
}

/// Empties those of these logs that hold anything, in a transaction that holds the site's lock of positions. What is
/// deleted with its account says so, even if it held nothing. Answers whether there was one.
async fn restart(
    connection: &mut PgConnection,
    site: &SiteId,
    logs: &[LogId],
    cause: RestartCause,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let names: Vec<String> = logs.iter().map(LogId::to_string).collect();
    let restarted = query!(
        "update logs
         set size_bytes = 0,
             first_time = null,
             start_position = nextval('log_positions'),
             restart_cause = $3,
             restart_time = $4,
             has_leavings = true
         where site_id = $1
           and log_id = any($2)
           and (size_bytes > 0 or $3 = 'account_deleted')",
        site.as_str(),
        &names,
        cause.name(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(restarted.rows_affected() > 0)
}
