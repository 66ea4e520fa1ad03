//! The pace of accounts: slots for transactions, taken in the database, so that all replicas together keep the limits.

use sqlx::{PgConnection, query};
use time::OffsetDateTime;

use super::queue::{Lane, interval};
use super::{Store, StoreError};
use crate::domain::pace::{DAY, HOUR, MINUTE, Pace, Request, Turn, Usage, Used};

/// Takes a slot for one transaction, or notes until when the account's mail has to wait. By the database's clock.
///
/// # Errors
/// When the database does not answer.
pub async fn take(store: &Store, lane: &Lane, pace: &Pace, request: Request) -> Result<Turn, StoreError> {
    let mut transaction = store.begin().await?;
    // Locks the account's row: whoever comes second counts what the first one took. The time is asked for behind that.
    let row = query!(
        r#"insert into lanes as l (site_id, account_id)
           values ($1, $2)
           on conflict (site_id, account_id) do update set batch_letters = l.batch_letters
           returning l.batch_start, l.batch_letters, clock_timestamp() as "now!""#,
        lane.site.as_str(),
        lane.account,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let mut usage =
        if pace.limits.count() { used(&mut transaction, lane, row.now).await? } else { Usage::default() };
    let letters = u32::try_from(row.batch_letters).unwrap_or(u32::MAX);
    usage.batch = row.batch_start.map(|start| (start, letters));
    let turn = pace.turn(&usage, request, row.now);
    match turn {
        Turn::Now { new_batch, .. } => {
            if request.begins_letter && !pace.min_batch_interval.is_zero() {
                count_letter(&mut transaction, lane, row.now, new_batch).await?;
            }
            if pace.limits.count() {
                count_transaction(&mut transaction, lane, row.now, request.recipients).await?;
            }
        }
        Turn::NotBefore { time, everybody } => {
            query!(
                "update lanes
                 set pause_until = case when $4 then $3 else pause_until end,
                     mailing_pause_until = $3
                 where site_id = $1
                   and account_id = $2",
                lane.site.as_str(),
                lane.account,
                time,
                everybody,
            )
            .execute(&mut *transaction)
            .await?;
        }
    }
    transaction.commit().await?;
    Ok(turn)
}

async fn used(connection: &mut PgConnection, lane: &Lane, now: OffsetDateTime) -> Result<Usage, StoreError> {
    let row = query!(
        r#"select s.minute as "minute!", s.oldest_in_minute,
                  m.hour as "hour!", m.oldest_in_hour, m.day as "day!", m.recipients as "recipients!", m.oldest_in_day
           from (
               select coalesce(sum(transactions), 0) as minute,
                      min(start_time) as oldest_in_minute
               from lane_usage
               where site_id = $1
                 and account_id = $2
                 and unit = 'second'
                 and start_time > $3::timestamptz - $4::interval
           ) as s
           cross join (
               select coalesce(sum(transactions) filter (where start_time > $3::timestamptz - $5::interval), 0) as hour,
                      min(start_time) filter (where start_time > $3::timestamptz - $5::interval) as oldest_in_hour,
                      coalesce(sum(transactions), 0) as day,
                      coalesce(sum(recipients), 0) as recipients,
                      min(start_time) as oldest_in_day
               from lane_usage
               where site_id = $1
                 and account_id = $2
                 and unit = 'minute'
                 and start_time > $3::timestamptz - $6::interval
           ) as m"#,
        lane.site.as_str(),
        lane.account,
        now,
        interval(MINUTE),
        interval(HOUR),
        interval(DAY),
    )
    .fetch_one(connection)
    .await?;
    let used = |count: i64, oldest| Used { count: u32::try_from(count).unwrap_or(u32::MAX), oldest };
    Ok(Usage {
        minute: used(row.minute, row.oldest_in_minute),
        hour: used(row.hour, row.oldest_in_hour),
        day: used(row.day, row.oldest_in_day),
        recipients: used(row.recipients, row.oldest_in_day),
        batch: None,
    })
}

async fn count_letter(
    connection: &mut PgConnection,
    lane: &Lane,
    now: OffsetDateTime,
    new_batch: bool,
) -> Result<(), StoreError> {
    query!(
        "update lanes
         set batch_start = case when $4 then $3 else batch_start end,
             batch_letters = case when $4 then 1 else batch_letters + 1 end
         where site_id = $1
           and account_id = $2",
        lane.site.as_str(),
        lane.account,
        now,
        new_batch,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn count_transaction(
    connection: &mut PgConnection,
    lane: &Lane,
    now: OffsetDateTime,
    recipients: u32,
) -> Result<(), StoreError> {
    // Seconds are of no use after a minute; minutes are cleaned up with everything else that is old.
    query!(
        "with past as (
             delete from lane_usage
             where site_id = $1
               and account_id = $2
               and unit = 'second'
               and start_time < $3::timestamptz - 2 * $5::interval
         )
         insert into lane_usage as u (site_id, account_id, unit, start_time, transactions, recipients)
         select $1, $2, unit, date_trunc(unit, $3::timestamptz), 1, $4
         from unnest(array['second', 'minute']) as units (unit)
         on conflict (site_id, account_id, unit, start_time) do update
         set transactions = u.transactions + 1,
             recipients = u.recipients + excluded.recipients",
        lane.site.as_str(),
        lane.account,
        now,
        i32::try_from(recipients).unwrap_or(i32::MAX),
        interval(MINUTE),
    )
    .execute(connection)
    .await?;
    Ok(())
}
