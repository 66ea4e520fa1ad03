//! The live tail of transcripts: which chunks it is about, and what is told of them. `api::follow` does the following.

use std::sync::Arc;

use time::OffsetDateTime;

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
use crate::domain::access::Right;
use crate::domain::audit::{Reading, Tailed};
use crate::domain::error::Problem;
use crate::domain::log::LogId;
use crate::domain::site::SiteId;
use crate::store::Store;
use crate::store::logs::{self, ChunkFilter, StoredChunk};

/// A stream of responses.
pub(super) type EntryStream = Responses<TailLogEntriesResponse>;

/// Most logs that one stream may name.
const MAX_LOGS: usize = 100;
/// Most entries of history.
const MAX_HISTORY: i32 = 1_000;
/// Chunks read at once; one has up to about 32 KiB.
const CHUNKS: i64 = 8;
/// A response is full with so many bytes in memory: one waits for the reader, one is being made, and one is on its way, so
/// that what a stream holds stays below 1 MiB.
const RESPONSE_BYTES: usize = 64 * 1024;

/// What a tail of these logs takes; none = all but the log `audit`.
pub(super) fn right(logs: &[String]) -> Right {
    let is_audit = |name: &String| matches!(fields::log("logs", name), Ok((_, LogId::Audit)));
    if logs.iter().any(is_audit) { Right::ReadAudit } else { Right::ReadLogs }
}

/// Starts a tail.
///
/// # Errors
/// `INVALID_FIELD`, `NOT_FOUND` for the site, `RESUME_TOKEN_EXPIRED`.
pub(super) async fn start(
    api: &Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    request: TailLogEntriesRequest,
) -> Result<EntryStream, Problem> {
    let TailLogEntriesRequest { parent: _, logs, account, message, start, history } = request;
    let bound = [site.as_str(), &logs.join(" "), &account, &message].map(|part| part.as_bytes().to_vec());
    let mut violations = Violations::default();
    let filter = parse_filter(&site, &logs, &account, &message, &mut violations);
    let history = match usize::try_from(history) {
        Ok(1..) if start.is_some() => Err("must not be set together with a start"),
        Ok(count) if history <= MAX_HISTORY => Ok(count),
        _ => Err("must be 0 to 1,000"),
    };
    let history = violations.take("history", history).unwrap_or_default();
    let start = start.map(|start| match start {
        Start::ResumeToken(token) => Beginning::Token(token),
        Start::StartTime(time) => Beginning::Time(violations.take("start_time", fields::timestamp(time))),
    });
    violations.finish()?;
    let mut tail = Tail { store: api.store.clone(), site: site.clone(), filter, bound, start_time: None };
    let mut place = Place { position: 0, time: api.store.clock().now() };
    let mut first = Vec::new();
    match start {
        Some(Beginning::Token(token)) => place.position = tail.resume(&token).await?,
        Some(Beginning::Time(time)) => {
            tail.filter.start_time = time;
            tail.start_time = time;
        }
        None => {
            place.position = tail.last_position().await?;
            first = tail.history(place.position, history).await?;
        }
    }
    let reading = Reading::Tail { logs: Tailed::of(&tail.filter.logs), message: tail.filter.message };
    api.note_read(&credentials.caller, &site, reading).await?;
    Ok(follow::follow(api, credentials, site, tail, place, first))
}

/// Where a tail begins, if not now; a time is missing where it is none.
enum Beginning {
    Token(String),
    Time(Option<OffsetDateTime>),
}

/// Which chunks a tail is about.
fn parse_filter(
    site: &SiteId,
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
    let account = (!account.is_empty())
        .then(|| violations.take_parsed(fields::within(site, "account", account, fields::account)))
        .flatten();
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
    let message = (!message.is_empty())
        .then(|| violations.take_parsed(fields::within(site, "message", message, fields::message)))
        .flatten();
    ChunkFilter { logs: wanted, message, ..ChunkFilter::default() }
}

struct Tail {
    store: Store,
    site: SiteId,
    filter: ChunkFilter,
    /// What resume tokens are bound to.
    bound: [Vec<u8>; 4],
    /// Entries before it are left out.
    start_time: Option<OffsetDateTime>,
}

/// What a tail tells.
enum Told {
    Entry(ProtoEntry),
    Restart(ProtoRestart),
}

