//! The queue: due letters are claimed under a lease, their outcomes recorded behind a fence.
//!
//! A lease is a replica's id; it counts as long as that replica's heartbeat is heard. The attempt's number is the
//! fence: an outcome counts unless a newer attempt was claimed.

mod claiming;
mod held;
mod horizon;
mod recording;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::postgres::types::PgInterval;
use sqlx::{query, query_as};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::claiming::{DueLane, Wanted, claim, due_lanes};
pub(super) use self::horizon::Horizons;
pub(super) use self::recording::{Recorded, Try, record};
use super::{Store, StoreError};
use crate::domain::message::{Attempt, Next, Recipient};
use crate::domain::site::SiteId;

/// An account for which letters are due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Whose it is.
    pub site: SiteId,
    /// Its id.
    pub account: i64,
}

/// Which of an account's mail is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueMail {
    /// Whether some of it is no part of a mailing.
    pub other_mail: bool,
    /// Whether some of it is to be claimed; what is not lies at the counter of the account.
    pub in_table: bool,
}

impl DueMail {
    /// This and other mail.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self { other_mail: self.other_mail || more.other_mail, in_table: self.in_table || more.in_table }
    }
}

/// A letter that was claimed, with all that sending it takes but its body.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of one another, as the table has them"
)]
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its id.
    pub message: Uuid,
    /// Number of this attempt.
    pub attempt: i32,
    /// Since when it was due.
    pub due: OffsetDateTime,
    /// Whether the attempt before was claimed by a process that ended without recording its outcome.
    pub after_interruption: bool,
    /// The recipients, by number, for whom that attempt had written the dot; told only with HOLD.
    pub at_dot: Option<Vec<i32>>,
    /// Whether it was cancelled while that attempt was under way.
    pub cancelled: bool,
    /// How often our own code failed at it.
    pub panics: i32,
    /// Whether it is part of a mailing.
    pub mailing: bool,
    /// It is not sent after this time.
    pub expire_time: Option<OffsetDateTime>,
    /// The version of its account at the claim.
    pub account_version: i64,
    /// The version of its site's settings at the claim.
    pub settings_version: i64,
    /// The envelope sender.
    pub envelope_sender: String,
    /// Recipients.
    pub recipients: Vec<Recipient>,
    /// Whether the content has bytes above 127.
    pub eight_bit: bool,
    /// Whether the header section has.
    pub utf8_headers: bool,
    /// Whether it is a letter of Postroom's own, whose content is never shown.
    pub is_own: bool,
    /// Its body, where that is small and came with the claim.
    pub ready: Option<Ready>,
}

#[cfg(test)]
impl Claim {
    /// The first claim of a letter to nobody, due long ago.
    pub(crate) fn example() -> Self {
        Self {
            message: Uuid::nil(),
            attempt: 1,
            due: OffsetDateTime::UNIX_EPOCH,
            after_interruption: false,
            at_dot: None,
            cancelled: false,
            panics: 0,
            mailing: false,
            expire_time: None,
            account_version: 1,
            settings_version: 1,
            envelope_sender: String::new(),
            recipients: Vec::new(),
            eight_bit: false,
            utf8_headers: false,
            is_own: false,
            ready: None,
        }
    }
}

/// A body that was read with the claim.
#[derive(Clone)]
pub struct Ready {
    /// The exact bytes.
    pub content: Bytes,
    since: Instant,
}

/// So long what was true of a letter when it was claimed is taken to be true: half of the two seconds within which changes
/// count everywhere.
const FRESH: Duration = Duration::from_secs(1);

impl Ready {
    /// A body that was read now.
    pub(super) fn now(content: Bytes) -> Self {
        Self { content, since: Instant::now() }
    }

    /// Whether the claim is so young that what it says of account, site and letter need not be asked again.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.since.elapsed() < FRESH
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes, {:?} ago", self.content.len(), self.since.elapsed())
    }
}

