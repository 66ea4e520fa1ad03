//! Deleting sites. A site is marked in one transaction, and is gone for every caller from then on; what belonged to it is
//! deleted in groups afterwards, by whoever comes first, so that no statement takes long and a crash is made good.

use std::time::Duration;

use sqlx::{PgConnection, query, query_scalar};
use uuid::Uuid;

use super::closing::persistently;
use super::queue::interval;
use super::{Store, StoreError};
use crate::domain::site::SiteId;

/// So long after the mark nothing is deleted yet: until then every server has noticed that the site and its keys are gone
/// (2 s for what is remembered, 1 s between two looks of a stream), and nobody reads half of it. Nor is its id free.
const NOTICED: Duration = Duration::from_secs(5);
/// Letters that are deleted in one statement, with their content: 100 of the largest are some GB.
const LETTERS: i64 = 100;
/// Other rows that are deleted in one statement.
const GROUP: i64 = 1_000;
const WHOLE_GROUP: u64 = GROUP.unsigned_abs();

/// What became of an attempt to delete a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is gone for every caller; so many letters waited, and go with it.
    Going {
        /// Letters that were queued, being sent, or held uncertain.
        waiting: i64,
    },
    /// There is none, or no more.
    NotFound,
    /// So many letters wait, and that was not to be.
    MailWaits(i64),
}

/// Marks a site as one that goes, its settings and keys deleted. Letters that wait (queued, being sent, or held uncertain
/// until a person decides) are a reason not to, unless `force`. What is accepted at the same moment is counted, or not
/// accepted.
///
/// # Errors
/// When the database does not answer.
pub async fn begin(store: &Store, site: &SiteId, force: bool) -> Result<Begun, StoreError> {
    persistently(|| begin_once(store, site, force)).await
}

async fn begin_once(store: &Store, site: &SiteId, force: bool) -> Result<Begun, StoreError> {
    let mut transaction = store.begin().await?;
    // Settings and keys before the site, as those lock them who change one and note it. Without settings nothing is
    // claimed, sent or noted.
    let settings = query!("delete from settings where site_id = $1", site.as_str());
    if settings.execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(Begun::NotFound);
    }
    query!("delete from keys where site_id = $1", site.as_str()).execute(&mut *transaction).await?;
    // Waits for letters that are just being accepted (`for key share` in taking), and holds off others.
    query!("select from sites where site_id = $1 for update", site.as_str())
        .fetch_one(&mut *transaction)
        .await?;
    let waiting = count_waiting(&mut transaction, site).await?;
    if waiting > 0 && !force {
        return Ok(Begun::MailWaits(waiting));
    }
    query!("update sites set delete_time = now() where site_id = $1", site.as_str())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    store.changes.configured();
    store.changes.recorded(site, &[]);
    Ok(Begun::Going { waiting })
}

async fn count_waiting(connection: &mut PgConnection, site: &SiteId) -> Result<i64, StoreError> {
    let waiting = query_scalar!(
        r#"select (select count(*) from queue where site_id = $1)
                + (select count(*) from messages where site_id = $1 and state = 'uncertain' and final_time is null)
                  as "waiting!""#,
        site.as_str(),
    )
    .fetch_one(connection)
    .await?;
    Ok(waiting)
}

/// The sites that go, and of which every server has noticed it.
///
/// # Errors
/// When the database does not answer.
pub async fn list(store: &Store) -> Result<Vec<SiteId>, StoreError> {
    let found = query_scalar!(
        "select site_id from sites where delete_time < now() - $1::interval order by site_id",
        interval(NOTICED),
    )
    .fetch_all(&store.pool)
    .await?;
    found.iter().map(|site| SiteId::parse(site).ok_or(StoreError::Corrupt("site id"))).collect()
}

/// Whether there is still something of a site that goes: its id is not free.
///
/// # Errors
/// When the database does not answer.
pub async fn is_going(store: &Store, site: &SiteId) -> Result<bool, StoreError> {
    let going = query_scalar!(
        r#"select exists (
               select from sites where site_id = $1 and delete_time is not null
           ) as "going!""#,
        site.as_str(),
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(going)
}

/// Deletes everything of a site that [`list`] told of, and its id last; whether it is gone. It is not where somebody else
/// is just deleting some of it, or still writes: then it is to be asked for again.
///
/// # Errors
/// When the database does not answer; what was deleted until then stays so.
pub async fn finish(store: &Store, site: &SiteId) -> Result<bool, StoreError> {
    // Places before letters, as everybody locks them.
    queue(store, site).await?;
    letters(store, site).await?;
    chunks(store, site).await?;
    events(store, site).await?;
    small_tables(store, site).await?;
    close(store, site).await
}

/// Deletes the places of letters in the queue. Each group begins behind the one before: what is dead already is not looked
/// at again. What another cleaner is just deleting is left to it, here and below.
async fn queue(store: &Store, site: &SiteId) -> Result<(), StoreError> {
    let mut after = Some(Uuid::nil());
    while let Some(last) = after {
        after = query_scalar!(
            "with group_of as materialized (
                 select message_id
                 from queue
                 where site_id = $1
                   and message_id > $2
                 order by message_id
                 limit $3
                 for update skip locked
             ), gone as (
                 delete from queue
                 where site_id = $1
                   and message_id = any(array(select message_id from group_of))
             )
             select message_id from group_of order by message_id desc limit 1",
            site.as_str(),
            last,
            GROUP,
        )
        .fetch_optional(&store.pool)
        .await?;
    }
    Ok(())
}

