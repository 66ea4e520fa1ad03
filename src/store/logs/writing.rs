//! Adding to logs: chunks at growing positions, in generations. All of it under the site's lock of positions, so that
//! what a log holds is counted by one writer at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{PgConnection, query, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::lines::{bounds, encode, pieces};
use super::super::queue::{self, Outcome, Recorded, Try};
use super::super::{Store, StoreError, events, positions};
use super::{held, rotation};
use crate::domain::log::rotation::{Held, RestartCause, Rotation};
use crate::domain::log::{self, Chunk, Entry, LogId};
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;

/// Records outcomes and chunks of one site in one transaction, and tells of the outcomes that counted; answers the
/// letters of those.
///
/// # Errors
/// When the database does not answer. Then it may have recorded them all the same: see [`record_again`].
pub async fn record(
    store: &Store,
    site: &SiteId,
    outcomes: &[Outcome],
    chunks: &[Chunk],
) -> Result<Vec<Uuid>, StoreError> {
    record_once(store, site, outcomes, chunks, Try::First).await
}

/// The same once more, after the database did not answer: what it recorded all the same is not recorded twice.
///
/// # Errors
/// When the database does not answer.
pub async fn record_again(
    store: &Store,
    site: &SiteId,
    outcomes: &[Outcome],
    chunks: &[Chunk],
) -> Result<Vec<Uuid>, StoreError> {
    record_once(store, site, outcomes, chunks, Try::Again).await
}

async fn record_once(
    store: &Store,
    site: &SiteId,
    outcomes: &[Outcome],
    chunks: &[Chunk],
    which: Try,
) -> Result<Vec<Uuid>, StoreError> {
    let mut transaction = store.begin().await?;
    let Recorded { letters, events: told } = queue::record(&mut transaction, site, outcomes, which).await?;
    // After the rows of letters, as everybody takes it, so that no two wait for one another.
    if !told.is_empty() || !chunks.is_empty() {
        positions::lock(&mut transaction, site).await?;
    }
    events::insert(&mut transaction, site, &told).await?;
    let mut rows = rows_of(chunks);
    if which == Try::Again {
        forget_stored(&mut transaction, site, &mut rows).await?;
    }
    append_rows(&mut transaction, site, &store.defaults, rows, store.clock().now()).await?;
    transaction.commit().await?;
    store.changes.recorded(site, &letters);
    Ok(letters)
}

/// Adds to the log `audit`, in a transaction that holds the site's lock of positions.
pub(in crate::store) async fn append_audit(
    connection: &mut PgConnection,
    site: &SiteId,
    chunk: &Chunk,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    // Whatever the defaults are: this log goes on for ever.
    let defaults = EffectiveSettings::default();
    append_rows(connection, site, &defaults, rows_of(std::slice::from_ref(chunk)), now).await
}

fn rows_of(chunks: &[Chunk]) -> Vec<Row<'_>> {
    let mut rows = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        rows.extend(pieces(&chunk.entries).into_iter().map(|entries| Row { chunk, entries }));
    }
    rows
}

/// Adds chunks, in a transaction that holds the site's lock of positions. A log whose time or room is over begins afresh
/// first. What belongs to an account that is gone is gone, too.
async fn append_rows(
    connection: &mut PgConnection,
    site: &SiteId,
    defaults: &EffectiveSettings,
    rows: Vec<Row<'_>>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut logs = current(&mut *connection, site, defaults, &rows).await?;
    let mut kept: Vec<Row<'_>> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(log) = logs.get_mut(&row.chunk.log).filter(|log| log.is_about(&row)) else { continue };
        if log.add(now, &row) {
            // What was added just before is gone with the rest.
            kept.retain(|other| other.chunk.log != row.chunk.log);
        }
        kept.push(row);
    }
    logs.retain(|log, _| kept.iter().any(|row| row.chunk.log == *log));
    put(&mut *connection, site, &logs, now).await?;
    insert(connection, site, &kept).await
}

