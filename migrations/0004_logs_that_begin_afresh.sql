-- Logs in generations: after a while, at a size, or when its account changes, a log begins afresh. The log `audit`.

alter table settings
    add column log_rewrite_period text,
    add column log_max_size_mib integer,
    add constraint settings_log_rewrite_period check (log_rewrite_period in ('day', 'week', 'month', 'year')),
    add constraint settings_log_max_size check (log_max_size_mib >= 0);

alter table sites add column log_horizon bigint not null default 0;
comment on column sites.log_horizon is 'What was forgotten without a trace lay at or below this position: older places in the stream of logs cannot be gone on from.';

alter table log_chunks
    alter column session_id drop not null,
    add column size_bytes integer not null default 0,
    drop constraint log_chunks_attempt,
    add constraint log_chunks_attempt check (message_id is not null or attempt = 0);
comment on column log_chunks.size_bytes is 'Size of its entries as the text that is downloaded.';
comment on column log_chunks.session_id is 'The SMTP session; null in the log audit.';

alter table logs
    add column first_time timestamptz,
    add column start_position bigint not null default 0,
    add column restart_time timestamptz,
    add column restart_cause text,
    add column has_leavings boolean not null default false,
    add constraint logs_restart check ((restart_time is null) = (restart_cause is null)),
    add constraint logs_restart_cause
        check (restart_cause in ('period', 'size', 'account_changed', 'account_deleted', 'cleared'));
comment on column logs.size_bytes is 'Size of the text that is downloaded; 0 for a log that began afresh and holds nothing yet.';
comment on column logs.first_time is 'When the first entry came of what the log holds now.';
comment on column logs.start_position is 'Chunks below it belong to what the log held before it began afresh: nobody sees them any more.';
comment on column logs.has_leavings is 'Whether such chunks may still be there, for the cleaner.';
-- Unless set otherwise a log now begins afresh each day. Those that began earlier are past that, and are not measured.
update logs l
set size_bytes = 0,
    start_position = nextval('log_positions'),
    restart_time = now(),
    restart_cause = 'period',
    has_leavings = true
where (
    select c.first_time
    from log_chunks c
    where c.site_id = l.site_id
      and c.log_id = l.log_id
    order by c.position
    limit 1
) < now() - interval '1 day';
-- As src/domain/log/text.rs writes an entry: time, session, kind, text, line feed.
update log_chunks c
set size_bytes = (
    select coalesce(sum(
        27 + 1 + 10 + 1 + octet_length(
            case split_part(line, ' ', 2)
                when 'E' then 'ERROR'
                when 'C' then 'CLIENT -> SERVER'
                when 'S' then 'SERVER -> CLIENT'
                when 'N' then 'CONNECTION'
                else 'DATA'
            end
        ) + 2 + octet_length(substr(line, length(split_part(line, ' ', 1)) + 4)) + 1
    ), 0)
    from regexp_split_to_table(rtrim(lines, E'\n'), E'\n') as line
)
from logs l
where l.site_id = c.site_id
  and l.log_id = c.log_id
  and l.restart_cause is null;
update logs l
set size_bytes = c.size_bytes,
    first_time = c.first_time
from (
    select site_id, log_id, sum(size_bytes) as size_bytes, min(first_time) as first_time
    from log_chunks
    where size_bytes > 0
    group by site_id, log_id
) c
where c.site_id = l.site_id
  and c.log_id = l.log_id;
create index logs_by_start on logs (site_id, start_position);
create index logs_with_leavings on logs (site_id, log_id) where has_leavings;

-- Rows that are written once and deleted in heaps: their room is to be used again soon.
alter table log_chunks set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
