//! Housekeeping: mail that waits although its time is over is ended, logs begin afresh when their period is over, and what
//! nobody will ask for any more is deleted, whole sites among it. Every server does it; who comes second finds nothing.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;
use crate::store::{Store, StoreError, cleaning, closing, departures, logs, settings, sites};

/// Time between two cleanings.
const CLEAN: Duration = Duration::from_hours(1);
/// Time between two looks for sites that are being deleted.
const DEPARTURES: Duration = Duration::from_secs(5);
/// After so many bytes of logs that were deleted their room is given back.
const ROOM: u64 = 1024 * 1024;
/// Sites that are listed at once.
const SITES: i64 = 1_000;
/// Letters that are ended in one transaction.
const LETTERS: i64 = 500;

/// Sweeps every `sweep`, cleans every hour, and sees sites off that are being deleted, until the soft stop.
pub(super) async fn run(store: Store, sweep: Duration, stop: CancellationToken) {
    let every = |period: Duration| {
        // Not all servers that were started together at the same moment.
        let first = period.mul_f64(1.0 - rand::random::<f64>() / 2.0);
        let mut ticks = interval_at(Instant::now() + first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut sweeps, mut cleanings, mut departures) = (every(sweep), every(CLEAN), every(DEPARTURES));
    loop {
        let work = tokio::select! {
            () = stop.cancelled() => return,
            _ = sweeps.tick() => Some(Work::Sweep),
            _ = cleanings.tick() => Some(Work::Clean),
            _ = departures.tick() => None,
        };
        let working = store.unless_given_up(async {
            match work {
                Some(work) => of_all_sites(&store, work).await,
                None => see_off(&store).await,
            }
        });
        if let Some(Err(error)) = stop.run_until_cancelled(working).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "housekeeping waits for the store");
        }
    }
}

/// What is done for each site that stays.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Ends mail whose time is over, and deletes what logs held before they began afresh.
    Sweep,
    /// Deletes what is old.
    Clean,
}

async fn of_all_sites(store: &Store, work: Work) -> Result<(), StoreError> {
    through_sites(store, work).await?;
    drop_leavings(store).await
}

/// Deletes what is left of sites that go.
async fn see_off(store: &Store) -> Result<(), StoreError> {
    for site in departures::list(store).await? {
        match departures::finish(store, &site).await {
            Ok(true) => tracing::info!(%site, "nothing is left of a site that was deleted"),
            // Somebody else is at it, or still writes.
            Ok(false) => {}
            Err(error) => go_on(&site, error)?,
        }
    }
    Ok(())
}

/// Deletes what logs held before they began afresh.
async fn drop_leavings(store: &Store) -> Result<(), StoreError> {
    let mut bytes = 0;
    for site in logs::sites_with_leavings(store).await? {
        match logs::drop_leavings(store, &site).await {
            Ok(dropped) => bytes += dropped,
            Err(error) => go_on(&site, error)?,
        }
    }
    if bytes >= ROOM {
        logs::give_room_back(store).await?;
        tracing::info!(bytes, "what logs held before they began afresh was deleted");
    }
    Ok(())
}

async fn through_sites(store: &Store, work: Work) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let found = sites::list(store, &after, SITES).await?;
        let Some(last) = found.last() else { return Ok(()) };
        last.id.as_str().clone_into(&mut after);
        for site in found {
            if let Err(error) = of_site(store, &site.id, work).await {
                go_on(&site.id, error)?;
            }
        }
    }
}

async fn of_site(store: &Store, site: &SiteId, work: Work) -> Result<(), StoreError> {
    // Deleted meanwhile where there are none.
    let Some(settings) = settings::find(store, site).await? else { return Ok(()) };
    match work {
        Work::Sweep => sweep(store, site, &settings.effective).await,
        Work::Clean => clean(store, site, &settings.effective).await,
    }
}

/// What is wrong with one site is told and keeps no other from its turn; a store that does not answer does.
fn go_on(site: &SiteId, error: StoreError) -> Result<(), StoreError> {
    if matches!(error, StoreError::Unavailable(_)) {
        return Err(error);
    }
    tracing::error!(error = &error as &dyn std::error::Error, %site, "a site's housekeeping failed");
    Ok(())
}

async fn sweep(store: &Store, site: &SiteId, settings: &EffectiveSettings) -> Result<(), StoreError> {
    let patience = settings.retry_intervals.iter().sum();
    loop {
        let ended = closing::expire(store, site, patience, LETTERS).await?;
        if ended > 0 {
            tracing::info!(%site, ended, "mail was ended whose time is over");
        }
        if ended < u64::try_from(LETTERS).unwrap_or(u64::MAX) {
            return Ok(());
        }
    }
}

async fn clean(store: &Store, site: &SiteId, settings: &EffectiveSettings) -> Result<(), StoreError> {
    let now = store.clock().now();
    logs::restart_due(store, site, now).await?;
    let deleted = cleaning::clean(store, site, settings.message_retention, now).await?;
    if deleted > 0 {
        tracing::info!(%site, deleted, "letters were deleted after their retention");
    }
    Ok(())
}
