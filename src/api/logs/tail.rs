//! The live tail of transcripts: which chunks it is about, and what is told of them. `api::follow` does the following.

use std::ops::RangeInclusive;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::convert;
use crate::api::Api;
use crate::api::auth::Credentials;
use crate::api::fields::{self, Violations};
use crate::api::follow::{self, Batch, Followed, Place, Responses};
use crate::api::page::Tokens;
use crate::api::proto::tail_log_entries_request::Start;
use crate::api::proto::{
    LogEntry as ProtoEntry, Restart as ProtoRestart, TailLogEntriesRequest, TailLogEntriesResponse,
};
use crate::domain::access::{Right, Rpc};
use crate::domain::audit::{Reading, Tailed};
use crate::domain::error::Problem;
use crate::domain::log::LogId;
use crate::domain::site::SiteId;
use crate::metrics::Followed as Counted;
use crate::store::Store;
use crate::store::logs::{self, ChunkFilter, Follower, Part, StoredChunk};

/// A stream of responses.
pub(super) type EntryStream = Responses<TailLogEntriesResponse>;

/// Most logs that one stream may name.
const MAX_LOGS: usize = 100;
/// Most entries of history.
const MAX_HISTORY: i32 = 1_000;
/// Chunks of history read at once.
const CHUNKS: i64 = 64;
/// A response is full with so many bytes in memory, and with what the last chunk has beyond. One waits for the reader and one
/// is on its way, so that what a stream holds stays below 1 MiB.
const RESPONSE_BYTES: usize = 384 * 1024;
/// What an entry of a response takes beside its text: its names and the message itself.
const ENTRY_BYTES: usize = 320;

/// What a tail of these logs takes; none = all but the log `audit`.
pub(super) fn right(logs: &[String]) -> Right {
    let is_audit = |name: &String| matches!(fields::log("logs", name), Ok((_, LogId::Audit)));
    Rpc::TailLogEntries.right_if(logs.iter().any(is_audit))
}

/// What a request asks for.
pub(super) struct Wanted {
    /// What resume tokens are bound to, beside the site.
    bound: [Vec<u8>; 3],
    filter: ChunkFilter,
    history: usize,
    start: Option<Beginning>,
}

impl Wanted {
    /// Parses a request.
    ///
    /// # Errors
    /// `INVALID_FIELD` with everything that is wrong.
    pub(super) fn parse(site: Option<&SiteId>, request: TailLogEntriesRequest) -> Result<Self, Problem> {
        let TailLogEntriesRequest { parent: _, logs, account, message, start, history } = request;
        let bound = [&logs.join(" "), &account, &message].map(|part| part.as_bytes().to_vec());
        let mut violations = Violations::default();
        let filter = parse_filter(site, &logs, &account, &message, &mut violations);
        let history = match usize::try_from(history) {
            Ok(1..) if start.is_some() => Err("must not be set together with a start"),
            Ok(count) if history <= MAX_HISTORY => Ok(count),
            _ => Err("must be 0 to 1,000"),
        };
        let history = violations.take("history", history).unwrap_or_default();
        let start = start.map(|start| match start {
            Start::ResumeToken(token) => Beginning::Token(token),
            Start::StartTime(time) => Beginning::Time(violations.time("start_time", Some(time))),
        });
        violations.finish()?;
        Ok(Self { bound, filter, history, start })
    }
}