/// Leaves out what is stored already.
async fn forget_stored(
    connection: &mut PgConnection,
    site: &SiteId,
    rows: &mut Vec<Row<'_>>,
) -> Result<(), StoreError> {
    let columns = Columns::of(rows);
    let stored = query_scalar!(
        r#"select n.place as "place!"
           from unnest($2::text[], $3::uuid[], $4::timestamptz[], $5::text[]) with ordinality
                as n (log_id, session_id, first_time, lines, place)
           where exists (
               select from log_chunks c
               where c.site_id = $1
                 and c.log_id = n.log_id
                 and c.session_id is not distinct from n.session_id
                 and c.first_time = n.first_time
                 and c.lines = n.lines
           )"#,
        site.as_str(),
        &columns.logs,
        &columns.sessions as _,
        &columns.first_times,
        &columns.lines,
    )
    .fetch_all(connection)
    .await?;
    let mut place = 0;
    rows.retain(|_| {
        place += 1;
        !stored.contains(&place)
    });
    Ok(())
}

/// What clocks of servers differ from the database's; a site's id does not come again as soon as that.
const CLOCKS: Duration = Duration::from_secs(2);

/// A row of `log_chunks` in the making.
struct Row<'a> {
    chunk: &'a Chunk,
    entries: &'a [Entry],
}

impl Row<'_> {
    /// Bytes of its text.
    fn bytes(&self) -> u32 {
        let sizes =
            self.entries.iter().map(|entry| log::size(self.chunk.session, entry.kind, entry.text.len()));
        u32::try_from(sizes.sum::<usize>()).unwrap_or(u32::MAX)
    }
}

/// A log while chunks are added to it.
struct Growing {
    /// Sessions that began before are of another site of that id; `None` where the account tells, or there was none.
    since: Option<OffsetDateTime>,
    /// How long it goes on; `None` for ever.
    rotation: Option<Rotation>,
    held: Held,
    /// Its last entry.
    update_time: Option<OffsetDateTime>,
    /// Why it begins afresh, if it does.
    restart: Option<RestartCause>,
}

impl Growing {
    /// Whether the row is of this site.
    fn is_about(&self, row: &Row<'_>) -> bool {
        // The id of a session carries the time at which it began (RFC 9562 5.7).
        let begun = row.chunk.session.and_then(|session| session.get_timestamp());
        let begun = begun.and_then(|time| i64::try_from(time.to_unix().0).ok());
        self.since.is_none_or(|since| begun.is_none_or(|begun| begun >= since.unix_timestamp()))
    }

    /// Adds a row; whether it began afresh before.
    fn add(&mut self, now: OffsetDateTime, row: &Row<'_>) -> bool {
        let (bytes, span) = (u64::from(row.bytes()), bounds(row.entries));
        let cause = self.rotation.and_then(|rotation| rotation.due(&self.held, now, bytes));
        if cause.is_some() {
            self.restart = cause;
            self.held.bytes = 0;
        }
        // An older server, which runs beside this one for a while, stores none.
        if self.held.bytes == 0 || self.held.first_time.is_none() {
            self.held.first_time = span.map(|(first, _)| self.held.begins(now, first));
        }
        self.held.bytes += bytes;
        self.update_time = self.update_time.max(span.map(|(_, last)| last));
        cause.is_some()
    }
}

