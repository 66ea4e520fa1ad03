//! Many letters in one statement. Those that this process can send at once are stored as leased by itself, and handed to
//! the workers of their account without a second look at the table.

use std::collections::HashMap;

use sqlx::query_as;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{NewMessage, Stored, lane, tell_due};
use crate::domain::message::Recipient;
use crate::store::connections::SILENCE;
use crate::store::handover::{Handed, Place};
use crate::store::queue::{Claim, DueMail, Horizons, Ready, hand_back, interval};
use crate::store::{Store, StoreError};

/// What became of a letter of a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Grouped {
    /// Stored durably.
    Stored(Stored),
    /// Not: it is taken again by itself, which tells why.
    Again,
}

/// Takes letters together.
pub(in crate::store) async fn answer(
    store: Store,
    messages: Vec<NewMessage>,
) -> Result<Vec<Grouped>, StoreError> {
    let places: Vec<Option<Place>> = messages.iter().map(|message| place(&store, message)).collect();
    let rows = match insert(&store, &messages, &places).await {
        Ok(rows) => rows,
        Err(error) => {
            if places.iter().any(Option::is_some) {
                // Stored perhaps, and leased.
                store.handover.doubt();
            }
            return Err(error);
        }
    };
    let mut rows: HashMap<Uuid, Row> = rows.into_iter().map(|row| (row.message_id, row)).collect();
    let mut answers = Vec::with_capacity(messages.len());
    for (message, place) in messages.into_iter().zip(places) {
        let Some(row) = rows.remove(&message.id) else {
            answers.push(Grouped::Again);
            continue;
        };
        answers.push(Grouped::Stored(Stored { create_time: row.create_time, due: row.due }));
        let lane = lane(&message);
        let handed = DueMail { other_mail: !message.mailing, in_table: false };
        match place.filter(|_| row.leased) {
            Some(place) => {
                store.horizons.nothing_waited(&lane, message.mailing, row.due);
                hand_over(&store, message, place, row.due).await;
                store.changes.tell_due(lane, handed);
            }
            None => tell_due(&store, &message),
        }
    }
    Ok(answers)
}

/// A place at the counter of the letter's account, where this process sends for it and the letter is for now.
fn place(store: &Store, message: &NewMessage) -> Option<Place> {
    if message.send_time.is_some() { None } else { store.handover.place(&lane(message)) }
}

/// Gives a letter that is leased to the workers of its account; back, where there are none any more.
async fn hand_over(store: &Store, message: NewMessage, place: Place, due: OffsetDateTime) {
    let (site, id, replica) = (message.site.clone(), message.id, place.replica());
    if place.put(claim(message, &place, due)).is_err() {
        let letters = [(id, 1)];
        if let Err(error) = hand_back(store, &site, replica, &letters, std::time::Duration::ZERO).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a letter cannot be handed back yet");
            store.handover.doubt();
        }
    }
}

/// The letter as claimed for its first attempt.
fn claim(message: NewMessage, place: &Place, due: OffsetDateTime) -> Handed {
    let (account_version, settings_version) = place.versions();
    Claim {
        message: message.id,
        attempt: 1,
        due,
        after_interruption: false,
        at_dot: None,
        cancelled: false,
        panics: 0,
        mailing: message.mailing,
        expire_time: message.expire_time,
        account_version,
        settings_version,
        envelope_sender: message.envelope_sender,
        recipients: message.recipients,
        eight_bit: message.eight_bit,
        utf8_headers: message.utf8_headers,
        is_own: message.is_own,
        ready: Some(Ready::now(message.content)),
    }
}

struct Row {
    message_id: Uuid,
    create_time: OffsetDateTime,
    due: OffsetDateTime,
    leased: bool,
}

