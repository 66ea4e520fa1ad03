//! Transcripts: chunks of lines at growing positions, and the transaction that records what a sender learnt.

use std::collections::BTreeMap;

use sqlx::{query, query_as, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::lines::{bounds, decode, encode};
use super::queue::{self, Outcome, Recorded};
use super::{Store, StoreError, events, positions};
use crate::domain::account::Origin;
use crate::domain::log::{Chunk, Log, LogId, LogOwner};
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
    /// Only of these logs; empty = all.
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

/// Records outcomes and chunks of one site in one transaction, and tells of the outcomes that counted; answers the
/// letters of those.
///
/// # Errors
/// When the database does not answer.
pub async fn record(
    store: &Store,
    site: &SiteId,
    outcomes: &[Outcome],
    chunks: &[Chunk],
) -> Result<Vec<Uuid>, StoreError> {
    let mut transaction = store.pool.begin().await?;
    let Recorded { letters, events: told } = queue::record(&mut transaction, site, outcomes).await?;
    // After the rows of letters, as everybody takes it, so that no two wait for one another.
    if !told.is_empty() || !chunks.is_empty() {
        positions::lock(&mut transaction, site).await?;
    }
    events::insert(&mut transaction, site, &told).await?;
    if !chunks.is_empty() {
        append(&mut transaction, site, chunks).await?;
    }
    transaction.commit().await?;
    store.changes.recorded(site, &letters);
    Ok(letters)
}

/// Adds chunks, in a transaction that holds the site's lock of positions.
async fn append(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    chunks: &[Chunk],
) -> Result<(), StoreError> {
    let mut logs: BTreeMap<LogId, (i64, OffsetDateTime)> = BTreeMap::new();
    let mut rows = ChunkRows::default();
    for chunk in chunks {
        let Some((first, last)) = bounds(&chunk.entries) else { continue };
        let lines = encode(&chunk.entries, first);
        let size = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        let log = logs.entry(chunk.log).or_insert((0, last));
        log.0 += size;
        log.1 = log.1.max(last);
        rows.push(chunk, first, last, lines);
    }
    let (names, totals): (Vec<_>, Vec<_>) =
        logs.into_iter().map(|(log, total)| (log.to_string(), total)).unzip();
    let (sizes, times): (Vec<_>, Vec<_>) = totals.into_iter().unzip();
    query!(
        "insert into logs as l (site_id, log_id, size_bytes, update_time)
         select $1, log_id, size_bytes, update_time
         from unnest($2::text[], $3::bigint[], $4::timestamptz[]) as n (log_id, size_bytes, update_time)
         on conflict (site_id, log_id) do update
         set size_bytes = l.size_bytes + excluded.size_bytes,
             update_time = greatest(l.update_time, excluded.update_time)",
        site.as_str(),
        &names,
        &sizes,
        &times,
    )
    .execute(&mut *connection)
    .await?;
    // `with ordinality` and `order by` keep the chunks of one session in their order.
    query!(
        "insert into log_chunks (
             site_id, log_id, session_id, message_id, attempt, first_time, last_time, lines
         )
         select $1, log_id, session_id, message_id, attempt, first_time, last_time, lines
         from unnest(
                  $2::text[], $3::uuid[], $4::uuid[], $5::integer[], $6::timestamptz[], $7::timestamptz[], $8::text[]
              ) with ordinality
              as n (log_id, session_id, message_id, attempt, first_time, last_time, lines, place)
         order by place",
        site.as_str(),
        &rows.logs,
        &rows.sessions,
        &rows.messages as _,
        &rows.attempts,
        &rows.first_times,
        &rows.last_times,
        &rows.lines,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Columns of the chunks to insert.
#[derive(Default)]
struct ChunkRows {
    logs: Vec<String>,
    sessions: Vec<Uuid>,
    messages: Vec<Option<Uuid>>,
    attempts: Vec<i32>,
    first_times: Vec<OffsetDateTime>,
    last_times: Vec<OffsetDateTime>,
    lines: Vec<String>,
}

impl ChunkRows {
    fn push(&mut self, chunk: &Chunk, first: OffsetDateTime, last: OffsetDateTime, lines: String) {
        self.logs.push(chunk.log.to_string());
        self.sessions.push(chunk.session);
        self.messages.push(chunk.message.map(|(message, _)| message));
        self.attempts.push(chunk.message.map_or(0, |(_, attempt)| attempt));
        self.first_times.push(first);
        self.last_times.push(last);
        self.lines.push(lines);
    }
}

/// Empties the logs of an account, inside a transaction.
pub(super) async fn drop_logs(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    account: i64,
) -> Result<(), StoreError> {
    let logs = LogId::of_account(account).map(|log| log.to_string());
    query!("delete from logs where site_id = $1 and log_id = any($2)", site.as_str(), &logs)
        .execute(connection)
        .await?;
    Ok(())
}

/// Up to `limit` logs of a site behind the id `after`, administrators' first, then by id; with an account, only its own.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    account: Option<i64>,
    after: &str,
    limit: i64,
) -> Result<Vec<Log>, StoreError> {
    let ids: Option<Vec<String>> =
        account.map(|id| LogId::of_account(id).map(|log| log.to_string()).to_vec());
    let rows = query!(
        r#"select l.log_id, l.size_bytes, l.update_time,
                  a.sender_name as "sender_name?", a.sender_email as "sender_email?", a.origin as "origin?"
           from logs l
           left join accounts a on a.site_id = l.site_id
                               and a.account_id = substring(l.log_id from '[0-9]+$')::bigint
           where l.site_id = $1
             -- Logs of the administrator's accounts first.
             and (split_part(l.log_id, '-', 2), l.log_id) > (split_part($2, '-', 2), $2)
             and ($3::text[] is null or l.log_id = any($3))
           order by split_part(l.log_id, '-', 2), l.log_id
           limit $4"#,
        site.as_str(),
        after,
        ids.as_deref(),
        limit,
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let origin = row
                .origin
                .map(|name| Origin::from_name(&name).ok_or(StoreError::Corrupt("origin")))
                .transpose()?;
            let owner = row.sender_name.zip(row.sender_email).zip(origin);
            Ok(Log {
                id: LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?,
                owner: owner.map(|((sender_name, sender_email), origin)| LogOwner {
                    sender_name,
                    sender_email,
                    origin,
                }),
                size_bytes: row.size_bytes,
                update_time: row.update_time,
            })
        })
        .collect()
}

