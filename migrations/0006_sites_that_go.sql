-- Sites that are deleted: marked first, then emptied in groups, then gone; what must not come again outlives them.

alter table sites
    add column delete_time timestamptz,
    add column first_position bigint not null default 0;
comment on column sites.delete_time is 'Since when it is being deleted: for every caller it is gone, and its rows go in groups. Null for a site that stays.';
comment on column sites.first_position is 'Positions of its transcripts and events lie behind this one: places before it are of another site that had this id.';
create index sites_that_go on sites (site_id) where delete_time is not null;

create table former_sites (
    site_id text not null,
    last_account_id bigint not null,
    last_sender_id bigint not null,
    constraint former_sites_pkey primary key (site_id)
);
comment on table former_sites is 'Ids of sites that were deleted. A site that gets such an id goes on behind the ids of accounts and senders that were given: a password that was sealed for one of them opens in no account of the new site, and no late word of a session finds one.';