/// What became of a claimed letter.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its id.
    pub message: Uuid,
    /// Number of the attempt: the fence.
    pub attempt: i32,
    /// Recipients as they are now.
    pub recipients: Vec<Recipient>,
    /// The attempts to add to its history.
    pub attempts: Vec<Attempt>,
    /// Whether our own code failed at it: it is counted, and what was at the dot stays noted.
    pub panicked: bool,
    /// What follows.
    pub next: Next,
    /// The attempt before, where it ended at the dot and is held: its own late result may still correct this one.
    pub held: Option<i32>,
}

/// What a worker sends.
#[derive(Debug)]
pub struct Body {
    /// The exact bytes.
    pub content: Vec<u8>,
    /// Whether the letter was cancelled since it was claimed.
    pub cancelled: bool,
    /// Whether its account and its site may send: they may have been switched off or deleted since.
    pub may_send: bool,
    /// The version of its account now.
    pub account_version: i64,
    /// The version of its site's settings now.
    pub settings_version: i64,
}

/// The body of a letter of an account that this replica has claimed; `None` where the letter is gone or claimed anew.
///
/// # Errors
/// When the database does not answer.
pub async fn body(
    store: &Store,
    lane: &Lane,
    replica: Uuid,
    message: Uuid,
    attempt: i32,
) -> Result<Option<Body>, StoreError> {
    let Lane { site, account } = lane;
    let body = query_as!(
        Body,
        r#"select b.content, q.cancelled,
                  -- Not where the account or the site is gone.
                  coalesce(a.active and s.version > 0 and coalesce(s.enabled, $6), false) as "may_send!",
                  coalesce(a.version, 0) as "account_version!", coalesce(s.version, 0) as "settings_version!"
         from queue q
         join message_bodies b on b.site_id = q.site_id and b.message_id = q.message_id
         left join accounts a on a.site_id = q.site_id and a.account_id = $5
         left join settings s on s.site_id = q.site_id
         where q.site_id = $1
           and q.message_id = $2
           and q.attempt = $3
           and q.leased_by = $4"#,
        site.as_str(),
        message,
        attempt,
        replica,
        account,
        store.defaults.enabled,
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(body)
}

/// Notes durably that the dot is about to be written for these recipients, by number; whether the lease still counts.
///
/// # Errors
/// When the database does not answer.
pub async fn at_dot(
    store: &Store,
    site: &SiteId,
    replica: Uuid,
    message: Uuid,
    attempt: i32,
    recipients: &[i32],
) -> Result<bool, StoreError> {
    let noted = query!(
        "update queue
         set at_dot = coalesce(at_dot, '{}') || $5::integer[]
         where site_id = $1
           and message_id = $2
           and attempt = $3
           and leased_by = $4",
        site.as_str(),
        message,
        attempt,
        replica,
        recipients,
    )
    .execute(&store.pool)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Gives claimed letters back untried, their attempts uncounted; those claimed anew meanwhile stay as they are.
///
/// # Errors
/// When the database does not answer.
pub async fn hand_back(
    store: &Store,
    site: &SiteId,
    replica: Uuid,
    letters: &[(Uuid, i32)],
    wait: Duration,
) -> Result<(), StoreError> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = letters.iter().copied().unzip();
    query!(
        "update queue q
         set leased_by = null,
             attempt = attempt - 1,
             -- What this attempt noted was not written; what an earlier one did stays.
             at_dot = case when q.attempt > 1 then q.at_dot end,
             -- Without a wait it keeps its place among the others.
             due = case when $5::interval > interval '0' then greatest(q.due, now() + $5::interval) else q.due end
         where q.site_id = $1
           and q.message_id = any($3)
           and q.attempt = ($4::integer[])[array_position($3, q.message_id)]
           and q.leased_by = $2",
        site.as_str(),
        replica,
        &ids,
        &attempts,
        interval(wait),
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

pub(super) fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
