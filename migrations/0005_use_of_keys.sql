-- When a key was last used, and how often it may be used.

alter table keys
    add column last_use_time timestamptz,
    add column calls_per_second integer,
    add constraint keys_calls_per_second check (calls_per_second > 0);
comment on column keys.last_use_time is 'To the minute.';
comment on column keys.calls_per_second is 'Most calls a second at one server; null for what the operator allows every key.';