/// Starts a tail.
///
/// # Errors
/// `INVALID_FIELD`, `NOT_FOUND` for the site, `RESUME_TOKEN_EXPIRED`.
pub(super) async fn start(
    api: &Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    wanted: Wanted,
) -> Result<EntryStream, Problem> {
    let Wanted { bound: [logs, account, message], mut filter, history, start } = wanted;
    let bound = [site.as_str().as_bytes().to_vec(), logs, account, message];
    let store = &api.store;
    let known = logs::known_positions(store, &site).await?;
    let mut history_start = None;
    let position = match start {
        Some(Beginning::Token(token)) => {
            let (position, start_time) = resume(&tokens(store, &bound), &token, &known)?;
            filter.start_time = start_time;
            position
        }
        Some(Beginning::Time(time)) => {
            filter.start_time = time;
            0
        }
        None => {
            let last = *known.end();
            history_start = find_history(store, &site, &filter, last, history).await?;
            history_start.map_or(last, |start| start.chunk - 1)
        }
    };
    let reading = Reading::Tail { logs: Tailed::of(&filter.logs), message: filter.message };
    api.note_read(&credentials.caller, &site, reading).await?;
    let tail = Tail {
        store: store.clone(),
        site: site.clone(),
        start_time: filter.start_time,
        follower: Follower::new(store, &site, filter),
        history_start,
        horizon: *known.start(),
        bound,
    };
    let place = Place { position, time: store.clock().now() };
    Ok(follow::follow(api, credentials, site, tail, place))
}

/// Where a tail begins, if not now; a time is missing where it is none.
enum Beginning {
    Token(String),
    Time(Option<OffsetDateTime>),
}

/// Which chunks a tail is about.
fn parse_filter(
    site: Option<&SiteId>,
    logs: &[String],
    account: &str,
    message: &str,
    violations: &mut Violations,
) -> ChunkFilter {
    if logs.len() > MAX_LOGS {
        violations.add("logs", format!("must be at most {MAX_LOGS}"));
    }
    let log = |(index, name): (usize, &String)| {
        let field = format!("logs[{index}]");
        violations.take_parsed(fields::within(site, &field, name, fields::log))
    };
    let mut wanted: Vec<LogId> = logs.iter().take(MAX_LOGS).enumerate().filter_map(log).collect();
    let account = violations.within(site, "account", account, fields::account);
    if let Some(id) = account {
        let own = LogId::of_account(id);
        if logs.is_empty() {
            wanted.extend(own);
        } else if !wanted.is_empty() {
            wanted.retain(|log| own.contains(log));
            if wanted.is_empty() {
                violations.add("logs", "must be logs of the account that is named");
            }
        }
    }
    let message = violations.within(site, "message", message, fields::message);
    ChunkFilter { logs: wanted, message, ..ChunkFilter::default() }
}

struct Tail {
    store: Store,
    site: SiteId,
    follower: Follower,
    /// What resume tokens are bound to.
    bound: [Vec<u8>; 4],
    /// Entries before it are left out.
    start_time: Option<OffsetDateTime>,
    history_start: Option<HistoryStart>,
    /// Up to where things had been forgotten when the stream began.
    horizon: i64,
}

/// What a tail tells.
enum Told {
    Entry(ProtoEntry),
    Restart(ProtoRestart),
}

impl Followed for Tail {
    const COUNTED: Counted = Counted::Logs;
    type Item = Told;
    type Response = TailLogEntriesResponse;

    async fn read(&self, behind: Place, since: Instant) -> Result<Batch<Told>, Problem> {
        let mut bytes = 0;
        let takes = |stored: &StoredChunk| {
            let has_room = bytes < RESPONSE_BYTES;
            bytes += stored.chunk.entries.iter().map(|entry| ENTRY_BYTES + entry.text.len()).sum::<usize>();
            has_room
        };
        let Part { chunks, restarts, reached, more } =
            self.follower.next(behind.position, since.into_std(), takes).await?;
        let news = self.history_start.map_or(0, |start| start.last);
        let restarts = restarts.into_iter();
        let restarts =
            restarts.filter(|stored| stored.position > news && self.is_wanted(stored.restart.time));
        let restarts = restarts.map(|stored| Told::Restart(convert::restart(&self.site, &stored)));
        let entries = chunks.iter().flat_map(|stored| self.entries(stored)).map(Told::Entry);
        let items = restarts.chain(entries).collect();
        Ok(Batch { items, reached: Place { position: reached, ..behind }, more })
    }