impl Followed for Tail {
    type Item = Told;
    type Response = TailLogEntriesResponse;

    async fn last_position(&self) -> Result<i64, Problem> {
        Ok(logs::last_position(&self.store, &self.site).await?)
    }

    async fn read(&self, behind: i64, last: i64) -> Result<Batch<Told>, Problem> {
        let mut chunks = logs::read(&self.store, &self.site, &self.filter, behind + 1, CHUNKS).await?;
        let read = chunks.len();
        let (mut told, mut bytes, mut fitting) = (Vec::new(), 0, 0);
        for stored in &chunks {
            if bytes >= RESPONSE_BYTES {
                break;
            }
            fitting += 1;
            for entry in self.entries(stored) {
                bytes += size_of::<ProtoEntry>() + convert::text_bytes(&entry);
                told.push(Told::Entry(entry));
            }
        }
        chunks.truncate(fitting);
        let more = fitting < read || i64::try_from(read).unwrap_or(i64::MAX) == CHUNKS;
        let reached = match chunks.last() {
            Some(seen) if more => seen.position,
            seen => seen.map_or(last, |seen| seen.position.max(last)),
        };
        // Asked after the chunks: what of them is of before a restart was read before it happened, and that restart then
        // lies behind `reached`.
        let restarts = logs::restarts(&self.store, &self.site, &self.filter, behind, reached).await?;
        let wanted = restarts.into_iter().filter(|(_, restart)| self.is_wanted(restart.time));
        told.extend(wanted.map(|(log, restart)| Told::Restart(convert::restart(&self.site, log, restart))));
        let place = |stored: &StoredChunk| {
            let time = stored.chunk.entries.first().map_or(OffsetDateTime::UNIX_EPOCH, |entry| entry.time);
            Place { position: stored.position, time }
        };
        Ok(Batch { items: told, last: chunks.last().map(place), more })
    }

    /// The position, and the start that was asked for: logs are kept by size and time of their own, not by the time of
    /// their entries.
    fn token(&self, Place { position, time: _ }: Place) -> String {
        let start =
            self.start_time.map(|start| format!("/{}", start.unix_timestamp_nanos())).unwrap_or_default();
        self.tokens().make(&format!("{position}{start}"))
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
    /// The last entries up to the position, oldest first.
    async fn history(&self, mut upto: i64, count: usize) -> Result<Vec<Told>, Problem> {
        let mut newest_first: Vec<ProtoEntry> = Vec::new();
        while newest_first.len() < count {
            let chunks = logs::read_back(&self.store, &self.site, &self.filter, upto, CHUNKS).await?;
            let Some(oldest) = chunks.last() else { break };
            upto = oldest.position - 1;
            for stored in &chunks {
                newest_first.extend(
                    stored.chunk.entries.iter().rev().map(|entry| convert::entry(&stored.chunk, entry)),
                );
            }
        }
        newest_first.truncate(count);
        Ok(newest_first.into_iter().rev().map(Told::Entry).collect())
    }

    /// What is told of a chunk.
    fn entries(&self, stored: &StoredChunk) -> impl Iterator<Item = ProtoEntry> {
        let wanted = stored.chunk.entries.iter().filter(|entry| self.is_wanted(entry.time));
        wanted.map(|entry| convert::entry(&stored.chunk, entry))
    }

    fn is_wanted(&self, time: OffsetDateTime) -> bool {
        self.start_time.is_none_or(|start| time >= start)
    }

    /// Goes on from a token.
    async fn resume(&mut self, token: &str) -> Result<i64, Problem> {
        let place = self.tokens().read(token).ok_or_else(follow::token_expired)?;
        let (position, start) = match place.split_once('/') {
            Some((position, start)) => (position, start.parse().ok()),
            None => (place.as_str(), None),
        };
        let position = position.parse().map_err(|_| follow::token_expired())?;
        self.start_time = start.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
        self.filter.start_time = self.start_time;
        // A place behind the last one is of another life of the database.
        let known = logs::horizon(&self.store, &self.site).await?..=self.last_position().await?;
        if known.contains(&position) { Ok(position) } else { Err(follow::token_expired()) }
    }

    fn tokens(&self) -> Tokens<'_> {
        let bound = self.bound.each_ref().map(Vec::as_slice);
        Tokens::new(self.store.vault(), "log tail", &bound)
    }
}
