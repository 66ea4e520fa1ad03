//! Reading logs: chunks in their order, and where logs began afresh.

use sqlx::{query, query_as, query_scalar};
use time::OffsetDateTime;
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
    let position = query_scalar!(
        r#"select greatest(
               (select max(position) from log_chunks where site_id = $1),
               (select max(start_position) from logs where site_id = $1),
               (select log_horizon from sites where site_id = $1)
           ) as position"#,
        site.as_str(),
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(position.unwrap_or(0))
}

/// A place below this position cannot be gone on from: what was forgotten without a trace lay there.
///
/// # Errors
/// When the database does not answer.
pub async fn horizon(store: &Store, site: &SiteId) -> Result<i64, StoreError> {
    let position = query_scalar!("select log_horizon from sites where site_id = $1", site.as_str())
        .fetch_optional(&store.pool)
        .await?;
    Ok(position.unwrap_or(0))
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

/// Up to `limit` chunks at or behind the position `from`, oldest first.
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
    let ChunkFilter { logs, message, session, start_time, end_time } = filter;
    // By statements of their own, so that each goes by its own index whatever plan is kept for it.
    let rows = if let Some(message) = message {
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
            &names(logs),
            *session,
            *start_time,
            *end_time,
            limit,
        )
        .fetch_all(&store.pool)
        .await?
    } else if logs.is_empty() {
        // The start of each chunk's log is looked up, not joined: a join would go through all logs of the site first.
        query_as!(
            ChunkRow,
            "select c.position, c.log_id, c.session_id, c.message_id, c.attempt, c.first_time, c.lines
             from log_chunks c
             where c.site_id = $1
               and c.position >= $2
               and c.log_id <> 'audit'
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
        )
        .fetch_all(&store.pool)
        .await?
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
            &names(logs),
            *session,
            *start_time,
            *end_time,
            limit,
        )
        .fetch_all(&store.pool)
        .await?
    };
    rows.into_iter().map(|row| row.into_chunk(site)).collect()
}

/// The last `limit` chunks at or below the position `upto`, newest first; by their logs and their letter.
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
    let rows = if let Some(message) = message {
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
            &names(logs),
            limit,
        )
        .fetch_all(&store.pool)
        .await?
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
        .fetch_all(&store.pool)
        .await?
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
            &names(logs),
            limit,
        )
        .fetch_all(&store.pool)
        .await?
    };
    rows.into_iter().map(|row| row.into_chunk(site)).collect()
}

/// Where logs of the filter began afresh behind the position `behind`, up to `upto`, oldest first. Of the sessions of a
/// letter's account where it is about a letter. A log tells of its last restart alone: what it held before earlier ones is gone as well.
///
/// # Errors
/// When the database does not answer.
pub async fn restarts(
    store: &Store,
    site: &SiteId,
    filter: &ChunkFilter,
    behind: i64,
    upto: i64,
) -> Result<Vec<(LogId, Restart)>, StoreError> {
    let rows = query!(
        r#"select log_id, restart_cause as "restart_cause!", restart_time as "restart_time!"
           from logs
           where site_id = $1
             and start_position > $2
             and start_position <= $3
             and (cardinality($4::text[]) = 0 and log_id <> 'audit' or log_id = any($4))
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
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let log = LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?;
            let cause =
                RestartCause::from_name(&row.restart_cause).ok_or(StoreError::Corrupt("restart_cause"))?;
            Ok((log, Restart { cause, time: row.restart_time }))
        })
        .collect()
}

fn names(logs: &[LogId]) -> Vec<String> {
    logs.iter().map(LogId::to_string).collect()
}