    /// The position, what was forgotten when the stream began, and the start that was asked for: logs are kept by size and
    /// time of their own, not by the time of their entries.
    fn token(&self, Place { position, time: _ }: Place) -> String {
        let start =
            self.start_time.map(|start| format!("/{}", start.unix_timestamp_nanos())).unwrap_or_default();
        tokens(&self.store, &self.bound).make(&format!("{position}/{}{start}", self.horizon))
    }

    fn response(&self, told: Vec<Told>, resume_token: String) -> TailLogEntriesResponse {
        let (mut entries, mut restarts) = (Vec::with_capacity(told.len()), Vec::new());
        for told in told {
            match told {
                Told::Entry(entry) => entries.push(entry),
                Told::Restart(restart) => restarts.push(restart),
            }
        }
        TailLogEntriesResponse { entries, resume_token, restarts }
    }
}

impl Tail {
    /// What is told of a chunk.
    fn entries(&self, stored: &StoredChunk) -> impl Iterator<Item = ProtoEntry> {
        let start = self.history_start.filter(|start| start.chunk == stored.position);
        let skipped = start.map_or(0, |start| start.skipped);
        let wanted = stored.chunk.entries.iter().skip(skipped).filter(|entry| self.is_wanted(entry.time));
        wanted.map(|entry| convert::entry(&stored.chunk, entry))
    }

    fn is_wanted(&self, time: OffsetDateTime) -> bool {
        self.start_time.is_none_or(|start| time >= start)
    }
}

/// Tokens of tails with these arguments.
fn tokens<'a>(store: &'a Store, bound: &[Vec<u8>; 4]) -> Tokens<'a> {
    Tokens::new(store.vault(), "log tail", &bound.each_ref().map(Vec::as_slice))
}

/// The position and the start time of a token.
///
/// # Errors
/// `RESUME_TOKEN_EXPIRED` where something was forgotten since behind its position, and for a place behind the last one,
/// which is of another life of the database.
fn resume(
    tokens: &Tokens<'_>,
    token: &str,
    known: &RangeInclusive<i64>,
) -> Result<(i64, Option<OffsetDateTime>), Problem> {
    let place = tokens.read(token).ok_or_else(follow::token_expired)?;
    let mut parts = place.split('/').map(str::parse::<i128>);
    let mut part = || parts.next().and_then(Result::ok);
    let mut position = || part().and_then(|part| i64::try_from(part).ok()).ok_or_else(follow::token_expired);
    let (position, horizon) = (position()?, position()?);
    if *known.start() > position.max(horizon) || *known.end() < position {
        return Err(follow::token_expired());
    }
    Ok((position, part().and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())))
}

/// Where a tail with history begins: it is told from there on, in parts, as whatever follows.
#[derive(Clone, Copy)]
struct HistoryStart {
    /// The position of its first chunk.
    chunk: i64,
    /// Entries of that chunk that are left out.
    skipped: usize,
    /// The last position of before: restarts up to there are no news.
    last: i64,
}

/// Where the last `count` entries up to the position `last` begin; `None` where there is none.
async fn find_history(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    last: i64,
    count: usize,
) -> Result<Option<HistoryStart>, Problem> {
    let (mut upto, mut missing, mut start) = (last, count, None);
    while missing > 0 {
        let chunks = logs::read_back(store, site, filter, upto, CHUNKS).await?;
        let Some(oldest) = chunks.last() else { break };
        upto = oldest.position - 1;
        for stored in &chunks {
            if missing == 0 {
                break;
            }
            let skipped = stored.chunk.entries.len().saturating_sub(missing);
            missing = missing.saturating_sub(stored.chunk.entries.len());
            start = Some(HistoryStart { chunk: stored.position, skipped, last });
        }
    }
    Ok(start)
}
