//! Reading logs: chunks in their order, and where logs began afresh.

use std::ops::RangeInclusive;
use std::pin::Pin;

use sqlx::{query, query_as};
use time::OffsetDateTime;
use tokio_stream::{Stream, StreamExt as _};
use uuid::Uuid;

use super::super::lines::decode;
use super::super::{Store, StoreError};
use crate::domain::log::rotation::{Restart, RestartCause};
use crate::domain::log::{Chunk, LogId};
use crate::domain::site::SiteId;

/// A chunk as it was stored.
#[derive(Clone, Debug)]
pub struct StoredChunk {
    /// Its place among all chunks of its site.
    pub position: i64,
    /// What it holds.
    pub chunk: Chunk,
}

/// Which chunks to read.
#[derive(Clone, Debug, Default)]
pub struct ChunkFilter {
    /// Only of these logs; empty = of all but the log `audit`.
    pub logs: Vec<LogId>,
    /// Only of this letter.
    pub message: Option<Uuid>,
    /// Only of this session.
    pub session: Option<Uuid>,
    /// Only with an entry at this time or later.
    pub start_time: Option<OffsetDateTime>,
    /// Only with an entry before this time.
    pub end_time: Option<OffsetDateTime>,
}

/// The highest position of a site so far: of a chunk, or where a log began afresh; 0 where there is none. It never falls,
/// whatever is deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn last_position(store: &Store, site: &SiteId) -> Result<i64, StoreError> {
    known_positions(store, site).await.map(RangeInclusive::into_inner).map(|(_, last)| last)
}

/// The positions from which a reader can go on: none below what was forgotten without a trace, none behind the last one.
///
/// # Errors
/// When the database does not answer.
pub async fn known_positions(store: &Store, site: &SiteId) -> Result<RangeInclusive<i64>, StoreError> {
    let found = query!(
        r#"select log_horizon,
                  greatest(
                      log_horizon,
                      (select max(position) from log_chunks where site_id = $1),
                      (select max(start_position) from logs where site_id = $1)
                  ) as "last!"
           from sites
           where site_id = $1"#,
        site.as_str(),
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(found.map_or(0..=0, |found| found.log_horizon..=found.last))
}

struct ChunkRow {
    position: i64,
    log_id: String,
    session_id: Option<Uuid>,
    message_id: Option<Uuid>,
    attempt: i32,
    first_time: OffsetDateTime,
    lines: String,
}

impl ChunkRow {
    fn into_chunk(self, site: &SiteId) -> Result<StoredChunk, StoreError> {
        let chunk = Chunk {
            site: site.clone(),
            log: LogId::parse(&self.log_id).ok_or(StoreError::Corrupt("log id"))?,
            session: self.session_id,
            message: self.message_id.map(|message| (message, self.attempt)),
            entries: decode(&self.lines, self.first_time)?,
        };
        Ok(StoredChunk { position: self.position, chunk })
    }
}

/// What is read at once is full with so many bytes, and with what the last chunk has beyond.
const READ_BYTES: usize = 256 * 1024;

/// Up to `limit` chunks at or behind the position `from`, oldest first; fewer where they are large, but none only where
/// there is none.
///
/// # Errors
/// When the database does not answer.
pub async fn read(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    from: i64,
    limit: i64,
) -> Result<Vec<StoredChunk>, StoreError> {
    read_with(store, site, filter, Audit::WhereNamed, from, limit).await
}

/// Whether the log `audit` is read where no log is named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    Always,
    WhereNamed,
}

/// The same, and of the log `audit` what is told.
pub(super) async fn read_with(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    audit: Audit,
    from: i64,
    limit: i64,
) -> Result<Vec<StoredChunk>, StoreError> {
    let ChunkFilter { logs, message, session, start_time, end_time } = filter;
    // By statements of their own, so that each goes by its own index whatever plan is kept for it.
    let names = names(logs);
    let rows: Rows<'_> = if let Some(message) = message {
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from log_chunks c
             where c.site_id = $1
               and c.position >= $2
               and c.message_id = $3
               and (cardinality($4::text[]) = 0 and c.log_id <> 'audit' or c.log_id = any($4))
               and c.position >= (
                   select l.start_position from logs l where l.site_id = $1 and l.log_id = c.log_id
               )
               and ($5::uuid is null or c.session_id = $5)
               and ($6::timestamptz is null or c.last_time >= $6)
               and ($7::timestamptz is null or c.first_time < $7)
             order by c.position
             limit $8",
            site.as_str(),
            from,
            message,
            &names,
            *session,
            *start_time,
            *end_time,
            limit,
        )
        .fetch(&store.pool)
    } else if logs.is_empty() {
        // The start of each chunk's log is looked up, not joined: a join would go through all logs of the site first.
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from log_chunks c
             where c.site_id = $1
               and c.position >= $2
               and ($7 or c.log_id <> 'audit')
               and c.position >= (
                   select l.start_position from logs l where l.site_id = $1 and l.log_id = c.log_id
               )
               and ($3::uuid is null or c.session_id = $3)
               and ($4::timestamptz is null or c.last_time >= $4)
               and ($5::timestamptz is null or c.first_time < $5)
             order by c.position
             limit $6",
            site.as_str(),
            from,
            *session,
            *start_time,
            *end_time,
            limit,
            audit == Audit::Always,
        )
        .fetch(&store.pool)
    } else {
        // Log by log, each by its own index: a quiet log of a busy site is not searched for among all the others.
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from logs l
             cross join lateral (
                 select *
                 from log_chunks
                 where site_id = $1
                   and log_id = l.log_id
                   and position >= greatest($2, l.start_position)
                   and ($4::uuid is null or session_id = $4)
                   and ($5::timestamptz is null or last_time >= $5)
                   and ($6::timestamptz is null or first_time < $6)
                 order by position
                 limit $7
             ) c
             where l.site_id = $1
               and l.log_id = any($3)
             order by c.position
             limit $7",
            site.as_str(),
            from,
            &names,
            *session,
            *start_time,
            *end_time,
            limit,
        )
        .fetch(&store.pool)
    };
    collect(site, rows).await
}

