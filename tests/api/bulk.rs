//! Many letters at once: handed in by several callers in parallel, or multiplied in the store.

use std::sync::Arc;

use postroom::api::proto::{Message, SendMessageRequest};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Code;
use uuid::Uuid;

use crate::support::{Postroom, SITE};

/// Calls at once.
const CALLERS: usize = 16;

/// Hands in letters, each with a request id of its own, over these servers in turn; their names.
pub(crate) async fn send_all(postrooms: &[&Postroom], messages: Vec<Message>) -> Vec<String> {
    let permits = Arc::new(Semaphore::new(CALLERS));
    let clients: Vec<_> = postrooms.iter().map(|postroom| postroom.send()).collect();
    let mut calls = JoinSet::new();
    for (number, message) in messages.into_iter().enumerate() {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        let mut send = clients[number % clients.len()].clone();
        calls.spawn(async move {
            let request = SendMessageRequest {
                parent: SITE.to_owned(),
                message: Some(message),
                request_id: Uuid::now_v7().to_string(),
                ..SendMessageRequest::default()
            };
            // As a patient client does: what a busy store refuses is asked again.
            let taken = loop {
                match send.send_message(request.clone()).await {
                    Err(status) if status.code() == Code::Unavailable => {}
                    answer => break answer.expect("taken"),
                }
            };
            drop(permit);
            (number, taken.into_inner().message.expect("set").name)
        });
    }
    let mut names = calls.join_all().await;
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

/// Hands in `copies` more of a letter that was handed in before, all alike but for their ids, in one statement: as many
/// calls would take minutes.
pub(crate) async fn multiply(postroom: &Postroom, name: &str, copies: i32) {
    let id = name.rsplit('/').next().and_then(|id| Uuid::try_parse(id).ok()).expect("a letter's name");
    let mut connection = PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let statement = r#"with ids as (
             select gen_random_uuid() as id from generate_series(1, $2)
         ), letters as (
             insert into messages (
                 site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
                 eight_bit, utf8_headers, mailing, user_id
             )
             select m.site_id, ids.id, m.account_id, m.from_address, m.envelope_sender, m.rfc_message_id,
                    (select jsonb_agg(r - 'reply' - 'due' - 'tries' || '{"state": "pending"}')
                     from jsonb_array_elements(m.recipients) as r),
                    m.size_bytes, m.eight_bit, m.utf8_headers, m.mailing, m.user_id
             from messages m
             cross join ids
             where m.message_id = $1
         ), bodies as (
             insert into message_bodies (site_id, message_id, content)
             select b.site_id, ids.id, b.content
             from message_bodies b
             cross join ids
             where b.message_id = $1
         )
         insert into queue (site_id, message_id, account_id, mailing, due)
         select m.site_id, ids.id, m.account_id, m.mailing, now()
         from messages m
         cross join ids
         where m.message_id = $1"#;
    let multiplied = sqlx::query(statement)
        .bind(id)
        .bind(copies)
        .execute(&mut connection)
        .await
        .expect("a letter of this name");
    assert_eq!(multiplied.rows_affected(), u64::try_from(copies).expect("a count"));
    connection.close().await.expect("closed");
}
