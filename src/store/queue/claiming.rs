//! Claiming: accounts that have due mail are found, and their letters leased.

use std::time::Instant;

use sqlx::types::Json;
use sqlx::{query, query_as};
use time::OffsetDateTime;
use uuid::Uuid;

use super::horizon::BEGINNING;
use super::{Claim, DueMail, Lane, Ready, interval};
use crate::domain::message::Recipient;
use crate::domain::site::SiteId;
use crate::store::replicas::LEASE;
use crate::store::{Store, StoreError};

/// Bodies of up to so many bytes come with the claim: 256 workers with 16 letters each hold no more than 64 MiB of them.
const SMALL: i64 = 16 * 1024;

/// An account that may send, and for which a letter is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueLane {
    /// Which.
    pub lane: Lane,
    /// What of it.
    pub mail: DueMail,
}

/// The accounts that may send and for which a letter is due, by a loose index scan: two probes an account, however many
/// letters wait.
///
/// # Errors
/// When the database does not answer.
pub async fn due_lanes(store: &Store) -> Result<Vec<DueLane>, StoreError> {
    let rows = query!(
        r#"with recursive due as (
               (select account_id, site_id, mailing, due
                from queue
                order by account_id, site_id, mailing, due
                limit 1)
               union all
               select next.account_id, next.site_id, next.mailing, next.due
               from due
               cross join lateral (
                   select q.account_id, q.site_id, q.mailing, q.due
                   from queue q
                   where (q.account_id, q.site_id, q.mailing) > (due.account_id, due.site_id, due.mailing)
                   order by q.account_id, q.site_id, q.mailing, q.due
                   limit 1
               ) as next
           )
           select due.site_id as "site_id!", due.account_id as "account_id!",
                  bool_or(not due.mailing) as "other_mail!"
           from due
           join accounts a on a.site_id = due.site_id and a.account_id = due.account_id and a.active
           join settings s on s.site_id = due.site_id and coalesce(s.enabled, $1)
           left join lanes l on l.site_id = due.site_id and l.account_id = due.account_id
           where due.due <= now()
             and (l.parked_until is null or l.parked_until <= now())
             and (l.pause_until is null or l.pause_until <= now())
             and (not due.mailing or l.mailing_pause_until is null or l.mailing_pause_until <= now())
           group by due.site_id, due.account_id"#,
        store.defaults.enabled,
    )
    .fetch_all(&store.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let site = SiteId::parse(&row.site_id).ok_or(StoreError::Corrupt("site id"))?;
            let mail = DueMail { other_mail: row.other_mail, in_table: true };
            Ok(DueLane { lane: Lane { site, account: row.account_id }, mail })
        })
        .collect()
}

/// Which letters of an account to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that the pace allows.
    Any,
    /// Those that are no part of a mailing.
    OtherMail,
    /// One, to see whether a parked account works again.
    Probe,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of one another, as the table has them"
)]
struct ClaimRow {
    message_id: Uuid,
    attempt: i32,
    due: OffsetDateTime,
    after_interruption: bool,
    at_dot: Option<Vec<i32>>,
    cancelled: bool,
    panics: i32,
    mailing: bool,
    expire_time: Option<OffsetDateTime>,
    account_version: i64,
    settings_version: i64,
    envelope_sender: String,
    recipients: Json<Vec<Recipient>>,
    eight_bit: bool,
    utf8_headers: bool,
    is_own: bool,
    content: Option<Vec<u8>>,
}

impl ClaimRow {
    fn into_claim(self) -> Claim {
        Claim {
            message: self.message_id,
            attempt: self.attempt,
            due: self.due,
            after_interruption: self.after_interruption,
            at_dot: self.at_dot,
            cancelled: self.cancelled,
            panics: self.panics,
            mailing: self.mailing,
            expire_time: self.expire_time,
            account_version: self.account_version,
            settings_version: self.settings_version,
            envelope_sender: self.envelope_sender,
            recipients: self.recipients.0,
            eight_bit: self.eight_bit,
            utf8_headers: self.utf8_headers,
            is_own: self.is_own,
            ready: self.content.map(|content| Ready::now(content.into())),
        }
    }
}

