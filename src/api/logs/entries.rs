//! `ListLogEntries`: the entries of one log, in pages.

use std::sync::Arc;

use prost::Message as _;
use uuid::Uuid;

use super::convert;
use crate::api::Api;
use crate::api::fields::{self, Violations};
use crate::api::page::{Page, Tokens};
use crate::api::proto::{ListLogEntriesRequest, ListLogEntriesResponse, LogEntry as ProtoEntry};
use crate::domain::access::Caller;
use crate::domain::audit::Reading;
use crate::domain::error::Problem;
use crate::domain::log::{Entry, EntryKind, LogId};
use crate::domain::site::SiteId;
use crate::store::Store;
use crate::store::logs::{self, ChunkFilter};

/// Chunks read at once.
const CHUNKS: i64 = 64;
/// A page is full with so many bytes in memory, however many entries were asked for: most clients take 4 MiB at once.
const PAGE_BYTES: usize = 1024 * 1024;

/// What a request asks for.
pub(super) struct Wanted {
    name: String,
    page: Page,
    /// What page tokens are bound to.
    bound: Vec<u8>,
    filter: EntryFilter,
}

impl Wanted {
    /// Parses a request.
    ///
    /// # Errors
    /// `INVALID_FIELD` with everything that is wrong.
    pub(super) fn parse(
        api: &Api,
        site: Option<&SiteId>,
        mut request: ListLogEntriesRequest,
    ) -> Result<Self, Problem> {
        let page_token = std::mem::take(&mut request.page_token);
        let page_size = std::mem::take(&mut request.page_size);
        // What is left of the request is what the token is bound to.
        let bound = request.encode_to_vec();
        let name = request.name.clone();
        let mut violations = Violations::default();
        let page = Page::parse(page_size, &page_token, &tokens(api, &bound), &mut violations);
        let filter = EntryFilter::parse(site, request, &mut violations);
        let page = violations.finish_with(page)?;
        Ok(Self { name, page, bound, filter })
    }
}

fn tokens<'a>(api: &'a Api, bound: &[u8]) -> Tokens<'a> {
    Tokens::new(api.store.vault(), "log entries page", &[bound])
}

/// A page of entries.
///
/// # Errors
/// `INVALID_FIELD`, `NOT_FOUND`.
pub(super) async fn list(
    api: &Arc<Api>,
    caller: &Caller,
    site: &SiteId,
    log: LogId,
    wanted: Wanted,
) -> Result<ListLogEntriesResponse, Problem> {
    let Wanted { name, page: Page { size, place }, bound, mut filter } = wanted;
    filter.chunks.logs = vec![log];
    let start = place.and_then(|place| Place::parse(&place)).unwrap_or_default();
    if logs::start_position(&api.store, site, log).await?.is_none() {
        return Err(Problem::not_found(name));
    }
    let tokens = tokens(api, &bound);
    // Every page: a token may be somebody else's, and old.
    api.note_read(caller, site, Reading::Entries { log, message: filter.chunks.message }).await?;
    let (entries, next) = read(&api.store, site, &filter, start, size).await?;
    let next_page_token = next.map(|place| tokens.make(&place.to_string())).unwrap_or_default();
    Ok(ListLogEntriesResponse { entries, next_page_token })
}

/// Up to `size` entries from a place on, and the place of the next one.
async fn read(
    store: &Store,
    site: &SiteId,
    filter: &EntryFilter,
    start: Place,
    size: usize,
) -> Result<(Vec<ProtoEntry>, Option<Place>), Problem> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut place = start;
    loop {
        let chunks = logs::read(store, site, &filter.chunks, place.position, CHUNKS).await?;
        if chunks.is_empty() {
            return Ok((entries, None));
        }
        for stored in chunks {
            let skip = if stored.position == place.position { place.entry } else { 0 };
            for (index, entry) in stored.chunk.entries.iter().enumerate().skip(skip) {
                if !filter.keeps(entry) {
                    continue;
                }
                if entries.len() == size || bytes >= PAGE_BYTES {
                    return Ok((entries, Some(Place { position: stored.position, entry: index })));
                }
                let entry = convert::entry(&stored.chunk, entry);
                bytes += size_of::<ProtoEntry>() + convert::text_bytes(&entry);
                entries.push(entry);
            }
            place = Place { position: stored.position + 1, entry: 0 };
        }
    }
}

/// An entry's place in a log: its chunk, and its number in it.
#[derive(Clone, Copy, Default)]
struct Place {
    position: i64,
    entry: usize,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (position, entry) = text.split_once('.')?;
        Some(Self { position: position.parse().ok()?, entry: entry.parse().ok()? })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.position, self.entry)
    }
}

/// Which entries to list.
struct EntryFilter {
    chunks: ChunkFilter,
    kinds: Vec<EntryKind>,
}

impl EntryFilter {
    fn parse(site: Option<&SiteId>, request: ListLogEntriesRequest, violations: &mut Violations) -> Self {
        let ListLogEntriesRequest {
            name: _,
            page_size: _,
            page_token: _,
            kinds,
            session,
            message,
            start_time,
            end_time,
        } = request;
        let mut wanted = Vec::with_capacity(kinds.len());
        for (index, kind) in kinds.into_iter().enumerate() {
            let kind = convert::kind_from_proto(kind).ok_or("is not a kind of entry");
            wanted.extend(violations.take(&format!("kinds[{index}]"), kind));
        }
        let session =
            (!session.is_empty()).then(|| violations.take("session", Uuid::try_parse(&session))).flatten();
        let message = violations.within(site, "message", &message, fields::message);
        let start_time = violations.time("start_time", start_time);
        let end_time = violations.time("end_time", end_time);
        let chunks = ChunkFilter { logs: Vec::new(), message, session, start_time, end_time };
        Self { chunks, kinds: wanted }
    }

    fn keeps(&self, entry: &Entry) -> bool {
        let ChunkFilter { start_time, end_time, .. } = self.chunks;
        (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && start_time.is_none_or(|start| entry.time >= start)
            && end_time.is_none_or(|end| entry.time < end)
    }
}
