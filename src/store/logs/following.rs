//! Following the logs of a site. What was added last is kept in memory, once for all who follow the site: a hundred readers
//! ask the tables as often as one. The tables are the truth: whoever is behind what is kept reads there.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::super::{Store, StoreError};
use super::reading::{self, Audit, ChunkFilter, StoredChunk, StoredRestart};
use crate::domain::log::LogId;
use crate::domain::site::SiteId;

/// Chunks read at once.
const CHUNKS: i64 = 256;
/// Asking the tables for what was added, and standing in line for it, takes no longer.
const RENEWAL: Duration = Duration::from_secs(3);
/// Chunks and bytes kept of a site.
const KEPT: usize = 512;
const KEPT_BYTES: usize = 1024 * 1024;
/// With more sites than so many, those that nobody follows any more are forgotten.
const SITES: usize = 64;

/// What is kept of the sites that somebody follows.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<SiteId, Weak<Window>>>);

/// What is kept of a site, and whoever is just adding to it.
type Window = tokio::sync::Mutex<Kept>;

impl Recent {
    fn window(&self, site: &SiteId) -> Arc<Window> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = sites.get(site).and_then(Weak::upgrade) {
            return window;
        }
        if sites.len() >= SITES {
            sites.retain(|_, window| window.strong_count() > 0);
        }
        let window = Arc::new(Window::default());
        sites.insert(site.clone(), Arc::downgrade(&window));
        window
    }
}

/// Every living chunk and restart behind the position `from`, up to `to`; of no log a chunk of before its last restart.
#[derive(Debug, Default)]
struct Kept {
    /// When the tables were asked last; never until there is a time.
    asked: Option<Instant>,
    from: i64,
    to: i64,
    /// Whether the tables had more than was added.
    more: bool,
    chunks: VecDeque<Arc<StoredChunk>>,
    restarts: VecDeque<StoredRestart>,
}

/// What comes next for a follower.
#[derive(Debug)]
pub struct Part {
    /// Chunks, oldest first.
    pub chunks: Vec<Arc<StoredChunk>>,
    /// Logs that began afresh: what of them is among the chunks came after it.
    pub restarts: Vec<StoredRestart>,
    /// All that was asked for up to this position is told.
    pub reached: i64,
    /// Whether there may be more.
    pub more: bool,
}

/// Somebody who follows logs of a site.
pub struct Follower {
    store: Store,
    site: SiteId,
    filter: ChunkFilter,
    window: Arc<Window>,
}

impl Follower {
    /// One who asks for these logs, this letter and this start time.
    #[must_use]
    pub fn new(store: &Store, site: &SiteId, filter: ChunkFilter) -> Self {
        Self { store: store.clone(), site: site.clone(), filter, window: store.recent.window(site) }
    }

    /// Some of what lies behind this position, as it was at `since` or later. Chunks are taken as long as `takes` says.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next(
        &self,
        behind: i64,
        since: Instant,
        takes: impl FnMut(&StoredChunk) -> bool + Send,
    ) -> Result<Part, StoreError> {
        let renewed = async {
            let mut kept = self.window.lock().await;
            if kept.asked.is_none_or(|asked| asked < since) {
                kept.renew(&self.store, &self.site).await?;
            }
            Ok::<_, StoreError>(kept)
        };
        // One who is slow to be answered holds up all the others no longer than this.
        let kept = timeout(RENEWAL, renewed).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let part = if behind < kept.from {
            let (to, more) = (kept.to, kept.more);
            drop(kept);
            self.read(behind, to, more, takes).await?
        } else {
            let part = kept.part(&self.filter, behind, takes);
            drop(kept);
            part
        };
        if self.filter.message.is_some() && !part.restarts.is_empty() {
            // Which logs a letter has to do with only the tables know.
            let restarts = self.restarts(behind, part.reached).await?;
            return Ok(Part { restarts, ..part });
        }
        Ok(part)
    }

    /// What lies behind this position in the tables, which reach to `to` at least, or beyond it.
    async fn read(
        &self,
        behind: i64,
        to: i64,
        beyond: bool,
        takes: impl FnMut(&StoredChunk) -> bool + Send,
    ) -> Result<Part, StoreError> {
        let mut chunks = reading::read(&self.store, &self.site, &self.filter, behind + 1, CHUNKS).await?;
        let fitting = chunks.iter().map(takes).take_while(|taken| *taken).count();
        chunks.truncate(fitting);
        let reached = chunks.last().map_or(to, |last| last.position);
        let more = beyond || !chunks.is_empty();
        // Asked after the chunks: what of them is of before a restart was read before it happened, and that restart then
        // lies behind `reached`.
        let restarts = self.restarts(behind, reached).await?;
        Ok(Part { chunks: chunks.into_iter().map(Arc::new).collect(), restarts, reached, more })
    }

    async fn restarts(&self, behind: i64, upto: i64) -> Result<Vec<StoredRestart>, StoreError> {
        reading::restarts(&self.store, &self.site, &self.filter, Audit::WhereNamed, behind, upto).await
    }
}