/// Columns of the letters to insert.
#[derive(Default)]
struct Columns<'a> {
    sites: Vec<&'a str>,
    ids: Vec<Uuid>,
    accounts: Vec<i64>,
    from_addresses: Vec<&'a str>,
    envelope_senders: Vec<&'a str>,
    rfc_message_ids: Vec<&'a str>,
    recipients: Vec<Json<&'a [Recipient]>>,
    sizes: Vec<i64>,
    contents: Vec<&'a [u8]>,
    eight_bit: Vec<bool>,
    utf8_headers: Vec<bool>,
    request_ids: Vec<Option<&'a str>>,
    request_macs: Vec<Option<&'a [u8]>>,
    mailings: Vec<bool>,
    users: Vec<&'a str>,
    are_own: Vec<bool>,
    copies: Vec<bool>,
    send_times: Vec<Option<OffsetDateTime>>,
    expire_times: Vec<Option<OffsetDateTime>>,
    tags: Vec<Json<&'a [String]>>,
    others_from: Vec<OffsetDateTime>,
    mailings_from: Vec<OffsetDateTime>,
    account_versions: Vec<Option<i64>>,
    settings_versions: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn of(messages: &'a [NewMessage], places: &[Option<Place>], horizons: &Horizons) -> Self {
        let mut columns = Self::default();
        for (message, place) in messages.iter().zip(places) {
            let request = message.request.as_ref();
            let versions = place.as_ref().map(Place::versions);
            columns.sites.push(message.site.as_str());
            columns.ids.push(message.id);
            columns.accounts.push(message.account);
            columns.from_addresses.push(&message.from_address);
            columns.envelope_senders.push(&message.envelope_sender);
            columns.rfc_message_ids.push(&message.rfc_message_id);
            columns.recipients.push(Json(&message.recipients));
            columns.sizes.push(i64::try_from(message.content.len()).unwrap_or(i64::MAX));
            columns.contents.push(&message.content);
            columns.eight_bit.push(message.eight_bit);
            columns.utf8_headers.push(message.utf8_headers);
            columns.request_ids.push(request.map(|(id, _)| id.as_str()));
            columns.request_macs.push(request.map(|(_, mac)| mac.as_slice()));
            columns.mailings.push(message.mailing);
            columns.users.push(&message.user);
            columns.are_own.push(message.is_own);
            columns.copies.push(message.copy_to_sender);
            columns.send_times.push(message.send_time);
            columns.expire_times.push(message.expire_time);
            columns.tags.push(Json(&message.tags));
            let from = horizons.near(&lane(message));
            columns.others_from.push(from.other_mail);
            columns.mailings_from.push(from.mailings);
            columns.account_versions.push(versions.map(|(account, _)| account));
            columns.settings_versions.push(versions.map(|(_, settings)| settings));
        }
        columns
    }
}