/// The last `limit` chunks at or below the position `upto`, newest first, by their logs and their letter; fewer where they
/// are large, but none only where there is none.
///
/// # Errors
/// When the database does not answer.
pub async fn read_back(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    upto: i64,
    limit: i64,
) -> Result<Vec<StoredChunk>, StoreError> {
    let ChunkFilter { logs, message, session: _, start_time: _, end_time: _ } = filter;
    let names = names(logs);
    let rows: Rows<'_> = if let Some(message) = message {
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from log_chunks c
             where c.site_id = $1
               and c.position <= $2
               and c.message_id = $3
               and (cardinality($4::text[]) = 0 and c.log_id <> 'audit' or c.log_id = any($4))
               and c.position >= (
                   select l.start_position from logs l where l.site_id = $1 and l.log_id = c.log_id
               )
             order by c.position desc
             limit $5",
            site.as_str(),
            upto,
            message,
            &names,
            limit,
        )
        .fetch(&store.pool)
    } else if logs.is_empty() {
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from log_chunks c
             where c.site_id = $1
               and c.position <= $2
               and c.log_id <> 'audit'
               and c.position >= (
                   select l.start_position from logs l where l.site_id = $1 and l.log_id = c.log_id
               )
             order by c.position desc
             limit $3",
            site.as_str(),
            upto,
            limit,
        )
        .fetch(&store.pool)
    } else {
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from logs l
             cross join lateral (
                 select *
                 from log_chunks
                 where site_id = $1
                   and log_id = l.log_id
                   and position <= $2
                   and position >= l.start_position
                 order by position desc
                 limit $4
             ) c
             where l.site_id = $1
               and l.log_id = any($3)
             order by c.position desc
             limit $4",
            site.as_str(),
            upto,
            &names,
            limit,
        )
        .fetch(&store.pool)
    };
    collect(site, rows).await
}

/// Rows as they come.
type Rows<'a> = Pin<Box<dyn Stream<Item = Result<ChunkRow, sqlx::Error>> + Send + 'a>>;

/// The chunks of these rows, until there are enough bytes.
async fn collect(site: &SiteId, mut rows: Rows<'_>) -> Result<Vec<StoredChunk>, StoreError> {
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    while bytes < READ_BYTES
        && let Some(row) = rows.next().await
    {
        let row = row?;
        bytes += row.lines.len();
        chunks.push(row.into_chunk(site)?);
    }
    Ok(chunks)
}

/// A log that began afresh, as it was stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredRestart {
    /// Where what it holds now begins.
    pub position: i64,
    /// Which.
    pub log: LogId,
    /// Why, and when.
    pub restart: Restart,
}

/// Where logs of the filter began afresh behind the position `behind`, up to `upto`, oldest first. Of the sessions of a
/// letter's account where it is about a letter. A log tells of its last restart alone: what it held before earlier ones is
/// gone as well.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn restarts(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    audit: Audit,
    behind: i64,
    upto: i64,
) -> Result<Vec<StoredRestart>, StoreError> {
    let rows = query!(
        r#"select start_position, log_id, restart_cause as "cause!", restart_time as "time!"
           from logs
           where site_id = $1
             and start_position > $2
             and start_position <= $3
             and (cardinality($4::text[]) = 0 and ($6 or log_id <> 'audit') or log_id = any($4))
             and ($5::uuid is null or log_id in (
                     select class || account_id
                     from messages, unnest(array['send-admin-', 'send-users-']) as class
                     where site_id = $1 and message_id = $5
                 ))
           order by start_position"#,
        site.as_str(),
        behind,
        upto,
        &names(&filter.logs),
        filter.message,
        audit == Audit::Always,
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let log = LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?;
            let cause = RestartCause::from_name(&row.cause).ok_or(StoreError::Corrupt("restart_cause"))?;
            Ok(StoredRestart {
                position: row.start_position,
                log,
                restart: Restart { cause, time: row.time },
            })
        })
        .collect()
}

fn names(logs: &[LogId]) -> Vec<String> {
    logs.iter().map(LogId::to_string).collect()
}
