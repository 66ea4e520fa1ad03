//! Waits for what must come to pass, by looking again and again.

use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// Looks until there is something to be seen; a test that waits in vain names what it waited for.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