/// Claims up to `limit` due letters of an account that may send, other mail before mailings: counts their attempts and
/// leases them. Nothing is claimed for a replica whose heartbeat was not heard within half a lease, nor for a `holder` of a
/// session whose slot somebody else has taken.
///
/// # Errors
/// When the database does not answer.
#[expect(clippy::too_many_lines, reason = "one statement; in pieces it would be harder to read")]
pub async fn claim(
    store: &Store,
    lane: &Lane,
    replica: Uuid,
    holder: Option<Uuid>,
    wanted: Wanted,
    limit: u32,
) -> Result<Vec<Claim>, StoreError> {
    let (began, from) =
        (Instant::now(), if wanted == Wanted::Probe { BEGINNING } else { store.horizons.from(lane) });
    let rows = query_as!(
        ClaimRow,
        r#"with open as (
               -- Looked at once, whatever waits.
               select l.mailing_pause_until is null or l.mailing_pause_until <= now() as to_mailings,
                      a.version as account_version, s.version as settings_version
               from accounts a
               join settings s on s.site_id = a.site_id and coalesce(s.enabled, $9)
               -- Our own lease must count, and for a while yet: a replica that is not heard of (not yet, or no more)
               -- would have its letters claimed, and sent, by everybody else as well.
               join replicas r on r.replica_id = $3 and r.heartbeat_time > now() - $5::interval / 2
               left join lanes l on l.site_id = a.site_id and l.account_id = a.account_id
               -- An account or a site that was switched off keeps its mail waiting; so does one that is parked, or whose
               -- pace has no slot.
               where a.site_id = $1
                 and a.account_id = $2
                 and a.active
                 and (l.parking_reason is null or $7)
                 and (l.pause_until is null or l.pause_until <= now())
                 -- So does one whose session this is no more.
                 and ($8::uuid is null
                      or exists (
                          select from lane_sessions held
                          where held.site_id = $1
                            and held.account_id = $2
                            and held.holder = $8
                      ))
           ), other_mail as (
               select q.message_id, q.leased_by is not null as after_interruption
               from queue q
               where exists (select from open)
                 and q.site_id = $1
                 and q.account_id = $2
                 and not q.mailing
                 and q.due >= $11
                 and q.due <= now()
                 and (q.leased_by is null
                      or not exists (
                          select from replicas r
                          where r.replica_id = q.leased_by
                            and r.heartbeat_time > now() - $5::interval
                      ))
               order by q.due
               limit $4
               for update of q skip locked
           ), mailings as (
               select q.message_id, q.leased_by is not null as after_interruption
               from queue q
               where not $6
                 and exists (select from open where to_mailings)
                 and q.site_id = $1
                 and q.account_id = $2
                 and q.mailing
                 and q.due >= $12
                 and q.due <= now()
                 and (q.leased_by is null
                      or not exists (
                          select from replicas r
                          where r.replica_id = q.leased_by
                            and r.heartbeat_time > now() - $5::interval
                      ))
               order by q.due
               limit $4 - (select count(*) from other_mail)
               for update of q skip locked
           ), claimed as (
               update queue q
               set leased_by = $3,
                   attempt = q.attempt + 1
               where q.site_id = $1
                 -- Arrays, no join: by the key, whatever statistics say.
                 and q.message_id = any(array(
                         select message_id from other_mail union all select message_id from mailings
                     ))
               returning q.message_id, q.attempt, q.due, q.mailing, q.expire_time, q.cancelled, q.panics, q.at_dot,
                         q.message_id = any(array(
                             select message_id from other_mail where after_interruption
                             union all
                             select message_id from mailings where after_interruption
                         )) as after_interruption
           )
           select c.message_id, c.attempt, c.due, c.after_interruption as "after_interruption!", c.at_dot, c.cancelled,
                  c.panics, c.mailing, c.expire_time, m.envelope_sender,
                  open.account_version as "account_version!", open.settings_version as "settings_version!",
                  m.recipients as "recipients: Json<Vec<Recipient>>", m.eight_bit, m.utf8_headers, m.is_own,
                  case when m.size_bytes <= $10 then b.content end as content
           from claimed c
           cross join open
           join messages m on m.site_id = $1 and m.message_id = c.message_id
           left join message_bodies b on b.site_id = $1 and b.message_id = c.message_id
           order by c.mailing, c.due, c.message_id"#,
        lane.site.as_str(),
        lane.account,
        replica,
        i64::from(limit),
        interval(LEASE),
        wanted == Wanted::OtherMail,
        wanted == Wanted::Probe,
        holder,
        store.defaults.enabled,
        SMALL,
        from.other_mail,
        from.mailings,
    )
    .fetch_all(&store.pool)
    .await?;
    let claims: Vec<Claim> = rows.into_iter().map(ClaimRow::into_claim).collect();
    store.horizons.found(lane, from, began, &claims);
    Ok(claims)
}
