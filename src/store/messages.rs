//! Letters: found, listed.

use sqlx::types::Json;
use sqlx::{query, query_as};
use time::OffsetDateTime;
use uuid::Uuid;

use super::queue::interval;
use super::replicas::LEASE;
use super::{Store, StoreError};
use crate::domain::message::{Attempt, Message, MessageState, Recipient};
use crate::domain::site::SiteId;

/// Which letters to list.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Only in these states; empty = all.
    pub states: Vec<MessageState>,
    /// Only of this account.
    pub account: Option<i64>,
    /// Only on behalf of this user.
    pub user: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only to this address.
    pub recipient: Option<String>,
    /// Only with this Message-ID.
    pub rfc_message_id: Option<String>,
    /// Only accepted at this time or later.
    pub start_time: Option<OffsetDateTime>,
    /// Only accepted before this time.
    pub end_time: Option<OffsetDateTime>,
}

struct MessageRow {
    message_id: Uuid,
    mailing: bool,
    user_id: String,
    account_id: i64,
    state: String,
    from_address: String,
    rfc_message_id: String,
    recipients: Json<Vec<Recipient>>,
    attempts: Json<Vec<Attempt>>,
    size_bytes: i64,
    create_time: OffsetDateTime,
    final_time: Option<OffsetDateTime>,
    due: Option<OffsetDateTime>,
    copy_to_sender: bool,
    send_time: Option<OffsetDateTime>,
    expire_time: Option<OffsetDateTime>,
    tags: Vec<String>,
}

impl MessageRow {
    fn into_message(self, site: &SiteId) -> Result<Message, StoreError> {
        let state = MessageState::from_name(&self.state).ok_or(StoreError::Corrupt("message state"))?;
        Ok(Message {
            site: site.clone(),
            id: self.message_id,
            account: self.account_id,
            mailing: self.mailing,
            user: self.user_id,
            copy_to_sender: self.copy_to_sender,
            send_time: self.send_time,
            expire_time: self.expire_time,
            tags: self.tags,
            from_address: self.from_address,
            message_id: self.rfc_message_id,
            recipients: self.recipients.0,
            attempts: self.attempts.0,
            next_attempt_time: self.due.filter(|_| state == MessageState::Queued),
            state,
            create_time: self.create_time,
            final_time: self.final_time,
            size_bytes: self.size_bytes,
        })
    }
}

/// The letter that was taken by this request, and the MAC of the request's content.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_request(
    store: &Store,
    site: &SiteId,
    request_id: &str,
) -> Result<Option<(Uuid, Vec<u8>)>, StoreError> {
    let row = query!(
        r#"select message_id, request_mac as "request_mac!" from messages where site_id = $1 and request_id = $2"#,
        site.as_str(),
        request_id,
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(row.map(|row| (row.message_id, row.request_mac)))
}

/// The letter of this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, site: &SiteId, id: Uuid) -> Result<Option<Message>, StoreError> {
    query_as!(
        MessageRow,
        r#"select m.message_id, m.mailing, m.user_id, m.account_id, m.from_address, m.rfc_message_id, m.size_bytes, m.create_time,
                  m.final_time, m.copy_to_sender, m.send_time, m.expire_time, m.tags, q.due as "due?",
                  m.recipients as "recipients: Json<Vec<Recipient>>", m.attempts as "attempts: Json<Vec<Attempt>>",
                  case when m.state <> 'open' then m.state
                       when r.replica_id is null then 'queued'
                       else 'sending'
                  end as "state!"
           from messages m
           left join queue q on q.site_id = m.site_id and q.message_id = m.message_id
           left join replicas r on r.replica_id = q.leased_by
                               and r.heartbeat_time > now() - $3::interval
           where m.site_id = $1
             and m.message_id = $2"#,
        site.as_str(),
        id,
        interval(LEASE),
    )
    .fetch_optional(&store.pool)
    .await?
    .map(|row| row.into_message(site))
    .transpose()
}

/// Up to `limit` letters older than `before`, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    filter: &MessageFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Message>, StoreError> {
    let MessageFilter { states, account, user, tag, recipient, rfc_message_id, start_time, end_time } =
        filter;
    let states: Vec<String> = states.iter().map(|state| state.name().to_owned()).collect();
    let recipient = recipient.as_ref().map(|address| serde_json::json!([{ "address": address }]));
    query_as!(
        MessageRow,
        r#"select message_id, mailing, user_id, account_id, from_address, rfc_message_id, size_bytes, create_time, final_time,
                  copy_to_sender, send_time, expire_time, tags, due as "due?", recipients as "recipients: Json<Vec<Recipient>>",
                  attempts as "attempts: Json<Vec<Attempt>>", state as "state!"
           from (
               select m.message_id, m.mailing, m.user_id, m.account_id, m.from_address, m.rfc_message_id, m.size_bytes, m.create_time,
                      m.final_time, m.copy_to_sender, m.send_time, m.expire_time, m.tags, q.due, m.recipients, m.attempts,
                      case when m.state <> 'open' then m.state
                           when r.replica_id is null then 'queued'
                           else 'sending'
                      end as state
               from messages m
               left join queue q on q.site_id = m.site_id and q.message_id = m.message_id
               left join replicas r on r.replica_id = q.leased_by
                                   and r.heartbeat_time > now() - $12::interval
               where m.site_id = $1
                 and ($2::uuid is null or m.message_id < $2)
                 and ($3::bigint is null or m.account_id = $3)
                 and ($4::jsonb is null or m.recipients @> $4)
                 and ($5::text is null or m.rfc_message_id = $5)
                 and ($6::timestamptz is null or m.create_time >= $6)
                 and ($7::timestamptz is null or m.create_time < $7)
                 and ($10::text is null or m.user_id = $10)
                 -- As the index of tags has it.
                 and ($11::text is null or m.tags <> '{}' and m.tags @> array[$11])
           ) as letters
           where cardinality($8::text[]) = 0 or state = any($8)
           order by message_id desc
           limit $9"#,
        site.as_str(),
        before,
        *account,
        recipient,
        rfc_message_id.as_deref(),
        *start_time,
        *end_time,
        &states,
        limit,
        user.as_deref(),
        tag.as_deref(),
        interval(LEASE),
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| row.into_message(site))
    .collect()
}
