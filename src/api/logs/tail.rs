//! The live tail of transcripts: what is stored behind the reader's place, then what is added, as it is added.
//!
//! The table is the truth; memory only wakes. A reader that does not read holds up its own task at a small channel,
//! and is served from the table when it reads again.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use super::convert;
use crate::api::Api;
use crate::api::auth::Credentials;
use crate::api::fields::{self, Violations};
use crate::api::page::Tokens;
use crate::api::proto::tail_log_entries_request::Start;
use crate::api::proto::{LogEntry as ProtoEntry, TailLogEntriesRequest, TailLogEntriesResponse};
use crate::domain::error::{Problem, Reason};
use crate::domain::log::LogId;
use crate::domain::site::SiteId;
use crate::store::logs::{self, ChunkFilter, StoredChunk};

/// A stream of responses.
pub(super) type EntryStream = ReceiverStream<Result<TailLogEntriesResponse, Status>>;

/// Most logs that one stream may name.
const MAX_LOGS: usize = 100;
/// Most entries of history.
const MAX_HISTORY: i32 = 1_000;
/// Chunks sent in one response; with the content of letters a chunk has up to about 100 KiB, so that what a stream
/// holds stays below 1 MiB.
const CHUNKS: i64 = 8;
/// Responses that wait for the reader, beside the one being made.
const RESPONSES_IN_FLIGHT: usize = 1;
/// The table is looked at so often, whatever was heard: other replicas write it, too.
const POLL: Duration = Duration::from_secs(1);
/// A response comes at least so often (API 6).
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Whether the key still counts is asked so often. With the 2 s for which a good key is remembered, and a poll until this
/// is noticed, a revoked one is dead within 5 s (API 9).
const KEY_CHECK: Duration = Duration::from_secs(1);

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
        Start::ResumeToken(token) => Place::Token(token),
        Start::StartTime(time) => Place::Time(violations.take("start_time", fields::timestamp(time))),
    });
    violations.finish()?;
    let mut tail =
        Tail { api: Arc::clone(api), credentials, site, filter, bound, position: 0, start_time: None };
    let mut first = Vec::new();
    match start {
        Some(Place::Token(token)) => tail.position = tail.read_token(&token)?,
        Some(Place::Time(time)) => {
            tail.filter.start_time = time;
            tail.start_time = time;
        }
        None => {
            tail.position = logs::last_position(&tail.api.store, &tail.site).await?;
            first = tail.history(history).await?;
        }
    }
    let (responses, stream) = mpsc::channel(RESPONSES_IN_FLIGHT);
    tokio::spawn(tail.run(first, responses).in_current_span());
    Ok(ReceiverStream::new(stream))
}

/// Where a tail begins, if not now; a time is missing where it is none.
enum Place {
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
    api: Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    filter: ChunkFilter,
    /// What resume tokens are bound to.
    bound: [Vec<u8>; 4],
    /// Everything at or below it was sent.
    position: i64,
    /// Entries before it are left out.
    start_time: Option<OffsetDateTime>,
}

impl Tail {
    /// Sends until the reader leaves, the key ends or the server stops.
    async fn run(
        mut self,
        first: Vec<ProtoEntry>,
        responses: mpsc::Sender<Result<TailLogEntriesResponse, Status>>,
    ) {
        let stop = self.api.stop.clone();
        let end = tokio::select! {
            end = self.follow(first, &responses) => end,
            () = stop.cancelled() => {
                let text = "the server is stopping: resume with the last token, on another replica or soon";
                Some(Problem::new(Reason::ShuttingDown, text).retry_after(POLL))
            }
        };
        if let Some(problem) = end {
            // Fails only where the reader has left, who then needs no answer.
            let _ = responses.send(Err(problem.into())).await;
        }
    }

    /// Why the stream ends; `None` where the reader has left.
    async fn follow(
        &mut self,
        first: Vec<ProtoEntry>,
        responses: &mpsc::Sender<Result<TailLogEntriesResponse, Status>>,
    ) -> Option<Problem> {
        let store = self.api.store.clone();
        let mut recorded = store.changes().watch(&self.site);
        let mut checked = Instant::now();
        // The first response comes at once, so that the reader has a token to come back with.
        let mut unsent = Some(first);
        let mut heartbeat = Instant::now() + HEARTBEAT;
        loop {
            recorded.mark_unchanged();
            if checked.elapsed() >= KEY_CHECK {
                if let Err(problem) = self.api.authenticator.still_counts(&self.credentials).await {
                    return Some(problem);
                }
                checked = Instant::now();
            }
            let (entries, more) = match self.advance().await {
                Ok(advanced) => advanced,
                Err(problem) => return Some(problem),
            };
            let due = unsent.is_some() || !entries.is_empty() || Instant::now() >= heartbeat;
            if due {
                let mut all = unsent.take().unwrap_or_default();
                all.extend(entries);
                let response = TailLogEntriesResponse { entries: all, resume_token: self.token() };
                if responses.send(Ok(response)).await.is_err() {
                    return None;
                }
                heartbeat = Instant::now() + HEARTBEAT;
            }
            if !more {
                tokio::select! {
                    () = responses.closed() => return None,
                    _ = timeout_at(heartbeat.min(Instant::now() + POLL), recorded.changed()) => {}
                }
            }
        }
    }

    /// The next entries, and whether there may be more at once.
    async fn advance(&mut self) -> Result<(Vec<ProtoEntry>, bool), Problem> {
        let store = &self.api.store;
        // Asked for before the chunks: whatever is at or below it is seen by the read that follows.
        let last = logs::last_position(store, &self.site).await?;
        if last <= self.position {
            return Ok((Vec::new(), false));
        }
        let chunks = logs::read(store, &self.site, &self.filter, self.position + 1, CHUNKS).await?;
        let more = i64::try_from(chunks.len()).unwrap_or(i64::MAX) == CHUNKS;
        let seen = chunks.last().map_or(0, |chunk| chunk.position);
        self.position = if more { seen } else { last.max(seen) };
        Ok((self.entries(&chunks), more))
    }

    /// The last entries up to the position, oldest first.
    async fn history(&self, count: usize) -> Result<Vec<ProtoEntry>, Problem> {
        let mut newest_first: Vec<ProtoEntry> = Vec::new();
        let mut upto = self.position;
        while newest_first.len() < count {
            let chunks = logs::read_back(&self.api.store, &self.site, &self.filter, upto, CHUNKS).await?;
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

    fn token(&self) -> String {
        self.tokens().make(&self.position.to_string())
    }

    fn read_token(&self, token: &str) -> Result<i64, Problem> {
        self.tokens().read(token).and_then(|position| position.parse().ok()).ok_or_else(|| {
            let text = "this resume token is not one of this call, or what it stands for is gone";
            Problem::new(Reason::ResumeTokenExpired, text)
        })
    }

    fn tokens(&self) -> Tokens<'_> {
        let bound = self.bound.each_ref().map(Vec::as_slice);
        Tokens::new(self.api.store.vault(), "log tail", &bound)
    }
}
