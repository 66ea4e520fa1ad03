//! What is read is noted in the log `audit` before it is shown; a reader that asks again and again is noted now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::{Api, to_the_end};
use crate::domain::access::Caller;
use crate::domain::audit::{Deed, Note, Reading};
use crate::domain::error::Problem;
use crate::domain::site::SiteId;
use crate::store::audit;

/// The same key that reads the same thing is noted so often by one replica: pages, polling and readers that reconnect
/// would fill the disc, and tell nothing new.
const NOTED_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Readings remembered at once. Where there are more, some are noted more often.
const MAX_REMEMBERED: usize = 10_000;

/// A key that reads something of a site.
type Read = (Uuid, SiteId, Reading);
/// When it was noted last; locked while a note is being written, so that whoever reads the same waits for it.
type LastNote = Arc<AsyncMutex<Option<Instant>>>;

/// The readings of the last minute.
#[derive(Default)]
pub(super) struct ReadNotes(Mutex<HashMap<Read, LastNote>>);

impl ReadNotes {
    fn last_note(&self, read: Read) -> LastNote {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= MAX_REMEMBERED && !notes.contains_key(&read) {
            // What is locked is being noted just now.
            notes.retain(|_, last| last.try_lock().map_or(true, |last| !is_due(*last, Instant::now())));
            if notes.len() >= MAX_REMEMBERED {
                notes.clear();
            }
        }
        Arc::clone(notes.entry(read).or_default())
    }

    /// Forgets what was noted of a site, since the log that tells of it was cleared.
    pub(super) fn forget(&self, site: &SiteId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, of, _), _| of != site);
    }
}

/// Whether a reading is to be noted that was noted last then.
fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= NOTED_AGAIN_AFTER)
}

impl Api {
    /// Notes what a caller is about to be shown. Nothing may be shown where this fails.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such site; `STORE_UNAVAILABLE`.
    pub(super) async fn note_read(
        self: &Arc<Self>,
        caller: &Caller,
        site: &SiteId,
        reading: Reading,
    ) -> Result<(), Problem> {
        let last = self.read_notes.last_note((caller.key_id, site.clone(), reading.clone()));
        let note = Note { by: caller.into(), deed: Deed::Read(reading) };
        let (api, site) = (Arc::clone(self), site.clone());
        to_the_end(async move {
            let mut last = last.lock().await;
            if !is_due(*last, Instant::now()) {
                return Ok(());
            }
            if !audit::note(&api.store, &site, &note).await? {
                return Err(Problem::not_found(site.name()));
            }
            *last = Some(Instant::now());
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log::LogId;

    fn read(number: u128) -> Read {
        let site = SiteId::parse("shop").expect("a site");
        (Uuid::from_u128(number), site, Reading::Download(LogId::Audit))
    }

    #[test]
    fn a_reading_is_noted_again_after_a_minute() {
        let noted = Instant::now();
        assert!(is_due(None, noted));
        assert!(!is_due(Some(noted), noted));
        assert!(!is_due(Some(noted), noted + Duration::from_millis(59_999)));
        assert!(is_due(Some(noted), noted + Duration::from_mins(1)));
    }

    #[test]
    fn readings_are_remembered_in_bounded_room() {
        let notes = ReadNotes::default();
        let fill = |noted: bool| {
            for number in 0..2 * MAX_REMEMBERED as u128 {
                let last = notes.last_note(read(number));
                if noted {
                    *last.try_lock().expect("nobody else") = Some(Instant::now());
                }
                assert!(notes.0.lock().expect("whole").len() <= MAX_REMEMBERED);
            }
        };
        // Those that were never noted go first, then all.
        fill(false);
        fill(true);
        let last = notes.last_note(read(2 * MAX_REMEMBERED as u128 - 1));
        assert!(last.try_lock().expect("nobody else").is_some(), "the latest is remembered");
    }
}
