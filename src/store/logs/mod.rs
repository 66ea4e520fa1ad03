//! Logs: chunks of lines at growing positions. What a log held before it began afresh lies below its `start_position`:
//! nobody sees it any more, and the cleaner deletes it.

mod dropping;
mod following;
mod reading;
mod restarting;
mod writing;

use sqlx::{PgConnection, query, query_scalar};
use time::OffsetDateTime;

pub use self::dropping::{drop_leavings, forget, give_room_back, sites_with_leavings};
pub use self::following::{Follower, Part, Recent};
pub use self::reading::{
    ChunkFilter, StoredChunk, StoredRestart, known_positions, last_position, read, read_back,
};
pub use self::restarting::{clear, restart_due};
pub(super) use self::restarting::{restart_changed, restart_deleted};
pub(super) use self::writing::append_audit;
pub use self::writing::{record, record_again};
use super::{Store, StoreError};
use crate::domain::account::Origin;
use crate::domain::log::rotation::{Held, RewritePeriod, Rotation};
use crate::domain::log::{Log, LogId, LogOwner};
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;

/// Up to `limit` logs of a site that hold anything, behind the id `after`: administrators' first, then users', then the
/// log `audit` if it is wanted; by id. With an account, only its own.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    account: Option<i64>,
    audit: bool,
    after: &str,
    limit: i64,
) -> Result<Vec<Log>, StoreError> {
    let ids: Option<Vec<String>> =
        account.map(|id| LogId::of_account(id).map(|log| log.to_string()).to_vec());
    let rows = query!(
        r#"select l.log_id, l.size_bytes, l.update_time,
                  a.sender_name as "sender_name?", a.sender_email as "sender_email?", a.origin as "origin?"
           from logs l
           left join accounts a on a.site_id = l.site_id
                               and a.account_id = substring(l.log_id from '[0-9]+$')::bigint
           where l.site_id = $1
             and l.size_bytes > 0
             -- By class: admin, users, and the log audit, which has none.
             and (l.log_id = 'audit', split_part(l.log_id, '-', 2), l.log_id)
                 > ($2 = 'audit', split_part($2, '-', 2), $2)
             and ($3::text[] is null or l.log_id = any($3))
             and ($4 or l.log_id <> 'audit')
           order by l.log_id = 'audit', split_part(l.log_id, '-', 2), l.log_id
           limit $5"#,
        site.as_str(),
        after,
        ids.as_deref(),
        audit,
        limit,
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let origin = row
                .origin
                .map(|name| Origin::from_name(&name).ok_or(StoreError::Corrupt("origin")))
                .transpose()?;
            let owner = row.sender_name.zip(row.sender_email).zip(origin);
            Ok(Log {
                id: LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?,
                owner: owner.map(|((sender_name, sender_email), origin)| LogOwner {
                    sender_name,
                    sender_email,
                    origin,
                }),
                size_bytes: row.size_bytes,
                update_time: row.update_time,
            })
        })
        .collect()
}

/// The position at which begins what a log holds now, which is another one after each restart; `None` where there is no
/// such log, or no more.
///
/// # Errors
/// When the database does not answer.
pub async fn start_position(store: &Store, site: &SiteId, log: LogId) -> Result<Option<i64>, StoreError> {
    let mut connection = store.pool.acquire().await?;
    find_start(&mut connection, site, log).await
}

async fn find_start(
    connection: &mut PgConnection,
    site: &SiteId,
    log: LogId,
) -> Result<Option<i64>, StoreError> {
    let found = query_scalar!(
        "select start_position
         from logs
         where site_id = $1
           and log_id = $2
           and restart_cause is distinct from 'account_deleted'",
        site.as_str(),
        log.to_string(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

/// How long a log goes on by its site's settings; `None`, for ever, for the log `audit`: who watches is not to be got rid
/// of by a setting.
fn rotation(
    log: LogId,
    period: Option<&str>,
    max_mib: Option<i32>,
    defaults: &EffectiveSettings,
) -> Result<Option<Rotation>, StoreError> {
    if log == LogId::Audit {
        return Ok(None);
    }
    let period = match period {
        Some(name) => RewritePeriod::from_name(name).ok_or(StoreError::Corrupt("log_rewrite_period"))?,
        None => defaults.log_rewrite_period,
    };
    let max_mib = match max_mib {
        Some(stored) => u32::try_from(stored).map_err(|_| StoreError::Corrupt("log_max_size_mib"))?,
        None => defaults.log_max_size_mib,
    };
    Ok(Some(Rotation { period, max_bytes: u64::from(max_mib) << 20 }))
}

/// What a log holds, as its row tells.
fn held(size_bytes: i64, first_time: Option<OffsetDateTime>, account_change: Option<OffsetDateTime>) -> Held {
    Held { bytes: u64::try_from(size_bytes).unwrap_or_default(), first_time, account_change }
}
