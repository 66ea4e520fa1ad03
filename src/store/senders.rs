//! Senders: From addresses that somebody may use, beside those of accounts. Their codes: `sender_codes`.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, query, query_as, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::taking::{self, NewMessage};
use super::{Store, StoreError, sender_codes};
use crate::domain::address::Address;
use crate::domain::secret::Secret;
use crate::domain::sender::{Sender, Source, Wish};
use crate::domain::site::SiteId;

/// A sender that is about to be created.
pub struct NewSender<'a> {
    /// Whose it is.
    pub site: &'a SiteId,
    /// What is asked for.
    pub wish: &'a Wish,
    /// The code and the letter that brings it; present exactly where the source is a code.
    pub code: Option<NewCode<'a>>,
    /// The caller's request id and the MAC of the request's content.
    pub request: Option<(&'a str, &'a [u8])>,
}

/// A code that is about to be mailed.
#[derive(Clone, Copy)]
pub struct NewCode<'a> {
    /// Its id.
    pub id: Uuid,
    /// The code.
    pub code: &'a Secret,
    /// The letter that brings it.
    pub letter: &'a NewMessage,
}

/// What became of an attempt to create a sender.
#[derive(Debug)]
pub enum Created {
    /// Saved, and the letter taken if there is one; or confirmed already and left as it was.
    Saved(Sender),
    /// The request id was used before, for this sender and for content with this MAC.
    RequestKnown {
        /// The sender of then.
        sender: i64,
        /// The MAC of then.
        mac: Vec<u8>,
    },
    /// Too many codes were mailed to the address: again after so long.
    TooManyCodes(Duration),
    /// The account that was chosen for the letter is no longer there or no longer active: choose again.
    AccountChanged,
    /// There is no such site.
    NoSite,
}

struct SenderRow {
    sender_id: i64,
    sender_name: String,
    sender_email: String,
    user_id: String,
    shared: bool,
    source: String,
    confirmed: bool,
    create_time: OffsetDateTime,
}

impl SenderRow {
    fn into_sender(self, site: &SiteId) -> Result<Sender, StoreError> {
        let Self { sender_id, sender_name, sender_email, user_id, shared, source, confirmed, create_time } =
            self;
        let wish = Wish {
            sender_name,
            sender_email: Address::parse(&sender_email).map_err(|_| StoreError::Corrupt("address"))?,
            user: user_id,
            shared,
            source: Source::from_name(&source).ok_or(StoreError::Corrupt("source"))?,
        };
        Ok(Sender { site: site.clone(), id: sender_id, wish, confirmed, create_time })
    }
}

/// Whether this user may use the address of this key: he, or everybody, has a confirmed sender for it.
///
/// # Errors
/// When the database does not answer.
pub async fn is_confirmed(
    store: &Store,
    site: &SiteId,
    user: &str,
    sender_key: &str,
) -> Result<bool, StoreError> {
    let found = query_scalar!(
        r#"select exists (
               select from senders
               where site_id = $1
                 and sender_key = $2
                 and confirmed
                 and (user_id = $3 or shared)
           ) as "exists!""#,
        site.as_str(),
        sender_key,
        user,
    )
    .fetch_one(&store.pool)
    .await?;
    Ok(found)
}

/// The sender of this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, site: &SiteId, id: i64) -> Result<Option<Sender>, StoreError> {
    find_within(&store.pool, site, id).await
}

async fn find_within(
    executor: impl PgExecutor<'_>,
    site: &SiteId,
    id: i64,
) -> Result<Option<Sender>, StoreError> {
    query_as!(
        SenderRow,
        "select sender_id, sender_name, sender_email, user_id, shared, source, confirmed, create_time
         from senders
         where site_id = $1
           and sender_id = $2",
        site.as_str(),
        id,
    )
    .fetch_optional(executor)
    .await?
    .map(|row| row.into_sender(site))
    .transpose()
}

/// The sender of this user and address.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_address(
    store: &Store,
    site: &SiteId,
    user: &str,
    sender_key: &str,
) -> Result<Option<Sender>, StoreError> {
    query_as!(
        SenderRow,
        "select sender_id, sender_name, sender_email, user_id, shared, source, confirmed, create_time
         from senders
         where site_id = $1
           and user_id = $2
           and sender_key = $3",
        site.as_str(),
        user,
        sender_key,
    )
    .fetch_optional(&store.pool)
    .await?
    .map(|row| row.into_sender(site))
    .transpose()
}

