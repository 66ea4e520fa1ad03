//! One letter in a statement of its own, maybe inside a transaction.

use sqlx::types::Json;
use sqlx::{PgExecutor, query_as};

use super::{NewMessage, Stored};

/// Stores a letter, its body and its place in the queue; `None` where its account is no longer there or not active.
pub(in crate::store) async fn insert(
    executor: impl PgExecutor<'_>,
    message: &NewMessage,
) -> Result<Option<Stored>, sqlx::Error> {
    let NewMessage {
        site,
        id,
        account,
        from_address,
        envelope_sender,
        rfc_message_id,
        recipients,
        content,
        eight_bit,
        utf8_headers,
        mailing,
        user,
        is_own,
        copy_to_sender,
        send_time,
        expire_time,
        tags,
        request,
    } = message;
    // `for key share` holds off a concurrent delete of the account or the site, not a change of them.
    query_as!(
        Stored,
        r#"with account as (
             select a.account_id
             from accounts a
             join sites s on s.site_id = a.site_id and s.delete_time is null
             where a.site_id = $1
               and a.account_id = $3
               and a.active
             for key share of a, s
         ), message as (
             insert into messages (
                 site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients,
                 size_bytes, eight_bit, utf8_headers, request_id, request_mac, mailing, user_id, is_own,
                 copy_to_sender, send_time, expire_time, tags
             )
             select $1, $2, account_id, $4, $5, $6, $7, octet_length($8::bytea), $9, $10, $11, $12, $13, $14, $15,
                    $16, $17, $18, $19
             from account
             returning message_id, create_time
         ), body as (
             insert into message_bodies (site_id, message_id, content) select $1, message_id, $8::bytea from message
         ), queued as (
             insert into queue (site_id, message_id, account_id, mailing, due, first_due, expire_time)
             select $1, message_id, $3, $13, greatest(now(), $17), greatest(now(), $17), $18
             from message
             returning due
         )
         select create_time, due from message cross join queued"#,
        site.as_str(),
        id,
        account,
        from_address,
        envelope_sender,
        rfc_message_id,
        Json(recipients) as _,
        &content[..],
        eight_bit,
        utf8_headers,
        request.as_ref().map(|(id, _)| id.as_str()),
        request.as_ref().map(|(_, mac)| mac.as_slice()),
        mailing,
        user,
        is_own,
        copy_to_sender,
        *send_time,
        *expire_time,
        tags,
    )
    .fetch_optional(executor)
    .await
}
