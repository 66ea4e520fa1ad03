//! Letters are taken: each with its body and its place in the queue, many of them by one statement and one commit.
//!
//! What a group statement does not store (a request that came before, an account that changed, a database that did not
//! answer) is taken once more by itself, which tells why.

mod group;
mod single;

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::group::{Grouped, answer};
pub(super) use self::single::insert;
use super::error::violated_constraint;
use super::gathering::Broken;
use super::queue::{DueMail, Lane};
use super::{Store, StoreError, messages};
use crate::domain::message::Recipient;
use crate::domain::site::SiteId;

/// A larger body goes by itself: its bytes take longer than the commit that it would share.
const MAX_SHARED_BYTES: usize = 256 * 1024;

/// A letter that is about to be taken.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of one another, as the table has them"
)]
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Whose it is.
    pub site: SiteId,
    /// Its id, a `UUIDv7`.
    pub id: Uuid,
    /// The account that was chosen.
    pub account: i64,
    /// From, as the caller gave it.
    pub from_address: String,
    /// The envelope sender.
    pub envelope_sender: String,
    /// The Message-ID header.
    pub rfc_message_id: String,
    /// Recipients, all pending.
    pub recipients: Vec<Recipient>,
    /// The exact bytes.
    pub content: Bytes,
    /// Whether the content has bytes above 127.
    pub eight_bit: bool,
    /// Whether the header section has.
    pub utf8_headers: bool,
    /// Whether it is part of a mailing.
    pub mailing: bool,
    /// On whose behalf; empty for the site itself.
    pub user: String,
    /// Whether it is a letter of Postroom's own, whose content is never shown.
    pub is_own: bool,
    /// Whether the sender gets a copy; he is among the recipients then.
    pub copy_to_sender: bool,
    /// Not sent before.
    pub send_time: Option<OffsetDateTime>,
    /// Not sent after.
    pub expire_time: Option<OffsetDateTime>,
    /// The caller's tags.
    pub tags: Vec<String>,
    /// The caller's request id and the MAC of the request's content.
    pub request: Option<(String, Vec<u8>)>,
}

/// What became of an attempt to take a letter.
#[derive(Debug)]
pub enum Taken {
    /// Stored durably.
    Stored(Stored),
    /// The account that was chosen is no longer there or no longer active: choose again.
    AccountChanged,
    /// The request id was used before, for this letter and for content with this MAC.
    RequestKnown {
        /// The letter of then.
        message: Uuid,
        /// The MAC of then.
        mac: Vec<u8>,
    },
}

/// Times of a letter that was stored, by the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// When it was taken.
    pub create_time: OffsetDateTime,
    /// When it is to be sent.
    pub due: OffsetDateTime,
}

/// Stores a letter, its body and its place in the queue, together with those that come at the same time.
///
/// # Errors
/// When the database does not answer.
pub async fn take(store: &Store, message: &NewMessage) -> Result<Taken, StoreError> {
    let bytes = message.content.len();
    if bytes <= MAX_SHARED_BYTES {
        match store.gatherers().letters.ask(message.clone(), bytes).await {
            Ok(Grouped::Stored(stored)) => return Ok(Taken::Stored(stored)),
            Err(Broken::Unavailable) => return Err(Broken::unavailable()),
            Ok(Grouped::Again) | Err(Broken::Refused) => {}
        }
    }
    match insert(&store.pool, message).await {
        Ok(Some(stored)) => {
            tell_due(store, message);
            Ok(Taken::Stored(stored))
        }
        Ok(None) => {
            // By another replica: what was read of it before counts no more.
            store.changes.configured();
            Ok(Taken::AccountChanged)
        }
        Err(error) => known(store, message, error).await,
    }
}

/// What a letter that could not be stored was, if it or its request is stored already.
async fn known(store: &Store, message: &NewMessage, error: sqlx::Error) -> Result<Taken, StoreError> {
    let constraint = violated_constraint(&error);
    if constraint == Some("messages_by_request")
        && let Some((request_id, _)) = &message.request
        && let Some((message, mac)) = messages::find_by_request(store, &message.site, request_id).await?
    {
        return Ok(Taken::RequestKnown { message, mac });
    }
    if constraint == Some("messages_pkey")
        && let Some(found) = messages::find(store, &message.site, message.id).await?
    {
        // Its group was stored, and only the answer lost.
        let due = found.next_attempt_time.unwrap_or(found.create_time);
        return Ok(Taken::Stored(Stored { create_time: found.create_time, due }));
    }
    Err(error.into())
}

/// Tells this process that a letter waits, if it is due; call it when the letter is committed.
pub(super) fn tell_due(store: &Store, message: &NewMessage) {
    if message.send_time.is_some_and(|time| time > store.clock().now()) {
        return;
    }
    let mail = DueMail { other_mail: !message.mailing, in_table: true };
    store.changes.tell_due(lane(message), mail);
}

/// The lane of a letter.
fn lane(message: &NewMessage) -> Lane {
    Lane { site: message.site.clone(), account: message.account }
}