/// What the logs of these rows hold. One of an account that does not exist is left out.
async fn current(
    connection: &mut PgConnection,
    site: &SiteId,
    defaults: &EffectiveSettings,
    rows: &[Row<'_>],
) -> Result<BTreeMap<LogId, Growing>, StoreError> {
    let mut logs: Vec<LogId> = rows.iter().map(|row| row.chunk.log).collect();
    logs.sort_unstable();
    logs.dedup();
    let names: Vec<String> = logs.iter().map(LogId::to_string).collect();
    let accounts: Vec<Option<i64>> = logs.iter().map(|log| log.account()).collect();
    let rows = query!(
        r#"select n.log_id as "log_id!", coalesce(l.size_bytes, 0) as "size_bytes!", l.first_time as "first_time?",
                  l.update_time as "log_time?", a.update_time as "account_time?", f.create_time as "former_time?",
                  s.log_rewrite_period, s.log_max_size_mib
           from unnest($2::text[], $3::bigint[]) as n (log_id, account_id)
           join settings s on s.site_id = $1
           left join (
               select site.create_time
               from sites site
               join former_sites before on before.site_id = site.site_id
               where site.site_id = $1
           ) f on true
           left join logs l on l.site_id = $1 and l.log_id = n.log_id
           left join accounts a on a.site_id = $1 and a.account_id = n.account_id
           where n.account_id is null
              or a.account_id is not null"#,
        site.as_str(),
        &names,
        &accounts as _,
    )
    .fetch_all(connection)
    .await?;
    let mut found = BTreeMap::new();
    for row in rows {
        let log = LogId::parse(&row.log_id).ok_or(StoreError::Corrupt("log id"))?;
        let growing = Growing {
            // Where there was one. Ids of accounts do not come again; checks of new accounts have none.
            since: row
                .former_time
                .filter(|_| log != LogId::Audit && log.account().is_none())
                .map(|time| time - CLOCKS),
            rotation: rotation(log, row.log_rewrite_period.as_deref(), row.log_max_size_mib, defaults)?,
            held: held(row.size_bytes, row.first_time, row.account_time),
            update_time: row.log_time,
            restart: None,
        };
        found.insert(log, growing);
    }
    Ok(found)
}

/// Stores what the logs hold now, and which of them began afresh.
async fn put(
    connection: &mut PgConnection,
    site: &SiteId,
    logs: &BTreeMap<LogId, Growing>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let names: Vec<String> = logs.keys().map(LogId::to_string).collect();
    let sizes: Vec<i64> =
        logs.values().map(|log| i64::try_from(log.held.bytes).unwrap_or(i64::MAX)).collect();
    let first_times: Vec<Option<OffsetDateTime>> = logs.values().map(|log| log.held.first_time).collect();
    let update_times: Vec<Option<OffsetDateTime>> = logs.values().map(|log| log.update_time).collect();
    let causes: Vec<Option<&str>> = logs.values().map(|log| log.restart.map(RestartCause::name)).collect();
    query!(
        "insert into logs as l (site_id, log_id, size_bytes, first_time, update_time, restart_cause, restart_time)
         select $1, log_id, size_bytes, first_time, update_time,
                cause, case when cause is not null then $7::timestamptz end
         from unnest($2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::text[])
              as n (log_id, size_bytes, first_time, update_time, cause)
         on conflict (site_id, log_id) do update
         set size_bytes = excluded.size_bytes,
             first_time = excluded.first_time,
             update_time = excluded.update_time,
             start_position =
                 case when excluded.restart_cause is null then l.start_position else nextval('log_positions') end,
             restart_cause = coalesce(excluded.restart_cause, l.restart_cause),
             restart_time = coalesce(excluded.restart_time, l.restart_time),
             has_leavings = l.has_leavings or excluded.restart_cause is not null",
        site.as_str(),
        &names,
        &sizes,
        &first_times as _,
        &update_times as _,
        &causes as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert(connection: &mut PgConnection, site: &SiteId, rows: &[Row<'_>]) -> Result<(), StoreError> {
    let columns = Columns::of(rows);
    // `with ordinality` and `order by` keep the chunks of one session in their order.
    query!(
        "insert into log_chunks (
             site_id, log_id, session_id, message_id, attempt, first_time, last_time, size_bytes, lines
         )
         select $1, log_id, session_id, message_id, attempt, first_time, last_time, size_bytes, lines
         from unnest(
                  $2::text[], $3::uuid[], $4::uuid[], $5::integer[], $6::timestamptz[], $7::timestamptz[],
                  $8::integer[], $9::text[]
              ) with ordinality
              as n (log_id, session_id, message_id, attempt, first_time, last_time, size_bytes, lines, place)
         order by place",
        site.as_str(),
        &columns.logs,
        &columns.sessions as _,
        &columns.messages as _,
        &columns.attempts,
        &columns.first_times,
        &columns.last_times,
        &columns.sizes,
        &columns.lines,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Columns of the rows to insert.
#[derive(Default)]
struct Columns {
    logs: Vec<String>,
    sessions: Vec<Option<Uuid>>,
    messages: Vec<Option<Uuid>>,
    attempts: Vec<i32>,
    first_times: Vec<OffsetDateTime>,
    last_times: Vec<OffsetDateTime>,
    sizes: Vec<i32>,
    lines: Vec<String>,
}

impl Columns {
    fn of(rows: &[Row<'_>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let Row { chunk, entries } = row;
            let Some((first, last)) = bounds(entries) else { continue };
            columns.logs.push(chunk.log.to_string());
            columns.sessions.push(chunk.session);
            columns.messages.push(chunk.message.map(|(message, _)| message));
            columns.attempts.push(chunk.message.map_or(0, |(_, attempt)| attempt));
            columns.first_times.push(first);
            columns.last_times.push(last);
            columns.sizes.push(i32::try_from(row.bytes()).unwrap_or(i32::MAX));
            columns.lines.push(encode(entries, first));
        }
        columns
    }
}
