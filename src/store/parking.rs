//! Parking: an account that is at fault is parked, probed now and then, and goes on when it works again.

use std::time::Duration;

use sqlx::{PgConnection, query};

use super::queue::{Lane, interval};
use super::{Store, StoreError, events};
use crate::domain::event::Event;
use crate::domain::parking::{Backoff, Parking, ParkingReason};
use crate::vault::VaultError;

/// Sessions in a row that cannot be opened for now, after which an account counts as unreachable.
pub const SEVERAL: i32 = 3;

/// How the error of an account begins whose password does not open.
const UNOPENED: &str = "the password cannot be opened: ";

/// What is wrong with an account.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What kind of fault it is.
    pub reason: ParkingReason,
    /// The server's words, or what happened instead.
    pub error: String,
    /// Whether it parks the account at once; else only when it happens several times in a row.
    pub lasting: bool,
    /// The version of the account at which it was met, where a change of the account is the end of it.
    pub version: Option<i64>,
}

impl Trouble {
    /// That the password of this version of the account does not open.
    #[must_use]
    pub fn unopened(error: &VaultError, version: i64) -> Self {
        let error = format!("{UNOPENED}{error}");
        Self { reason: ParkingReason::Configuration, error, lasting: true, version: Some(version) }
    }
}

/// Lets accounts be probed now whose passwords did not open: there are other keys.
///
/// # Errors
/// When the database does not answer.
pub async fn hurry_unopened(store: &Store) -> Result<(), StoreError> {
    query!(
        "update lanes
         set parked_until = now()
         where parking_reason = $1
           and starts_with(parking_error, $2)
           and parked_until > now()",
        ParkingReason::Configuration.name(),
        UNOPENED,
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// Notes trouble of an account: it is parked, its next probe is put off, or its mail pauses for a moment. `probing` tells
/// that the trouble was met by a probe; other trouble of a parked account changes nothing. `jitter` is a random number from
/// 0 to 1.
///
/// # Errors
/// When the database does not answer.
pub async fn note(
    store: &Store,
    lane: &Lane,
    trouble: &Trouble,
    probing: bool,
    backoff: Backoff,
    jitter: f64,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    // Gone with the account where that was deleted. Who changes it at this moment is waited for: his is the last word.
    let row = query!(
        "insert into lanes as l (site_id, account_id, failures)
         select site_id, account_id, 1
         from accounts
         where site_id = $1
           and account_id = $2
           and version = coalesce($3, version)
         for share
         on conflict (site_id, account_id) do update set failures = l.failures + 1
         returning l.failures, l.parking_reason, l.probes",
        lane.site.as_str(),
        lane.account,
        trouble.version,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let parked_before = row.parking_reason.is_some();
    if parked_before && !probing {
        // Another worker of the account was first; this is no probe that failed.
        return Ok(());
    }
    let is_parked = parked_before || trouble.lasting || row.failures >= SEVERAL;
    if is_parked {
        let probes = if parked_before { row.probes + 1 } else { 0 };
        let until = park(&mut transaction, lane, trouble, probes, backoff, jitter).await?;
        if row.parking_reason.as_deref() != Some(trouble.reason.name()) {
            let parking = Parking { reason: trouble.reason, until, error: trouble.error.clone() };
            let event = Event::Account { account: lane.account, parking: Some(parking.into()) };
            events::append(&mut transaction, &lane.site, &[event]).await?;
        }
    } else {
        // Not the next letter at once: it would only meet the same.
        query!(
            "update lanes set pause_until = greatest(pause_until, now() + $3::interval)
             where site_id = $1 and account_id = $2",
            lane.site.as_str(),
            lane.account,
            interval(backoff.wait(0, jitter) / 4),
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    store.changes.recorded(&lane.site, &[]);
    Ok(())
}

async fn park(
    connection: &mut PgConnection,
    lane: &Lane,
    trouble: &Trouble,
    probes: i32,
    backoff: Backoff,
    jitter: f64,
) -> Result<time::OffsetDateTime, StoreError> {
    let wait = backoff.wait(u32::try_from(probes).unwrap_or(0), jitter);
    let row = query!(
        r#"update lanes
           set parking_reason = $3,
               parking_error = $4,
               parked_until = now() + $5::interval,
               probes = $6
           where site_id = $1
             and account_id = $2
           returning parked_until as "parked_until!""#,
        lane.site.as_str(),
        lane.account,
        trouble.reason.name(),
        trouble.error,
        interval(wait),
        probes,
    )
    .fetch_one(connection)
    .await?;
    Ok(row.parked_until)
}

/// Begins a probe of a parked account whose time has come; whether it is this caller's to make. Should it never end, the
/// next one may begin after the usual wait.
///
/// # Errors
/// When the database does not answer.
pub async fn begin_probe(store: &Store, lane: &Lane, backoff: Backoff) -> Result<bool, StoreError> {
    let begun = query!(
        "update lanes
         set parked_until = now() + $3::interval,
             pause_until = null,
             mailing_pause_until = null
         where site_id = $1
           and account_id = $2
           and parking_reason is not null
           and parked_until <= now()",
        lane.site.as_str(),
        lane.account,
        interval(backoff.most),
    )
    .execute(&store.pool)
    .await?;
    Ok(begun.rows_affected() > 0)
}

/// Puts a probe off that was begun and tried nothing: it is due so much later.
///
/// # Errors
/// When the database does not answer.
pub async fn put_probe_off(store: &Store, lane: &Lane, wait: Duration) -> Result<(), StoreError> {
    query!(
        "update lanes
         set parked_until = now() + $3::interval
         where site_id = $1
           and account_id = $2
           and parking_reason is not null",
        lane.site.as_str(),
        lane.account,
        interval(wait),
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}