/// The sender of a call with this request id, and the MAC of its content.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_request(
    store: &Store,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    find_request(&store.pool, site, request_id).await
}

async fn find_request(
    executor: impl PgExecutor<'_>,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = query!(
        "select sender_id, request_mac from sender_requests where site_id = $1 and request_id = $2",
        site.as_str(),
        request_id,
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| (row.sender_id, row.request_mac)))
}

/// Saves a sender, its code and the letter that brings it, all of them or nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn create(store: &Store, new: &NewSender<'_>) -> Result<Created, StoreError> {
    let NewSender { site, wish, code, request } = *new;
    let mut transaction = store.begin().await?;
    // One at a time within a site, so that codes are counted right; `no key` lets everything else of the site go on.
    let known = query!(
        "select from sites where site_id = $1 and delete_time is null for no key update",
        site.as_str()
    );
    if known.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(Created::NoSite);
    }
    if let Some((request_id, _)) = request
        && let Some((sender, mac)) = find_request(&mut *transaction, site, request_id).await?
    {
        return Ok(Created::RequestKnown { sender, mac });
    }
    let id = save(&mut transaction, site, wish).await?;
    let saved = find_within(&mut *transaction, site, id).await?;
    let saved = saved.ok_or(StoreError::Corrupt("sender"))?;
    if let Some(code) = code.filter(|_| !saved.confirmed) {
        if let Some(wait) = sender_codes::wait(&mut transaction, site, &wish.sender_email).await? {
            return Ok(Created::TooManyCodes(wait));
        }
        sender_codes::save(&mut transaction, store, &saved, code).await?;
        if taking::insert(&mut *transaction, code.letter).await?.is_none() {
            return Ok(Created::AccountChanged);
        }
    }
    if let Some((request_id, mac)) = request {
        query!(
            "insert into sender_requests (site_id, request_id, request_mac, sender_id) values ($1, $2, $3, $4)",
            site.as_str(),
            request_id,
            mac,
            id,
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    if let Some(code) = code {
        taking::tell_due(store, code.letter);
    }
    Ok(Created::Saved(saved))
}

/// A new sender, or the one there is: a confirmed one stays as it is, another takes over what is asked for. Its id.
async fn save(connection: &mut PgConnection, site: &SiteId, wish: &Wish) -> Result<i64, StoreError> {
    let Wish { sender_name, sender_email, user, shared, source } = wish;
    let there = query_scalar!(
        "update senders
         set sender_name = case when confirmed then sender_name else $4 end,
             shared = case when confirmed then shared else $5 end,
             source = case when confirmed then source else $6 end,
             confirmed = confirmed or $6 = 'mailbox'
         where site_id = $1
           and user_id = $2
           and sender_key = $3
         returning sender_id",
        site.as_str(),
        user,
        sender_email.key(),
        sender_name,
        shared,
        source.name(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(id) = there {
        return Ok(id);
    }
    let id = query_scalar!(
        "with site as (
             update sites
             set last_sender_id = last_sender_id + 1
             where site_id = $1
               and delete_time is null
             returning last_sender_id
         )
         insert into senders (
             site_id, sender_id, sender_name, sender_email, sender_key, user_id, shared, source, confirmed
         )
         select $1, last_sender_id, $2, $3, $4, $5, $6, $7, $7 = 'mailbox' from site
         returning sender_id",
        site.as_str(),
        sender_name,
        sender_email.to_string(),
        sender_email.key(),
        user,
        shared,
        source.name(),
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(id)
}

/// Deletes a sender of these sources; whether there was one. Its codes are still counted for the address.
///
/// # Errors
/// When the database does not answer.
pub async fn delete(store: &Store, site: &SiteId, id: i64, also_mailbox: bool) -> Result<bool, StoreError> {
    let deleted = query!(
        "delete from senders where site_id = $1 and sender_id = $2 and ($3 or source = 'code')",
        site.as_str(),
        id,
        also_mailbox,
    )
    .execute(&store.pool)
    .await?;
    Ok(deleted.rows_affected() == 1)
}