#[expect(clippy::too_many_lines, reason = "one statement; in pieces it would be harder to read")]
async fn insert(
    store: &Store,
    messages: &[NewMessage],
    places: &[Option<Place>],
) -> Result<Vec<Row>, StoreError> {
    let columns = Columns::of(messages, places, &store.horizons);
    let replica = places.iter().flatten().map(Place::replica).next().unwrap_or_default();
    let rows = query_as!(
        Row,
        r#"with n as materialized (
               select *
               from unnest(
                        $1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::bigint[],
                        $9::boolean[], $10::boolean[], $11::text[], $12::bytea[], $13::boolean[], $14::text[], $15::boolean[],
                        $16::boolean[], $17::timestamptz[], $18::timestamptz[], $19::jsonb[], $20::bigint[], $21::bigint[],
                        $25::timestamptz[], $26::timestamptz[]
                    )
                    as n (site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
                          eight_bit, utf8_headers, request_id, request_mac, mailing, user_id, is_own, copy_to_sender,
                          send_time, expire_time, tags, account_version, settings_version, others_from, mailings_from)
           ), open as materialized (
               -- Holds off a concurrent delete of the account or the site, not a change of them. For one that is under way
               -- the others do not wait.
               select a.site_id, a.account_id, a.version
               from accounts a
               join sites s on s.site_id = a.site_id and s.delete_time is null
               where (a.site_id, a.account_id) in (select site_id, account_id from n)
                 and a.active
               for key share of a, s skip locked
           ), ready as materialized (
               -- Lanes of which our own workers have the account and the settings as they are, and that nothing holds up.
               select n.site_id, n.account_id, n.mailing
               from (
                   select distinct on (site_id, account_id, mailing)
                          site_id, account_id, mailing, account_version, settings_version, others_from, mailings_from
                   from n
                   where account_version is not null
               ) as n
               join open a on a.site_id = n.site_id and a.account_id = n.account_id and a.version = n.account_version
               join settings s on s.site_id = n.site_id and s.version = n.settings_version and coalesce(s.enabled, $22)
               -- Our lease counts, and so do our sessions.
               join replicas r on r.replica_id = $23 and r.heartbeat_time > now() - $24::interval
               left join lanes l on l.site_id = n.site_id and l.account_id = n.account_id
               where l.parking_reason is null
                 and (l.pause_until is null or l.pause_until <= now())
                 and (not n.mailing or l.mailing_pause_until is null or l.mailing_pause_until <= now())
                 -- Nothing waits before it: neither other mail nor, before a mailing, a mailing.
                 and not exists (
                     select from queue q
                     where q.site_id = n.site_id
                       and q.account_id = n.account_id
                       and not q.mailing
                       and q.due >= n.others_from
                       and q.due <= now()
                       and q.leased_by is null
                 )
                 and (not n.mailing
                      or not exists (
                          select from queue q
                          where q.site_id = n.site_id
                            and q.account_id = n.account_id
                            and q.mailing
                            and q.due >= n.mailings_from
                            and q.due <= now()
                            and q.leased_by is null
                      ))
           ), message as (
               insert into messages (
                   site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
                   eight_bit, utf8_headers, request_id, request_mac, mailing, user_id, is_own, copy_to_sender, send_time,
                   expire_time, tags
               )
               select n.site_id, n.message_id, n.account_id, n.from_address, n.envelope_sender, n.rfc_message_id,
                      n.recipients, n.size_bytes, n.eight_bit, n.utf8_headers, n.request_id, n.request_mac,
                      n.mailing, n.user_id, n.is_own, n.copy_to_sender, n.send_time, n.expire_time,
                      array(select jsonb_array_elements_text(n.tags))
               from n
               join open on open.site_id = n.site_id and open.account_id = n.account_id
               on conflict (site_id, request_id) where request_id is not null do nothing
               returning site_id, message_id, create_time
           ), body as (
               insert into message_bodies (site_id, message_id, content)
               -- Straight from the array: the bytes are not copied with every look at the rest.
               select m.site_id, m.message_id, c.content
               from unnest($2::uuid[], $27::bytea[]) as c (message_id, content)
               join message m on m.message_id = c.message_id
           ), queued as (
               insert into queue (site_id, message_id, account_id, mailing, due, first_due, expire_time, attempt, leased_by)
               select n.site_id, n.message_id, n.account_id, n.mailing, greatest(now(), n.send_time),
                      greatest(now(), n.send_time), n.expire_time,
                      case when ready.site_id is null then 0 else 1 end,
                      case when ready.site_id is not null then $23::uuid end
               from n
               join message m on m.site_id = n.site_id and m.message_id = n.message_id
               left join ready on ready.site_id = n.site_id
                              and ready.account_id = n.account_id
                              and ready.mailing = n.mailing
                              and n.account_version is not null
               returning site_id, message_id, due, leased_by is not null as leased
           )
           select m.message_id, m.create_time, q.due, q.leased as "leased!"
           from message m
           join queued q on q.site_id = m.site_id and q.message_id = m.message_id"#,
        &columns.sites as &[&str],
        &columns.ids,
        &columns.accounts,
        &columns.from_addresses as &[&str],
        &columns.envelope_senders as &[&str],
        &columns.rfc_message_ids as &[&str],
        columns.recipients as _,
        &columns.sizes,
        &columns.eight_bit,
        &columns.utf8_headers,
        &columns.request_ids as _,
        &columns.request_macs as _,
        &columns.mailings,
        &columns.users as &[&str],
        &columns.are_own,
        &columns.copies,
        &columns.send_times as _,
        &columns.expire_times as _,
        columns.tags as _,
        &columns.account_versions as _,
        &columns.settings_versions as _,
        store.defaults.enabled,
        replica,
        interval(SILENCE),
        &columns.others_from,
        &columns.mailings_from,
        &columns.contents as &[&[u8]],
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(rows)
}
