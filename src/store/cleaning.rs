//! Cleaning: what nobody will ask for any more is deleted, in groups, so that nothing is locked for long.

use std::time::Duration;

use sqlx::query;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, logs};
use crate::domain::site::SiteId;

/// Rows that are looked at in one statement.
const GROUP: i64 = 1_000;
/// How long events are kept (API 5).
const EVENTS_KEPT: Duration = Duration::from_hours(24);
/// How long usage is kept by minute: a day is counted, and a day is left for clocks that differ.
const MINUTES_KEPT: Duration = Duration::from_hours(48);
/// How long usage is kept by second: minutes are counted.
const SECONDS_KEPT: Duration = Duration::from_mins(5);
/// How long codes are kept, which are counted by the day.
const CODES_KEPT: Duration = Duration::from_hours(24);
/// How long requests are kept that created an account which is gone (API 2).
const REQUESTS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long it is told that the logs of a deleted account are gone.
const DELETED_LOGS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long entries of the log `audit` are kept.
const AUDIT_KEPT: Duration = Duration::from_hours(365 * 24);

/// Deletes what of a site is over at `now`: letters that have been final for longer than `retention`, with all that
/// belongs to them; events, usage, codes and requests; what is old of logs. How many letters.
///
/// # Errors
/// When the database does not answer; what was deleted until then stays so.
pub async fn clean(
    store: &Store,
    site: &SiteId,
    retention: Duration,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let count = letters(store, site, now - retention).await?;
    events(store, site, now - EVENTS_KEPT).await?;
    logs::forget(store, site, now - DELETED_LOGS_KEPT, now - AUDIT_KEPT).await?;
    query!(
        "delete from lane_usage
         where site_id = $1
           and start_time < case unit when 'minute' then $2::timestamptz else $3::timestamptz end",
        site.as_str(),
        now - MINUTES_KEPT,
        now - SECONDS_KEPT,
    )
    .execute(&store.pool)
    .await?;
    query!(
        "delete from sender_codes where site_id = $1 and create_time < $2",
        site.as_str(),
        now - CODES_KEPT
    )
    .execute(&store.pool)
    .await?;
    query!(
        "delete from account_requests r
         where site_id = $1
           and create_time < $2
           and not exists (
               select from accounts a where a.site_id = r.site_id and a.account_id = r.account_id
           )",
        site.as_str(),
        now - REQUESTS_KEPT,
    )
    .execute(&store.pool)
    .await?;
    Ok(count)
}

/// Deletes letters that were final before this time. An id carries the time of acceptance, and no letter is final before
/// that: so only older ids are looked at, in their order, most of which go.
async fn letters(store: &Store, site: &SiteId, end: OffsetDateTime) -> Result<u64, StoreError> {
    let (mut after, mut count) = (Uuid::nil(), 0);
    loop {
        let group = query!(
            r#"with old as (
                   select message_id
                   from messages
                   where site_id = $1
                     and message_id > $2
                     and message_id < $3
                   order by message_id
                   limit $5
               ), gone as (
                   delete from messages m
                   using old
                   where m.site_id = $1
                     and m.message_id = old.message_id
                     and m.final_time < $4
                   returning m.message_id
               )
               select (select message_id from old order by message_id desc limit 1) as last,
                      (select count(*) from gone) as "count!""#,
            site.as_str(),
            after,
            first_id_of(end),
            end,
            GROUP,
        )
        .fetch_one(&store.pool)
        .await?;
        count += u64::try_from(group.count).unwrap_or_default();
        let Some(last) = group.last else { return Ok(count) };
        after = last;
    }
}

/// The least id of a letter that was accepted at this time (RFC 9562 5.7: the first 48 bits are milliseconds).
fn first_id_of(time: OffsetDateTime) -> Uuid {
    let milliseconds = u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(u128::from(milliseconds) << 80)
}

/// Deletes events before this time; the order of their positions is that of their times, but for moments.
async fn events(store: &Store, site: &SiteId, end: OffsetDateTime) -> Result<(), StoreError> {
    loop {
        let gone = query!(
            "with old as (
                 select position from events where site_id = $1 order by position limit $3
             )
             delete from events e
             using old
             where e.site_id = $1
               and e.position = old.position
               and e.time < $2",
            site.as_str(),
            end,
            GROUP,
        )
        .execute(&store.pool)
        .await?;
        if gone.rows_affected() < u64::try_from(GROUP).unwrap_or_default() {
            return Ok(());
        }
    }
}