impl Kept {
    /// Adds what the tables have more. Changes nothing before all of it was read, since a reader may leave meanwhile.
    async fn renew(&mut self, store: &Store, site: &SiteId) -> Result<(), StoreError> {
        let asked = Instant::now();
        // Asked for before the rows: whatever is at or below it is seen by the reads that follow.
        let last = reading::last_position(store, site).await?;
        if self.asked.is_none() {
            (self.from, self.to) = (last, last);
        }
        self.more = last > self.to;
        if self.more {
            let all = ChunkFilter::default();
            let chunks = reading::read_with(store, site, &all, Audit::Always, self.to + 1, CHUNKS).await?;
            let reached = chunks.last().map_or(last, |last| last.position);
            let restarts = reading::restarts(store, site, &all, Audit::Always, self.to, reached).await?;
            for restart in restarts {
                self.chunks.retain(|old| old.chunk.log != restart.log || old.position >= restart.position);
                self.restarts.retain(|old| old.log != restart.log);
                self.restarts.push_back(restart);
            }
            self.chunks.extend(chunks.into_iter().map(Arc::new));
            (self.to, self.more) = (reached, reached < last);
            self.trim();
        }
        self.asked = Some(asked);
        Ok(())
    }

    /// Forgets the oldest of what is too much.
    fn trim(&mut self) {
        let mut bytes: usize = self.chunks.iter().map(|stored| stored.chunk.bytes()).sum();
        while self.chunks.len() > KEPT || bytes > KEPT_BYTES {
            let Some(oldest) = self.chunks.pop_front() else { break };
            bytes -= oldest.chunk.bytes();
            self.from = self.from.max(oldest.position);
        }
        while self.restarts.len() > KEPT {
            let Some(oldest) = self.restarts.pop_front() else { break };
            self.from = self.from.max(oldest.position);
        }
        let from = self.from;
        self.restarts.retain(|restart| restart.position > from);
        self.chunks.retain(|stored| stored.position > from);
    }

    /// What lies behind this position, which is not below what is kept.
    fn part(&self, filter: &ChunkFilter, behind: i64, mut takes: impl FnMut(&StoredChunk) -> bool) -> Part {
        let mut chunks = Vec::new();
        let mut reached = behind.max(self.to);
        let mut more = self.more;
        let first = self.chunks.partition_point(|stored| stored.position <= behind);
        for stored in self.chunks.range(first..).filter(|stored| filter.fits(&stored.chunk)) {
            if !takes(stored) {
                reached = chunks.last().map_or(behind, |last: &Arc<StoredChunk>| last.position);
                more = true;
                break;
            }
            chunks.push(Arc::clone(stored));
        }
        let told = |restart: &&StoredRestart| {
            restart.position > behind && restart.position <= reached && filter.names(restart.log)
        };
        Part { restarts: self.restarts.iter().filter(told).copied().collect(), chunks, reached, more }
    }
}

impl ChunkFilter {
    /// Whether the chunk is one of those, as far as its log, its letter and its start time go.
    fn fits(&self, chunk: &crate::domain::log::Chunk) -> bool {
        self.names(chunk.log)
            && self.message.is_none_or(|wanted| chunk.message.is_some_and(|(message, _)| message == wanted))
            && self.start_time.is_none_or(|start| chunk.entries.iter().any(|entry| entry.time >= start))
    }

    /// Whether the log is one of those.
    fn names(&self, log: LogId) -> bool {
        if self.logs.is_empty() { log != LogId::Audit } else { self.logs.contains(&log) }
    }
}
