//! What logs held before they began afresh is deleted, and its room given back.

use sqlx::{Executor as _, query, query_scalar};
use time::OffsetDateTime;

use super::super::{Store, StoreError, positions};
use crate::domain::site::SiteId;

/// Chunks that are deleted in one statement.
const GROUP: i64 = 1_000;

/// Sites of which something is to be deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn sites_with_leavings(store: &Store) -> Result<Vec<SiteId>, StoreError> {
    let found = query_scalar!("select distinct site_id from logs where has_leavings order by site_id")
        .fetch_all(&store.pool)
        .await?;
    found.iter().map(|site| SiteId::parse(site).ok_or(StoreError::Corrupt("site id"))).collect()
}

/// Deletes what logs of a site held before they began afresh; how many bytes of text.
///
/// # Errors
/// When the database does not answer; what was deleted until then stays so.
pub async fn drop_leavings(store: &Store, site: &SiteId) -> Result<u64, StoreError> {
    let logs = query!(
        "select log_id, start_position from logs where site_id = $1 and has_leavings order by log_id",
        site.as_str(),
    )
    .fetch_all(&store.pool)
    .await?;
    let mut bytes = 0;
    for log in logs {
        loop {
            // `+ 0` and an array, not a join: by the index of logs and by the keys, whatever statistics say. They are of
            // before what is deleted here was written, and a range of positions that they take for empty would be gone
            // through for each group: 54 s instead of 2 for 500 MiB.
            let gone = query!(
                r#"with gone as (
                       delete from log_chunks
                       where site_id = $1
                         and position = any(array(
                                 select position
                                 from log_chunks
                                 where site_id = $1
                                   and log_id = $2
                                   and position + 0 < $3
                                 order by position
                                 limit $4
                                 -- What another cleaner is just deleting is left to it: two must not wait for one another.
                                 for update skip locked
                             ))
                       returning size_bytes
                   )
                   select count(*) as "count!", coalesce(sum(size_bytes), 0) as "bytes!" from gone"#,
                site.as_str(),
                log.log_id,
                log.start_position,
                GROUP,
            )
            .fetch_one(&store.pool)
            .await?;
            bytes += u64::try_from(gone.bytes).unwrap_or_default();
            // Nothing left, or somebody else is at it.
            if gone.count == 0 {
                break;
            }
        }
        // Unless it began afresh again meanwhile, or somebody else is still deleting them and may be broken off.
        query!(
            "update logs
             set has_leavings = false
             where site_id = $1
               and log_id = $2
               and start_position = $3
               and (
                   select position
                   from log_chunks
                   where site_id = $1
                     and log_id = $2
                     and position + 0 < $3
                   order by position
                   limit 1
               ) is null",
            site.as_str(),
            log.log_id,
            log.start_position,
        )
        .execute(&store.pool)
        .await?;
    }
    Ok(bytes)
}

/// Forgets what of a site is older than `end`: logs of accounts that were deleted, and entries of the log `audit`. Places
/// in the stream of logs that lie before what is forgotten cannot be gone on from.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(
    store: &Store,
    site: &SiteId,
    deleted_before: OffsetDateTime,
    audit_before: OffsetDateTime,
) -> Result<(), StoreError> {
    while is_any_old(store, site, deleted_before, audit_before).await? {
        forget_some(store, site, deleted_before, audit_before).await?;
    }
    Ok(())
}

/// Whether there is anything to forget: mostly there is not, and nobody is held up.
async fn is_any_old(
    store: &Store,
    site: &SiteId,
    deleted_before: OffsetDateTime,
    audit_before: OffsetDateTime,
) -> Result<bool, StoreError> {
    let found = query_scalar!(
        r#"select exists (
               select from logs
               where site_id = $1
                 and restart_cause = 'account_deleted'
                 and restart_time < $2
                 and not has_leavings
           ) or exists (
               -- The oldest one tells.
               select from logs l
               cross join lateral (
                   select last_time
                   from log_chunks
                   where site_id = $1
                     and log_id = 'audit'
                     and position >= l.start_position
                   order by position
                   limit 1
               ) c
               where l.site_id = $1
                 and l.log_id = 'audit'
                 and c.last_time < $3
           ) as "found!""#,
        site.as_str(),
        deleted_before,
        audit_before,
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(found)
}

/// Forgets logs of accounts that were deleted, and a group of the oldest entries of the log `audit`.
async fn forget_some(
    store: &Store,
    site: &SiteId,
    deleted_before: OffsetDateTime,
    audit_before: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    // Before the lock of positions, as everybody takes it who gives the site a new id and tells of it.
    query!("select from sites where site_id = $1 for no key update", site.as_str())
        .execute(&mut *transaction)
        .await?;
    positions::lock(&mut transaction, site).await?;
    query!(
        "with gone as (
             delete from logs
             where site_id = $1
               and restart_cause = 'account_deleted'
               and restart_time < $2
               and not has_leavings
             returning start_position
         )
         update sites
         set log_horizon = greatest(log_horizon, (select max(start_position) from gone))
         where site_id = $1
           and exists (select from gone)",
        site.as_str(),
        deleted_before,
    )
    .execute(&mut *transaction)
    .await?;
    query!(
        "with gone as (
             -- What was cleared is not counted any more; it goes as what other logs leave.
             delete from log_chunks c
             using (
                 select position, last_time
                 from log_chunks
                 where site_id = $1
                   and log_id = 'audit'
                   and position >= (select start_position from logs where site_id = $1 and log_id = 'audit')
                 order by position
                 limit $3
             ) oldest
             where c.site_id = $1
               and c.position = oldest.position
               and oldest.last_time < $2
             returning c.position, c.size_bytes
         ), log as (
             update logs
             set size_bytes = logs.size_bytes - (select sum(size_bytes) from gone)
             where site_id = $1
               and log_id = 'audit'
               and exists (select from gone)
         )
         update sites
         set log_horizon = greatest(log_horizon, (select max(position) from gone))
         where site_id = $1
           and exists (select from gone)",
        site.as_str(),
        audit_before,
        GROUP,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Gives the room of deleted chunks back: at the end of the table to the system, elsewhere to the chunks to come. Does
/// nothing where somebody else is at it, or where the role does not own the table.
///
/// # Errors
/// When the database does not answer.
pub async fn give_room_back(store: &Store) -> Result<(), StoreError> {
    // Only the owner of the table may; where a server is somebody else, autovacuum does it in its time.
    let may = query_scalar!(
        r#"select pg_has_role(relowner, 'usage') as "may!" from pg_class where oid = 'log_chunks'::regclass"#
    )
    .fetch_one(&store.pool)
    .await?;
    if !may {
        return Ok(());
    }
    let mut connection = store.pool.acquire().await?.detach();
    // As long as it takes: it holds up nobody.
    connection.execute("set statement_timeout = 0").await?;
    connection.execute("vacuum (skip_locked) log_chunks").await?;
    sqlx::Connection::close(connection).await?;
    Ok(())
}
