//! Whether the database has room for what is written. The heartbeat does not tell: it changes one row in place, which goes on
//! where nothing can be added. So what is refused for want of room is noted, and room is tried out before anything begins anew.

use std::time::{Duration, Instant};

use sqlx::Executor as _;
use tokio::sync::watch;

use super::error::is_outage;
use super::{Store, StoreError};

/// Want of room lasts at least so long after it was met: longer than the recorder waits between two tries, so that it does not
/// end before outcomes that wait for room are recorded.
const QUIET: Duration = Duration::from_secs(3);

/// A disk that is full, and a database that can only be read: nothing can be written, whatever it is. Not so with the other
/// resources of class 53, memory or connections: where one statement finds none, another one may.
const UNWRITABLE: [&str; 2] = ["53100", "25006"];

/// Needs as much room as a batch of outcomes or the next segment of the database's own log may need: rows that do not fit into
/// memory are written to temporary files, which are gone behind it. It changes nothing, and needs no right to change anything.
/// Sent in one message, it is one transaction.
const TRIAL: &str = "set local work_mem = '64kB';
     with rows as materialized (select repeat('x', 8000) from generate_series(1, 2048))
     select count(*) from rows";

/// What is known of the room that the database has.
#[derive(Debug)]
pub(super) struct Room(watch::Sender<Option<Instant>>);

impl Default for Room {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Room {
    /// Notes an error, if it tells that there is no room. Those who watch are told of the first one.
    pub(super) fn note(&self, error: &sqlx::Error) {
        if is_want(error) {
            self.0.send_if_modified(|refused| refused.replace(Instant::now()).is_none());
        }
    }

    /// There was room, after what was refused at that time; nothing was refused since, or it is not over.
    fn found(&self, after: Instant) -> bool {
        self.0.send_if_modified(|refused| {
            let is_over = *refused == Some(after);
            if is_over {
                *refused = None;
            }
            is_over
        })
    }
}

/// Whether a statement was refused since nothing can be written.
fn is_want(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| UNWRITABLE.contains(&code.as_ref()))
}

impl Store {
    /// Tells when something was last refused for want of room; `None` while there is room. It changes with the first refusal
    /// and when there is room again.
    #[must_use]
    pub fn want_of_room(&self) -> watch::Receiver<Option<Instant>> {
        self.room.0.subscribe()
    }

    /// Whether there is room, as far as is known. After want of room it is tried out, once nothing was refused for a while.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_room(&self) -> Result<bool, StoreError> {
        let refused = *self.room.0.borrow();
        let Some(refused) = refused else { return Ok(true) };
        if refused.elapsed() < QUIET {
            return Ok(false);
        }
        // A refusal is noted like any other.
        match (&self.pulse).execute(TRIAL).await {
            Err(error) if is_want(&error) => Ok(false),
            Err(error) if is_outage(&error) => Err(error.into()),
            Err(error) => {
                // Then whoever writes next finds out.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database's room cannot be tried out"
                );
                Ok(self.room.found(refused))
            }
            Ok(_) => Ok(self.room.found(refused)),
        }
    }
}
