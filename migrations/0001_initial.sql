-- Every primary key begins with site_id, so that the store can be spread by site.
-- The schema refuses impossible states; named constraints are translated by name in src/store.

create table sites (
    site_id text not null,
    display_name text not null default '',
    last_account_id bigint not null default 0,
    create_time timestamptz not null default now(),
    constraint sites_pkey primary key (site_id),
    constraint sites_id_form check (site_id ~ '^[a-z0-9][a-z0-9-]{0,62}$')
);
comment on table sites is 'Portals, shops and CRMs that delegate their mail.';
comment on column sites.last_account_id is 'The highest account id that was ever given; ids are never used again.';

create table settings (
    site_id text not null,
    enabled boolean,
    connection_timeout_ms bigint,
    save_logs boolean,
    log_level text,
    retry_intervals_ms bigint[],
    version bigint not null default 1,
    update_time timestamptz,
    constraint settings_pkey primary key (site_id),
    constraint settings_site foreign key (site_id) references sites on delete cascade,
    constraint settings_timeout check (connection_timeout_ms between 1000 and 600000),
    constraint settings_log_level check (log_level in ('client', 'client_server', 'connection', 'low_level')),
    constraint settings_intervals check (cardinality(retry_intervals_ms) between 1 and 32)
);
comment on table settings is 'Settings of a site; null stands for the default.';

create table accounts (
    site_id text not null,
    account_id bigint not null,
    active boolean not null,
    sender_name text not null,
    sender_email text not null,
    sender_key text not null,
    host text not null,
    port integer not null,
    security text not null,
    username text,
    sealed_password bytea,
    version bigint not null default 1,
    create_time timestamptz not null default now(),
    update_time timestamptz not null default now(),
    constraint accounts_pkey primary key (site_id, account_id),
    constraint accounts_site foreign key (site_id) references sites on delete cascade,
    constraint accounts_id check (account_id > 0),
    constraint accounts_port check (port between 1 and 65535),
    constraint accounts_security check (security in ('implicit_tls', 'starttls', 'none')),
    constraint accounts_password check ((username is null) = (sealed_password is null))
);
comment on table accounts is 'SMTP accounts as their callers set them; what is learnt about them lives in account_checks.';
comment on column accounts.sender_key is 'sender_email as addresses are compared: NFC, lower case, A-label domain.';
comment on column accounts.sealed_password is 'AES-256-GCM envelope of the vault.';
create index accounts_by_sender on accounts (site_id, sender_key);

create table account_requests (
    site_id text not null,
    request_id text not null,
    request_mac bytea not null,
    account_id bigint not null,
    create_time timestamptz not null default now(),
    constraint account_requests_pkey primary key (site_id, request_id),
    constraint account_requests_site foreign key (site_id) references sites on delete cascade
);
comment on table account_requests is 'Request ids of calls that created an account; they outlive it, so that a late repetition creates no second one.';

create table account_checks (
    site_id text not null,
    account_id bigint not null,
    state text not null,
    check_time timestamptz not null,
    success_time timestamptz,
    error text not null,
    capabilities text[] not null,
    constraint account_checks_pkey primary key (site_id, account_id),
    constraint account_checks_account foreign key (site_id, account_id) references accounts on delete cascade,
    constraint account_checks_state check (state in ('passed', 'failed')),
    constraint account_checks_error check ((state = 'failed') = (error <> ''))
);
comment on table account_checks is 'The last known state of an account, moved by checks and by real sessions.';

create table messages (
    site_id text not null,
    message_id uuid not null,
    account_id bigint not null,
    state text not null default 'open',
    from_address text not null,
    envelope_sender text not null,
    rfc_message_id text not null,
    recipients jsonb not null,
    attempts jsonb not null default '[]',
    size_bytes bigint not null,
    eight_bit boolean not null,
    utf8_headers boolean not null,
    request_id text,
    request_mac bytea,
    create_time timestamptz not null default now(),
    final_time timestamptz,
    constraint messages_pkey primary key (site_id, message_id),
    constraint messages_site foreign key (site_id) references sites on delete cascade,
    constraint messages_state check (state in ('open', 'uncertain', 'sent', 'partially_sent', 'failed')),
    constraint messages_final_time check ((state = 'open') = (final_time is null)),
    constraint messages_recipients check (jsonb_typeof(recipients) = 'array' and jsonb_array_length(recipients) > 0),
    constraint messages_request_mac check ((request_id is null) = (request_mac is null))
) with (fillfactor = 80);
comment on table messages is 'Letters and what became of them; a letter is open while it is in the queue.';
comment on column messages.message_id is 'UUIDv7, so that the order of ids is the order of acceptance.';
comment on column messages.account_id is 'The account chosen at acceptance; kept when the account is deleted.';
comment on column messages.recipients is '[{mailbox, address, kind, state, reply}]: small, and always read and written as a whole.';
create unique index messages_by_request on messages (site_id, request_id) where request_id is not null;
create index messages_by_rfc_message_id on messages (site_id, rfc_message_id);

