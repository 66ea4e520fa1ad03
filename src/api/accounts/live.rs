//! The transcript of a check, stored while the check runs, so that whoever tails its log sees it as it happens.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use crate::domain::log::{Chunk, Entry};
use crate::smtp::Transcript;
use crate::store::{Store, logs};

/// What is said is stored so soon, with whatever is said meanwhile.
const GATHERED: Duration = Duration::from_millis(50);

/// A task that stores a transcript while it grows; it ends with its owner.
pub(super) struct Live {
    running: DropGuard,
    storing: JoinHandle<Vec<Entry>>,
}

impl Live {
    /// Stores what is said there in chunks like this one.
    pub(super) fn start(store: &Store, transcript: &Transcript, like: Chunk) -> Self {
        let end = CancellationToken::new();
        let storing = store_until(end.clone(), store.clone(), transcript.clone(), like);
        Self { running: end.drop_guard(), storing: tokio::spawn(storing.in_current_span()) }
    }

    /// Ends it; what could not be stored.
    pub(super) async fn end(self) -> Vec<Entry> {
        drop(self.running);
        // It does not panic; if it did, what it held would be lost with it.
        self.storing.await.unwrap_or_default()
    }
}

/// Ends only between two writes, so that none is broken off; answers what the store refused.
async fn store_until(
    end: CancellationToken,
    store: Store,
    transcript: Transcript,
    like: Chunk,
) -> Vec<Entry> {
    let gathered = async || {
        transcript.waits().await;
        sleep(GATHERED).await;
    };
    while end.run_until_cancelled(gathered()).await.is_some() {
        let chunk = Chunk { entries: transcript.take(), ..like.clone() };
        if logs::record(&store, &like.site, &[], std::slice::from_ref(&chunk)).await.is_err() {
            // The call will tell when it stores the rest.
            return chunk.entries;
        }
    }
    Vec::new()
}
