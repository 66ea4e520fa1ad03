-- What taking and recording a letter costs the database (docs/performance.md has the figures).

-- A letter of up to 8 KiB lies in its row: one row and one place in an index instead of four of each.
alter table message_bodies set (toast_tuple_target = 8160);
-- Room beside a letter for what its first attempt brings, so that no index learns of it.
alter table messages set (fillfactor = 50);

-- A statement that was planned while a table was empty keeps to its plan. An index that begins with the site looked as good
-- then as the key, and all letters of a site were read for one.
drop index messages_by_rfc_message_id;
create index messages_by_rfc_message_id on messages (rfc_message_id, site_id);
drop index queue_by_class;
create index queue_by_class on queue (account_id, site_id, mailing, due);

-- Body and place of a letter are stored by the statement that stores the letter, and nowhere else; its site is locked
-- meanwhile. Foreign keys would ask and lock once more for each row. What goes with a letter goes as before.
alter table messages drop constraint messages_site;
alter table message_bodies drop constraint message_bodies_message;
alter table queue drop constraint queue_message;
create function messages_gone() returns trigger
    language plpgsql
    as $$
begin
    delete from queue q using gone where q.site_id = gone.site_id and q.message_id = gone.message_id;
    delete from message_bodies b using gone where b.site_id = gone.site_id and b.message_id = gone.message_id;
    return null;
end
$$;
create trigger messages_gone
    after delete on messages
    referencing old table as gone
    for each statement
    execute function messages_gone();

-- A log's row is stored, and so locked, by the transaction that adds to it.
alter table log_chunks drop constraint log_chunks_log;
