-- Which keys of the vault are in use, and which server has which.

create function vault_key_id(sealed bytea) returns text
    language sql immutable strict parallel safe
    return case
        when octet_length(sealed) < 2 or get_byte(sealed, 0) <> 1 or octet_length(sealed) < 2 + get_byte(sealed, 1)
            then ''
        else encode(substring(sealed from 3 for get_byte(sealed, 1)), 'escape')
    end;
comment on function vault_key_id(bytea) is 'The id of the key under which a value is sealed; empty where it is no envelope of the vault.';

create table vault_keys (
    key_id text not null,
    label text not null,
    constraint vault_keys_pkey primary key (key_id)
);
comment on table vault_keys is 'Keys under which secrets were sealed, once each was seen to open one: another key under the same id is told apart from a secret that is damaged.';
comment on column vault_keys.label is 'Id and fingerprint; nothing of the key can be learnt from it.';

-- Finds the few keys in use, and the rows under one of them, however many accounts there are.
create index accounts_by_vault_key on accounts (vault_key_id(sealed_password), site_id, account_id)
    where sealed_password is not null;

alter table replicas add column vault_keys text[];
comment on column replicas.vault_keys is 'The vault''s keys that it has, each by id and fingerprint, the one under which it seals first; null for a server that does not tell.';