/// Deletes letters with their content.
async fn letters(store: &Store, site: &SiteId) -> Result<(), StoreError> {
    let mut after = Some(Uuid::nil());
    while let Some(last) = after {
        after = query_scalar!(
            "with group_of as materialized (
                 select message_id
                 from messages
                 where site_id = $1
                   and message_id > $2
                 order by message_id
                 limit $3
                 for update skip locked
             ), gone as (
                 delete from messages
                 where site_id = $1
                   and message_id = any(array(select message_id from group_of))
             )
             select message_id from group_of order by message_id desc limit 1",
            site.as_str(),
            last,
            LETTERS,
        )
        .fetch_optional(&store.pool)
        .await?;
    }
    Ok(())
}

async fn chunks(store: &Store, site: &SiteId) -> Result<(), StoreError> {
    let mut after = Some(0);
    while let Some(last) = after {
        after = query_scalar!(
            "with group_of as materialized (
                 select position
                 from log_chunks
                 where site_id = $1
                   and position > $2
                 order by position
                 limit $3
                 for update skip locked
             ), gone as (
                 delete from log_chunks
                 where site_id = $1
                   and position = any(array(select position from group_of))
             )
             select position from group_of order by position desc limit 1",
            site.as_str(),
            last,
            GROUP,
        )
        .fetch_optional(&store.pool)
        .await?;
    }
    Ok(())
}

async fn events(store: &Store, site: &SiteId) -> Result<(), StoreError> {
    let mut after = Some(0);
    while let Some(last) = after {
        after = query_scalar!(
            "with group_of as materialized (
                 select position
                 from events
                 where site_id = $1
                   and position > $2
                 order by position
                 limit $3
                 for update skip locked
             ), gone as (
                 delete from events
                 where site_id = $1
                   and position = any(array(select position from group_of))
             )
             select position from group_of order by position desc limit 1",
            site.as_str(),
            last,
            GROUP,
        )
        .fetch_optional(&store.pool)
        .await?;
    }
    Ok(())
}

/// Deletes what there is less of; what hangs on accounts and senders goes with them.
async fn small_tables(store: &Store, site: &SiteId) -> Result<(), StoreError> {
    let (site, pool) = (site.as_str(), &store.pool);
    // Until there is no whole group left.
    while query!(
        "delete from lane_usage where ctid = any(array(
             select ctid from lane_usage where site_id = $1 limit $2 for update skip locked
         ))",
        site,
        GROUP,
    )
    .execute(pool)
    .await?
    .rows_affected()
        == WHOLE_GROUP
    {}
    while query!(
        "delete from accounts where ctid = any(array(
             select ctid from accounts where site_id = $1 limit $2 for update skip locked
         ))",
        site,
        GROUP,
    )
    .execute(pool)
    .await?
    .rows_affected()
        == WHOLE_GROUP
    {}
    while query!(
        "delete from senders where ctid = any(array(
             select ctid from senders where site_id = $1 limit $2 for update skip locked
         ))",
        site,
        GROUP,
    )
    .execute(pool)
    .await?
    .rows_affected()
        == WHOLE_GROUP
    {}
    while query!(
        "delete from sender_codes where ctid = any(array(
             select ctid from sender_codes where site_id = $1 limit $2 for update skip locked
         ))",
        site,
        GROUP,
    )
    .execute(pool)
    .await?
    .rows_affected()
        == WHOLE_GROUP
    {}
    while query!(
        "delete from account_requests where ctid = any(array(
             select ctid from account_requests where site_id = $1 limit $2 for update skip locked
         ))",
        site,
        GROUP,
    )
    .execute(pool)
    .await?
    .rows_affected()
        == WHOLE_GROUP
    {}
    Ok(())
}

/// Deletes the site itself, if nothing is left of which there may be much, with the rest by the foreign keys. Remembers
/// which ids were given.
async fn close(store: &Store, site: &SiteId) -> Result<bool, StoreError> {
    let mut transaction = store.begin().await?;
    // A key that was made beside the mark.
    query!("delete from keys where site_id = $1", site.as_str()).execute(&mut *transaction).await?;
    let closed = query!(
        "with gone as (
             delete from sites s
             where site_id = $1
               and delete_time is not null
               and not exists (select from messages where site_id = $1)
               and not exists (select from log_chunks where site_id = $1)
               and not exists (select from events where site_id = $1)
               and not exists (select from accounts where site_id = $1)
             returning last_account_id, last_sender_id
         )
         insert into former_sites as f (site_id, last_account_id, last_sender_id)
         select $1, last_account_id, last_sender_id
         from gone
         on conflict (site_id) do update
         set last_account_id = excluded.last_account_id,
             last_sender_id = excluded.last_sender_id",
        site.as_str(),
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(closed.rows_affected() > 0 || !is_going(store, site).await?)
}
