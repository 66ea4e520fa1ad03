-- The database of Postroom and its two roles, for psql as a superuser. May be run again: what is there stays, rights are
-- set anew.
--
--     psql --file deploy/postgres/roles.sql
--     psql --command '\password postroom_owner' --command '\password postroom'
--
-- postroom_owner owns the schema: `postroom migrate` runs as this role, before each update. postroom is the role of the
-- servers: it reads and writes rows, and can neither make nor change nor drop anything. Other names by
-- `-v owner=NAME -v app=NAME -v database=NAME`.

\set ON_ERROR_STOP on
\if :{?owner} \else \set owner postroom_owner \endif
\if :{?app} \else \set app postroom \endif
\if :{?database} \else \set database postroom \endif

select format('create role %I login nosuperuser nocreatedb nocreaterole', role)
from unnest(array[:'owner', :'app']) as role
where not exists (select from pg_roles where rolname = role)
\gexec

select format('create database %I owner %I encoding ''UTF8'' template template0', :'database', :'owner')
where not exists (select from pg_database where datname = :'database')
\gexec

revoke all on database :"database" from public;
revoke all on database :"database" from :"app";
grant connect on database :"database" to :"app";

\connect :"database"

alter schema public owner to :"owner";
revoke all on schema public from public;
revoke all on schema public from :"app";
grant usage on schema public to :"app";

-- What is there, and what later migrations make.
grant select, insert, update, delete on all tables in schema public to :"app";
grant usage on all sequences in schema public to :"app";
alter default privileges for role :"owner" in schema public
    grant select, insert, update, delete on tables to :"app";
alter default privileges for role :"owner" in schema public
    grant usage on sequences to :"app";

-- Which migrations were applied only the owner writes down.
set role :"owner";
create table if not exists _sqlx_migrations (
    version bigint primary key,
    description text not null,
    installed_on timestamptz not null default now(),
    success boolean not null,
    checksum bytea not null,
    execution_time bigint not null
);
revoke insert, update, delete on _sqlx_migrations from :"app";
