//! Keeps the vault's keys as their file has them: a key that is added there is known here within a second, and the other
//! servers hear so by the next heartbeat.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::{Store, parking};

/// Time between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until `stop`. A file that cannot be read, or is wrong, changes nothing but the log.
pub async fn watch_keys(store: Store, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complaint = String::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let looking = store.clone();
        // A file may lie on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || looking.vault().refresh());
        let Some(Ok(looked)) = stop.run_until_cancelled(looked).await else { continue };
        match looked {
            Ok(changed) => {
                complaint.clear();
                if changed {
                    tracing::info!(keys = ?store.vault().key_ids(), "the vault's keys were read anew");
                    if let Err(error) = parking::hurry_unopened(&store).await {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "accounts whose passwords could not be opened are probed later"
                        );
                    }
                }
            }
            Err(error) => {
                store.metrics().database.key_file_unusable();
                // Once, not each second.
                let told = error.to_string();
                if told != complaint {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the vault's keys cannot be read anew: those known so far count"
                    );
                    complaint = told;
                }
            }
        }
    }
}