create table message_bodies (
    site_id text not null,
    message_id uuid not null,
    content bytea not null,
    constraint message_bodies_pkey primary key (site_id, message_id),
    constraint message_bodies_message foreign key (site_id, message_id) references messages on delete cascade
);
comment on table message_bodies is 'The exact bytes of letters, apart from what is asked for and changed often.';
-- Mail is base64 and short texts: compressing costs more time than it saves space.
alter table message_bodies alter column content set storage external;

create table queue (
    site_id text not null,
    message_id uuid not null,
    account_id bigint not null,
    due timestamptz not null,
    attempt integer not null default 0,
    leased_by uuid,
    constraint queue_pkey primary key (site_id, message_id),
    constraint queue_message foreign key (site_id, message_id) references messages on delete cascade,
    constraint queue_attempt check (attempt >= 0),
    constraint queue_lease check (leased_by is null or attempt > 0)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200,
        autovacuum_vacuum_cost_delay = 0);
comment on table queue is 'One narrow row for each open letter; finished letters leave it.';
comment on column queue.attempt is 'Attempts claimed so far: the fence, only the newest may record its outcome.';
comment on column queue.leased_by is 'The replica that claimed it; free when null or when that replica is silent.';
-- leased_by stays out of every index, so that claiming is a HOT update.
create index queue_by_due on queue (site_id, account_id, due);

create table replicas (
    replica_id uuid not null,
    heartbeat_time timestamptz not null default now(),
    constraint replicas_pkey primary key (replica_id)
);
comment on table replicas is 'Running servers; a lease counts as long as its replica is heard of.';

create table logs (
    site_id text not null,
    log_id text not null,
    size_bytes bigint not null,
    update_time timestamptz not null,
    constraint logs_pkey primary key (site_id, log_id),
    constraint logs_site foreign key (site_id) references sites on delete cascade
) with (fillfactor = 60);
comment on table logs is 'Transcripts of one account and one kind, such as send-admin-2.';

create sequence log_positions;

create table log_chunks (
    site_id text not null,
    position bigint not null default nextval('log_positions'),
    log_id text not null,
    session_id uuid not null,
    message_id uuid,
    attempt integer not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    lines text not null,
    constraint log_chunks_pkey primary key (site_id, position),
    constraint log_chunks_log foreign key (site_id, log_id) references logs on delete cascade,
    constraint log_chunks_attempt check ((message_id is null) = (attempt = 0)),
    constraint log_chunks_times check (first_time <= last_time),
    constraint log_chunks_lines check (lines <> '')
);
comment on table log_chunks is 'Stretches of transcripts. Positions are drawn under a lock per site, so that the order of commits is the order of positions and a reader''s place is one number.';
comment on column log_chunks.lines is 'A line an entry: microseconds since first_time, letter of the kind, text.';
create index log_chunks_by_log on log_chunks (site_id, log_id, position);
create index log_chunks_by_message on log_chunks (site_id, message_id, position) where message_id is not null;

create table keys (
    site_id text not null,
    key_id uuid not null,
    hash bytea not null,
    roles text[] not null,
    create_time timestamptz not null default now(),
    expire_time timestamptz,
    revoke_time timestamptz,
    constraint keys_pkey primary key (site_id, key_id),
    constraint keys_hash unique (hash),
    constraint keys_hash_size check (octet_length(hash) = 32),
    constraint keys_roles check (cardinality(roles) > 0 and roles <@ array['admin', 'operator', 'sender', 'auditor'])
);
comment on table keys is 'Access keys; only their SHA-256 is kept. site_id - stands for all sites.';
