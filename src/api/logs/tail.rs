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
use crate::api::proto::{LogEntry as ProtoEntry, TailLogEntriesRequest, TailLogEntriesResponse};
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
/// Chunks sent in one response; with the content of letters a chunk has up to about 100 KiB, so that what a stream
/// holds stays below 1 MiB.
const CHUNKS: i64 = 8;

/// Starts a tail.
///
/// # Errors
/// `INVALID_FIELD`, `RESUME_TOKEN_EXPIRED`.
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
        Some(Beginning::Token(token)) => place.position = tail.read_token(&token)?,
        Some(Beginning::Time(time)) => {
            tail.filter.start_time = time;
            tail.start_time = time;
        }
        None => {
            place.position = tail.last_position().await?;
            first = tail.history(place.position, history).await?;
        }
    }
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

impl Followed for Tail {
    type Item = ProtoEntry;
    type Response = TailLogEntriesResponse;

    async fn last_position(&self) -> Result<i64, Problem> {
        Ok(logs::last_position(&self.store, &self.site).await?)
    }

    async fn read(&self, behind: i64) -> Result<Batch<ProtoEntry>, Problem> {
        let chunks = logs::read(&self.store, &self.site, &self.filter, behind + 1, CHUNKS).await?;
        let place = |stored: &StoredChunk| {
            let time = stored.chunk.entries.first().map_or(OffsetDateTime::UNIX_EPOCH, |entry| entry.time);
            Place { position: stored.position, time }
        };
        Ok(Batch {
            items: self.entries(&chunks),
            last: chunks.last().map(place),
            more: i64::try_from(chunks.len()).unwrap_or(i64::MAX) == CHUNKS,
        })
    }

    /// The position alone: transcripts are kept by size and time of their log, not by their own age.
    fn token(&self, Place { position, time: _ }: Place) -> String {
        self.tokens().make(&position.to_string())
    }

    fn response(&self, entries: Vec<ProtoEntry>, resume_token: String) -> TailLogEntriesResponse {
        TailLogEntriesResponse { entries, resume_token }
    }
}

impl Tail {
    /// The last entries up to the position, oldest first.
    async fn history(&self, mut upto: i64, count: usize) -> Result<Vec<ProtoEntry>, Problem> {
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
        newest_first.reverse();
        Ok(newest_first)
    }

    fn entries(&self, chunks: &[StoredChunk]) -> Vec<ProtoEntry> {
        let of_chunk = |stored: &StoredChunk| -> Vec<ProtoEntry> {
            let wanted =
                stored.chunk.entries.iter().filter(|e| self.start_time.is_none_or(|start| e.time >= start));
            wanted.map(|entry| convert::entry(&stored.chunk, entry)).collect()
        };
        chunks.iter().flat_map(of_chunk).collect()
    }

    fn read_token(&self, token: &str) -> Result<i64, Problem> {
        let position = self.tokens().read(token).and_then(|position| position.parse().ok());
        position.ok_or_else(follow::token_expired)
    }

    fn tokens(&self) -> Tokens<'_> {
        let bound = self.bound.each_ref().map(Vec::as_slice);
        Tokens::new(self.store.vault(), "log tail", &bound)
    }
}
