//! The sessions of an account, counted across replicas: a worker holds a slot as long as it may have one open.

use std::time::Duration;

use sqlx::{query, query_scalar};
use uuid::Uuid;

use super::queue::{Lane, interval};
use super::{Store, StoreError};

/// A replica that is silent for so long has no sessions any more: without the store it can send no further letter. Much
/// shorter than a lease, so that an account does not stand still after a crash.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Two workers that begin at the same time may pick the same slot; one of them looks again.
const TRIES: usize = 3;

/// Takes one of `max` slots of an account for a worker; its number, or `None` where all are held. A slot counts as long
/// as its replica is heard of.
///
/// # Errors
/// When the database does not answer.
pub async fn take(
    store: &Store,
    lane: &Lane,
    replica: Uuid,
    holder: Uuid,
    max: u32,
) -> Result<Option<i32>, StoreError> {
    let max = i32::try_from(max).unwrap_or(i32::MAX);
    for _ in 0..TRIES {
        let taken = query!(
            r#"with free as (
                   select slots.slot
                   from generate_series(1, $5::integer) as slots (slot)
                   where not exists (
                       select from lane_sessions s
                       join replicas r on r.replica_id = s.replica_id and r.heartbeat_time > now() - $6::interval
                       where s.site_id = $1
                         and s.account_id = $2
                         and s.slot = slots.slot
                   )
                   order by random()
               ), taken as (
                   insert into lane_sessions as s (site_id, account_id, slot, replica_id, holder)
                   select $1, $2, slot, $3, $4
                   from free
                   -- Gone with the account where that was deleted.
                   where exists (select from accounts a where a.site_id = $1 and a.account_id = $2)
                   limit 1
                   on conflict (site_id, account_id, slot) do update
                   set replica_id = excluded.replica_id,
                       holder = excluded.holder
                   where not exists (
                       select from replicas r
                       where r.replica_id = s.replica_id
                         and r.heartbeat_time > now() - $6::interval
                   )
                   returning slot
               )
               select (select slot from taken) as slot, exists (select from free) as "is_free!""#,
            lane.site.as_str(),
            lane.account,
            replica,
            holder,
            max,
            interval(SILENCE),
        )
        .fetch_one(&store.pool)
        .await?;
        if taken.slot.is_some() || !taken.is_free {
            return Ok(taken.slot);
        }
    }
    Ok(None)
}

/// Gives the slot of a worker back.
///
/// # Errors
/// When the database does not answer.
pub async fn release(store: &Store, lane: &Lane, holder: Uuid) -> Result<(), StoreError> {
    query!(
        "delete from lane_sessions where site_id = $1 and account_id = $2 and holder = $3",
        lane.site.as_str(),
        lane.account,
        holder,
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// Whether a worker still holds its slot: while its replica was silent another one may have taken it.
///
/// # Errors
/// When the database does not answer.
pub async fn holds(store: &Store, lane: &Lane, holder: Uuid) -> Result<bool, StoreError> {
    let holds = query_scalar!(
        r#"select exists (
               select from lane_sessions where site_id = $1 and account_id = $2 and holder = $3
           ) as "holds!""#,
        lane.site.as_str(),
        lane.account,
        holder,
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(holds)
}
