//! Codes that were mailed to confirm senders: counted, tried, forgotten. The codes themselves are not kept.

use std::time::Duration;

use sqlx::{PgConnection, query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::queue::interval;
use super::senders::NewCode;
use super::{Store, StoreError};
use crate::domain::address::Address;
use crate::domain::secret::Secret;
use crate::domain::sender::{self, CODE_LIFETIME, COUNTING_PERIOD, MAX_TRIES, Sender};
use crate::domain::site::SiteId;

/// What the MAC over a code is made for.
const CODE_MAC: &str = "sender code";

/// What became of a try to confirm a sender.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is confirmed now.
    Confirmed,
    /// Not the code; so many tries are left.
    Wrong(i32),
    /// There is no code that counts, or this one does not any more.
    Expired,
}

/// How long no code may be mailed to an address; forgets the codes that no longer count.
pub(super) async fn wait(
    connection: &mut PgConnection,
    site: &SiteId,
    address: &Address,
) -> Result<Option<Duration>, StoreError> {
    query!(
        "delete from sender_codes where site_id = $1 and create_time <= now() - $2::interval",
        site.as_str(),
        interval(COUNTING_PERIOD),
    )
    .execute(&mut *connection)
    .await?;
    let rows = query!(
        r#"select create_time, now() as "now!"
           from sender_codes
           where site_id = $1
             and sender_key = $2
           order by create_time desc"#,
        site.as_str(),
        address.key(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(now) = rows.first().map(|row| row.now) else { return Ok(None) };
    let mailed: Vec<OffsetDateTime> = rows.iter().map(|row| row.create_time).collect();
    Ok(sender::wait_for_code(now, &mailed))
}

/// Saves a code that is about to be mailed.
pub(super) async fn save(
    connection: &mut PgConnection,
    store: &Store,
    sender: &Sender,
    new: NewCode<'_>,
) -> Result<(), StoreError> {
    let NewCode { id, code, letter: _ } = new;
    let mac = store.vault().content_mac(CODE_MAC, &bound(&sender.site, sender.id, id, code));
    query!(
        "insert into sender_codes (site_id, sender_key, code_id, sender_id, code_mac, expire_time)
         values ($1, $2, $3, $4, $5, now() + $6::interval)",
        sender.site.as_str(),
        sender.wish.sender_email.key(),
        id,
        sender.id,
        mac.as_slice(),
        interval(CODE_LIFETIME),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A code together with what it is for, so that the MAC of one says nothing about any other.
fn bound(site: &SiteId, sender: i64, id: Uuid, code: &Secret) -> Vec<u8> {
    let site = site.as_str().as_bytes();
    [&[0; 1], site, &[0; 1], &sender.to_be_bytes(), id.as_bytes(), code.expose()].concat()
}

/// Tries a code for a sender.
///
/// # Errors
/// When the database does not answer.
pub async fn confirm(store: &Store, site: &SiteId, id: i64, code: &Secret) -> Result<Tried, StoreError> {
    // Counted before it is looked at, and committed: however many try at once, the sixth finds nothing to try.
    let tried = query!(
        "update sender_codes c
         set tries = tries + 1
         from senders s
         where c.site_id = $1
           and s.site_id = $1
           and s.sender_id = $2
           and not s.confirmed
           and c.sender_key = s.sender_key
           and c.code_id = (
               select code_id
               from sender_codes
               where site_id = $1
                 and sender_id = $2
               order by create_time desc
               limit 1
           )
           and c.tries < $3
           and c.expire_time > now()
         returning c.code_id, c.code_mac, c.tries",
        site.as_str(),
        id,
        MAX_TRIES,
    )
    .fetch_optional(&store.pool)
    .await?;
    let Some(newest) = tried else { return Ok(Tried::Expired) };
    let is =
        |code_id, mac: &[u8]| store.vault().is_content_mac(CODE_MAC, &bound(site, id, code_id, code), mac);
    if is(newest.code_id, &newest.code_mac) {
        let confirmed = query!(
            "update senders set confirmed = true where site_id = $1 and sender_id = $2 and not confirmed",
            site.as_str(),
            id,
        )
        .execute(&store.pool)
        .await?;
        // Of two that try the right one at the same moment the later one finds it used.
        return Ok(if confirmed.rows_affected() == 1 { Tried::Confirmed } else { Tried::Expired });
    }
    let older = query!(
        "select code_id, code_mac from sender_codes where site_id = $1 and sender_id = $2 and code_id <> $3",
        site.as_str(),
        id,
        newest.code_id,
    )
    .fetch_all(&store.pool)
    .await?;
    if older.iter().any(|older| is(older.code_id, &older.code_mac)) {
        return Ok(Tried::Expired);
    }
    Ok(Tried::Wrong(MAX_TRIES - newest.tries))
}
