-- Accounts of users beside the administrator's, mailings, and senders.

alter table sites add column last_sender_id bigint not null default 0;
comment on column sites.last_sender_id is 'The highest sender id that was ever given; ids are never used again.';

alter table settings
    add column user_accounts_enabled boolean,
    add column require_confirmed_sender boolean,
    add column account_priority text,
    add column send_test_on_save boolean,
    add constraint settings_account_priority check (account_priority in ('user_first', 'admin_first'));

alter table accounts
    add column origin text not null default 'admin',
    add column user_id text not null default '',
    add column shared boolean not null default false,
    add column mailings_first boolean not null default false,
    add constraint accounts_origin check (origin in ('admin', 'mailbox', 'crm')),
    add constraint accounts_user check ((origin = 'admin') = (user_id = ''));
comment on column accounts.user_id is 'The site''s own id of the person whose it is; empty for the administrator''s.';
create index accounts_by_user on accounts (site_id, user_id, account_id) where user_id <> '';

alter table messages
    add column mailing boolean not null default false,
    add column user_id text not null default '',
    add column is_own boolean not null default false;
comment on column messages.is_own is 'A letter of Postroom''s own, such as a code: its content is never shown.';

create table senders (
    site_id text not null,
    sender_id bigint not null,
    sender_name text not null,
    sender_email text not null,
    sender_key text not null,
    user_id text not null,
    shared boolean not null,
    source text not null,
    confirmed boolean not null,
    create_time timestamptz not null default now(),
    constraint senders_pkey primary key (site_id, sender_id),
    constraint senders_site foreign key (site_id) references sites on delete cascade,
    constraint senders_address unique (site_id, user_id, sender_key),
    constraint senders_source check (source in ('code', 'mailbox')),
    constraint senders_mailbox check (source = 'code' or confirmed)
);
comment on table senders is 'From addresses that somebody may use, beside those of accounts.';
comment on column senders.sender_key is 'sender_email as addresses are compared.';

create table sender_requests (
    site_id text not null,
    request_id text not null,
    request_mac bytea not null,
    sender_id bigint not null,
    constraint sender_requests_pkey primary key (site_id, request_id),
    constraint sender_requests_sender foreign key (site_id, sender_id) references senders on delete cascade
);
comment on table sender_requests is 'Request ids of calls that created a sender or mailed another code for it.';
create index sender_requests_by_sender on sender_requests (site_id, sender_id);

create table sender_codes (
    site_id text not null,
    sender_key text not null,
    code_id uuid not null,
    sender_id bigint not null,
    code_mac bytea not null,
    tries integer not null default 0,
    create_time timestamptz not null default now(),
    expire_time timestamptz not null,
    constraint sender_codes_pkey primary key (site_id, sender_key, code_id),
    constraint sender_codes_site foreign key (site_id) references sites on delete cascade,
    constraint sender_codes_tries check (tries between 0 and 5),
    constraint sender_codes_times check (expire_time > create_time)
);
comment on table sender_codes is 'Codes that were mailed; kept a day, so that they can be counted by address.';
comment on column sender_codes.code_mac is 'HMAC of the code for this sender; the code itself is not kept.';
create index sender_codes_by_sender on sender_codes (site_id, sender_id, create_time);
