-- The whole life of a letter: later, cancelled, held; accounts that are paced and parked; events.

alter table settings
    add column max_messages_per_batch integer,
    add column min_batch_interval_ms bigint,
    add column send_in_parts boolean,
    add column on_uncertain text,
    add column message_retention_ms bigint,
    add constraint settings_batch check (max_messages_per_batch > 0),
    add constraint settings_batch_interval check (min_batch_interval_ms >= 0),
    add constraint settings_on_uncertain check (on_uncertain in ('resend', 'hold')),
    add constraint settings_retention check (message_retention_ms >= 604800000);

alter table accounts
    add column per_minute integer,
    add column per_hour integer,
    add column per_day integer,
    add column recipients_per_day integer,
    add column max_connections integer,
    add column max_recipients integer,
    add column reserve_percent integer,
    add constraint accounts_limits check (
        least(per_minute, per_hour, per_day, recipients_per_day, max_connections, max_recipients) > 0
    ),
    add constraint accounts_reserve check (reserve_percent between 0 and 99);
comment on column accounts.per_minute is 'Transactions that reach MAIL FROM; null for no limit, as with the other limits.';

alter table messages
    add column copy_to_sender boolean not null default false,
    add column send_time timestamptz,
    add column expire_time timestamptz,
    add column tags text[] not null default '{}',
    add column held_attempt integer,
    drop constraint messages_state,
    drop constraint messages_final_time,
    add constraint messages_state
        check (state in ('open', 'uncertain', 'sent', 'partially_sent', 'failed', 'cancelled')),
    -- A letter that is held uncertain stays unfinished until a person decides.
    add constraint messages_final_time
        check (case state when 'open' then final_time is null when 'uncertain' then true else final_time is not null end),
    add constraint messages_state_of_recipients check (
        state = case
            when recipients @? '$[*] ? (@.state == "pending")' then 'open'
            when recipients @? '$[*] ? (@.state == "uncertain")' then 'uncertain'
            when not recipients @? '$[*] ? (@.state != "sent")' then 'sent'
            when recipients @? '$[*] ? (@.state == "sent")' then 'partially_sent'
            when not recipients @? '$[*] ? (@.state != "cancelled")' then 'cancelled'
            else 'failed'
        end
    ),
    add constraint messages_times check (expire_time > send_time),
    add constraint messages_tags check (cardinality(tags) <= 10);
comment on column messages.held_attempt is 'The attempt whose outcome is not known and that is held (HOLD): only its own late result may still correct it.';
create index messages_by_tag on messages using gin (tags) where tags <> '{}';

alter table queue
    add column mailing boolean not null default false,
    add column first_due timestamptz not null default now(),
    add column expire_time timestamptz,
    add column at_dot integer[],
    add column cancelled boolean not null default false,
    add column panics integer not null default 0,
    add constraint queue_at_dot check (at_dot is null or attempt > 0);
comment on column queue.first_due is 'Since when it may be sent: mail that cannot be tried is given up a while after.';
comment on column queue.at_dot is 'With HOLD: the recipients, by number, for whom the attempt under way has written the dot.';
comment on column queue.panics is 'How often our own code failed at it; after three times it is set aside.';
comment on column queue.cancelled is 'Cancelled while an attempt was under way: whoever it does not reach is not tried again.';
update queue q
set mailing = true
from messages m
where m.site_id = q.site_id
  and m.message_id = q.message_id
  and m.mailing;
-- Other mail of an account before its mailings.
create index queue_by_class on queue (site_id, account_id, mailing, due);
drop index queue_by_due;
create index queue_by_expiry on queue (site_id, expire_time) where expire_time is not null;

create table lanes (
    site_id text not null,
    account_id bigint not null,
    failures integer not null default 0,
    pause_until timestamptz,
    mailing_pause_until timestamptz,
    batch_start timestamptz,
    batch_letters integer not null default 0,
    parking_reason text,
    parking_error text,
    parked_until timestamptz,
    probes integer not null default 0,
    constraint lanes_pkey primary key (site_id, account_id),
    constraint lanes_account foreign key (site_id, account_id) references accounts on delete cascade,
    constraint lanes_parking_reason
        check (parking_reason in ('auth_failed', 'unreachable', 'quota', 'configuration')),
    constraint lanes_parking check (
        (parking_reason is null) = (parking_error is null)
        and (parking_reason is null) = (parked_until is null)
        and (parking_reason is not null or probes = 0)
    ),
    constraint lanes_batch check (batch_letters >= 0 and (batch_letters = 0 or batch_start is not null)),
    constraint lanes_failures check (failures >= 0)
) with (fillfactor = 50);
comment on table lanes is 'How the mail of an account flows: its pace, and whether it is parked. A row where there is something to tell.';
comment on column lanes.failures is 'Sessions in a row that could not be opened for now.';
comment on column lanes.pause_until is 'No slot is free before, for any mail; mailing_pause_until: for mailings.';
comment on column lanes.parked_until is 'When the account is probed with one letter.';

create table lane_sessions (
    site_id text not null,
    account_id bigint not null,
    slot integer not null,
    replica_id uuid not null,
    holder uuid not null,
    constraint lane_sessions_pkey primary key (site_id, account_id, slot),
    constraint lane_sessions_account foreign key (site_id, account_id) references accounts on delete cascade
) with (fillfactor = 50);
comment on table lane_sessions is 'Sessions of an account, across replicas; a row counts as long as its replica is heard of.';

create table lane_usage (
    site_id text not null,
    account_id bigint not null,
    unit text not null,
    start_time timestamptz not null,
    transactions integer not null,
    recipients integer not null,
    constraint lane_usage_pkey primary key (site_id, account_id, unit, start_time),
    constraint lane_usage_account foreign key (site_id, account_id) references accounts on delete cascade,
    constraint lane_usage_unit check (unit in ('second', 'minute'))
) with (fillfactor = 50);
comment on table lane_usage is 'Transactions begun and recipients named, by second for the last minutes and by minute for the last day.';

create table events (
    site_id text not null,
    position bigint not null default nextval('log_positions'),
    time timestamptz not null default now(),
    items jsonb not null,
    constraint events_pkey primary key (site_id, position),
    constraint events_site foreign key (site_id) references sites on delete cascade,
    constraint events_items check (jsonb_typeof(items) = 'array' and jsonb_array_length(items) > 0)
);
comment on table events is 'What changed: letters, and accounts that were parked or resumed. A row a transaction, at positions drawn as those of log_chunks; kept 24 hours.';