/// Whether there is such a log.
///
/// # Errors
/// When the database does not answer.
pub async fn exists(store: &Store, site: &SiteId, log: LogId) -> Result<bool, StoreError> {
    let found = query_scalar!(
        r#"select exists (select from logs where site_id = $1 and log_id = $2) as "exists!""#,
        site.as_str(),
        log.to_string(),
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(found)
}

/// The highest position of a site so far; 0 where there is none.
///
/// # Errors
/// When the database does not answer.
pub async fn last_position(store: &Store, site: &SiteId) -> Result<i64, StoreError> {
    let position = query_scalar!("select max(position) from log_chunks where site_id = $1", site.as_str())
        .fetch_one(&store.pool)
        .await?;
    Ok(position.unwrap_or(0))
}

struct ChunkRow {
    position: i64,
    log_id: String,
    session_id: Uuid,
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
    let logs: Vec<String> = logs.iter().map(LogId::to_string).collect();
    query_as!(
        ChunkRow,
        "select position, log_id, session_id, message_id, attempt, first_time, lines
         from log_chunks
         where site_id = $1
           and position >= $2
           and (cardinality($3::text[]) = 0 or log_id = any($3))
           and ($4::uuid is null or message_id = $4)
           and ($5::uuid is null or session_id = $5)
           and ($6::timestamptz is null or last_time >= $6)
           and ($7::timestamptz is null or first_time < $7)
         order by position
         limit $8",
        site.as_str(),
        from,
        &logs,
        *message,
        *session,
        *start_time,
        *end_time,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| row.into_chunk(site))
    .collect()
}

/// The last `limit` chunks at or below the position `upto`, newest first.
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
    let logs: Vec<String> = filter.logs.iter().map(LogId::to_string).collect();
    query_as!(
        ChunkRow,
        "select position, log_id, session_id, message_id, attempt, first_time, lines
         from log_chunks
         where site_id = $1
           and position <= $2
           and (cardinality($3::text[]) = 0 or log_id = any($3))
           and ($4::uuid is null or message_id = $4)
         order by position desc
         limit $5",
        site.as_str(),
        upto,
        &logs,
        filter.message,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| row.into_chunk(site))
    .collect()
}
