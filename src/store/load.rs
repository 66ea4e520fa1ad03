//! What waits in the database and how its connections are used, for metrics. What it costs is bounded, whatever waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{PgPool, query};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Store, StoreError};
use crate::domain::parking::ParkingReason;
use crate::metrics::{OfAccount, Pool, Waiting};

/// What was found is told again for so long, however many ask,
const FRESH: Duration = Duration::from_secs(5);
/// and for so many times as long as it took to find out: behind a snapshot that is held for hours the dead rows of an
/// index make it slow (measured: 0.8 s for 300,000).
const REST: u32 = 20;
/// Who asks waits at most so long for it; then it is told as unknown.
const PATIENCE: Duration = Duration::from_secs(2);
/// Accounts that are told of: those whose mail has been due longest.
const MAX_ACCOUNTS: i64 = 500;
/// Accounts that are looked at, by three probes of the index each.
const MAX_LOOKED_AT: i64 = 2_000;
/// Letters that are counted in all, by the index alone; an account has its part of them.
const MAX_COUNTED: i64 = 20_000;
/// Time between two tries to get a connection.
const TRY: Duration = Duration::from_secs(1);

/// What waits, found out when it is asked for and not known from just before.
pub struct Reading {
    store: Store,
    /// When it is to be found out anew.
    next: Arc<Mutex<Option<Instant>>>,
}

impl Reading {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), next: Arc::default() }
    }

    /// Sees to it that the metrics have what waits, as of a few seconds ago at most, or that it is not known.
    pub async fn refresh(&self) {
        let store = self.store.clone();
        let next = Arc::clone(&self.next);
        let refreshed = async move {
            let mut next = next.lock_owned().await;
            if next.is_some_and(|next| Instant::now() < next) {
                return;
            }
            // It goes on where nobody waits for it any more: what is dropped in a transaction is not safe (`connecting`).
            let reading = tokio::spawn(async move {
                let start = Instant::now();
                let found = store.unless_given_up(waiting(&store)).await.inspect_err(|error| {
                    tracing::warn!(error = error as &dyn std::error::Error, "what waits cannot be counted");
                });
                store.metrics.backlog.found(found.ok());
                *next = Some(Instant::now() + FRESH.max(start.elapsed() * REST));
            });
            if let Err(error) = reading.await {
                tracing::error!(%error, "what waits was not counted");
            }
        };
        if timeout(PATIENCE, refreshed).await.is_err() {
            self.store.metrics.backlog.found(None);
        }
    }
}

/// What waits: the accounts by a loose index scan, their letters up to a number, by the index, too.
async fn waiting(store: &Store) -> Result<Waiting, StoreError> {
    let start = Instant::now();
    let mut transaction = store.begin().await?;
    // An answer that comes later is not waited for. The index is the way, whatever the statistics say or do not say yet.
    query!(
        "select set_config(name, value, true)
         from (values ('statement_timeout', '1500ms'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
                      ('jit', 'off')) as limits (name, value)",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let rows = query!(
        r#"with recursive lanes as (
               (select account_id, site_id, 1 as number
                from queue
                order by account_id, site_id
                limit 1)
               union all
               select next.account_id, next.site_id, lanes.number + 1
               from lanes
               cross join lateral (
                   select q.account_id, q.site_id
                   from queue q
                   where (q.account_id, q.site_id) > (lanes.account_id, lanes.site_id)
                   order by q.account_id, q.site_id
                   limit 1
               ) as next
               where lanes.number < $1
           ), oldest as (
               select l.site_id, l.account_id, least(other_mail.due, mailings.due) as due
               from lanes l
               left join lateral (
                   select q.due
                   from queue q
                   where q.site_id = l.site_id
                     and q.account_id = l.account_id
                     and not q.mailing
                   order by q.due
                   limit 1
               ) as other_mail on true
               left join lateral (
                   select q.due
                   from queue q
                   where q.site_id = l.site_id
                     and q.account_id = l.account_id
                     and q.mailing
                   order by q.due
                   limit 1
               ) as mailings on true
               order by due
               limit $2
           )
           select o.site_id as "site_id!", o.account_id as "account_id!", letters.count as "letters!",
                  extract(epoch from now() - o.due)::float8 as "oldest_due?", part.most as "most!"
           from oldest o
           cross join (select greatest($3 / greatest(count(*), 1), 1) as most from oldest) as part
           cross join lateral (
               select count(*)
               from (
                   select
                   from queue q
                   where q.site_id = o.site_id
                     and q.account_id = o.account_id
                   limit part.most
               ) as counted
           ) as letters"#,
        i32::try_from(MAX_LOOKED_AT).unwrap_or(i32::MAX),
        MAX_ACCOUNTS,
        MAX_COUNTED,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let reasons = query!(
        r#"select parking_reason as "reason!", count(*) as "count!"
           from lanes
           where parking_reason is not null
           group by parking_reason"#,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let counted_to = rows.first().map_or(MAX_COUNTED, |row| row.most);
    let parked = reasons.into_iter().map(|row| {
        let reason = ParkingReason::from_name(&row.reason).ok_or(StoreError::Corrupt("reason of parking"))?;
        Ok((reason, row.count))
    });
    Ok(Waiting {
        counted_to,
        parked: parked.collect::<Result<_, StoreError>>()?,
        accounts: rows
            .into_iter()
            .map(|row| OfAccount {
                site: row.site_id,
                account: row.account_id,
                letters: row.letters,
                // Without one all were claimed and recorded meanwhile.
                oldest_due: row.oldest_due.unwrap_or_default(),
            })
            .collect(),
        took: start.elapsed(),
    })
}

fn pools(store: &Store) -> [(Pool, PgPool); 2] {
    [(Pool::Calls, store.pool.now()), (Pool::Delivery, store.delivery.now())]
}

/// Tells how the connections are used now.
pub fn tell_pools(store: &Store) {
    for (which, pool) in pools(store) {
        let limit = pool.options().get_max_connections();
        store.metrics.database.pool_is(which, pool.size(), pool.num_idle(), limit);
    }
}

/// Tries once a second how long a connection is waited for, until this is dropped: the pools do not tell it of others.
pub async fn try_pools(store: &Store) {
    let mut ticks = interval(TRY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let of_pools = pools(store).map(|(which, pool)| async move {
            let start = Instant::now();
            // In vain it took as long as anybody waits; that is counted among the errors.
            let _ = pool.acquire().await.map_err(StoreError::from);
            store.metrics.database.acquired(which, start.elapsed());
        });
        let [calls, delivery] = of_pools;
        tokio::join!(calls, delivery);
    }
}
