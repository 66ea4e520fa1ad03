//! The recorder: outcomes and transcripts of all workers, written in batches, site by site, until they are written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

use super::leases::Leases;
use super::{counting, history};
use crate::domain::log::Chunk;
use crate::domain::site::SiteId;
use crate::store::queue::Outcome;
use crate::store::{Store, StoreError, logs};

/// Most records written in one go: enough to share a commit, few enough that the first need not wait for the last.
const BATCH: usize = 128;
/// Waits between tries while the store does not answer.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(2);

/// What a worker learnt: part of a transcript, an outcome, or both, which are then recorded together.
#[derive(Debug)]
pub(super) struct Record {
    /// Whose it is.
    pub(super) site: SiteId,
    /// What became of a letter.
    pub(super) outcome: Option<Outcome>,
    /// What was said.
    pub(super) chunk: Option<Chunk>,
}

/// Records until all workers are gone and everything is written.
pub(super) async fn run(store: Store, leases: Arc<Leases>, mut inbox: mpsc::Receiver<Record>) {
    let mut records = Vec::with_capacity(BATCH);
    while inbox.recv_many(&mut records, BATCH).await > 0 {
        // A stable sort: records of one site keep their order.
        records.sort_by(|a, b| a.site.cmp(&b.site));
        while let Some(first) = records.first() {
            let site = first.site.clone();
            let count = records.partition_point(|record| record.site <= site);
            let of_site: Vec<Record> = records.drain(..count).collect();
            let letters: Vec<_> =
                of_site.iter().filter_map(|r| r.outcome.as_ref()).map(|o| (o.message, o.attempt)).collect();
            write(&store, &site, of_site).await;
            leases.let_go(letters);
        }
    }
}

/// Writes the records of one site; what the database refuses as a whole is tried one by one, so that one bad record
/// takes no other with it. A refused outcome is recorded without the server's words rather than not at all: a letter
/// whose outcome is not known would be sent again.
async fn write(store: &Store, site: &SiteId, records: Vec<Record>) {
    let (outcomes, chunks) = parts(&records);
    let recorded = store.unless_given_up(logs::record(store, site, &outcomes, &chunks)).await;
    if let Err(error) = until_answered(store, site, &outcomes, &chunks, recorded).await {
        tracing::error!(error = &error as &dyn std::error::Error, %site, "a batch of records was refused");
        for record in records {
            let Err(error) = write_again(store, site, std::slice::from_ref(&record)).await else { continue };
            let message = record.outcome.as_ref().map(|outcome| outcome.message);
            tracing::error!(error = &error as &dyn std::error::Error, %site, ?message, "a record was refused");
            let Some(outcome) = record.outcome.map(history::without_words) else { continue };
            let bare = Record { site: site.clone(), outcome: Some(outcome), chunk: None };
            if let Err(error) = write_again(store, site, &[bare]).await {
                tracing::error!(error = &error as &dyn std::error::Error, %site, ?message, "an outcome is lost");
            }
        }
    }
}

/// Writes what may have been written before.
async fn write_again(store: &Store, site: &SiteId, records: &[Record]) -> Result<(), StoreError> {
    let (outcomes, chunks) = parts(records);
    let recorded = store.unless_given_up(logs::record_again(store, site, &outcomes, &chunks)).await;
    until_answered(store, site, &outcomes, &chunks, recorded).await
}

fn parts(records: &[Record]) -> (Vec<Outcome>, Vec<Chunk>) {
    let outcomes = records.iter().filter_map(|record| record.outcome.clone()).collect();
    let chunks = records.iter().filter_map(|record| record.chunk.clone()).collect();
    (outcomes, chunks)
}

/// Writes again and again, until the store does not say any more that it does not answer.
async fn until_answered(
    store: &Store,
    site: &SiteId,
    outcomes: &[Outcome],
    chunks: &[Chunk],
    mut recorded: Result<Vec<Uuid>, StoreError>,
) -> Result<(), StoreError> {
    let mut wait = *RETRY.start();
    loop {
        match recorded {
            Ok(counted) => {
                counting::recorded(store, outcomes, chunks, &counted);
                if counted.len() < outcomes.len() {
                    let late = outcomes.len() - counted.len();
                    tracing::warn!(%site, late, "outcomes came after a newer attempt was claimed and do not count");
                }
                return Ok(());
            }
            Err(StoreError::Unavailable(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "outcomes wait for the store");
                store.metrics().delivery.record_retries.inc();
                sleep(wait).await;
                wait = (wait * 2).min(*RETRY.end());
                recorded = store.unless_given_up(logs::record_again(store, site, outcomes, chunks)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
