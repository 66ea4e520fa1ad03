//! Cleaning: what was final for long enough goes, with all that belongs to it; nothing else does.

use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{CreateAccountRequest, DeleteAccountRequest, GetMessageRequest, Message};
use postroom::store::cleaning;
use tonic::Code;

use crate::desk::{FROM, count, execute, id, now, settle, shop, start, waiting};
use crate::support::{Postroom, SITE, letter, plain_account, reason};

const DAY: Duration = Duration::from_hours(24);
const RETENTION: Duration = Duration::from_hours(7 * 24);
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_when_they_were_final_for_long_enough() {
    let (_server, postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let (late, held, open) = (
        waiting(&postroom, &["ann@example.org"]).await,
        waiting(&postroom, &["ann@example.org"]).await,
        waiting(&postroom, &["ann@example.org"]).await,
    );
    settle(&postroom, &late, "failed", "failed", false).await;
    settle(&postroom, &held, "uncertain", "uncertain", true).await;
    // Accepted as the others were, and final a day later.
    let later = format!(
        "update messages set final_time = now() + interval '1 day' where message_id = '{}'",
        id(&late)
    );
    execute(&postroom, &later).await;
    let store = postroom.store();
    let clean = async |at| cleaning::clean(&store, &shop(), RETENTION, at).await.expect("cleaned");
    let is_there = async |message: &Message| {
        let request = GetMessageRequest { name: message.name.clone() };
        match postroom.send().get_message(request).await {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(reason(&status), (Code::NotFound, "NOT_FOUND".to_owned()));
                false
            }
        }
    };
    assert_eq!(clean(now() + RETENTION - MINUTE).await, 0);
    assert!(is_there(&sent).await);
    assert_eq!(clean(now() + RETENTION + MINUTE).await, 1);
    assert!(!is_there(&sent).await && is_there(&late).await);
    assert_eq!(count(&postroom, "select count(*) from message_bodies").await, 3, "its content went with it");
    assert_eq!(clean(now() + RETENTION + 2 * DAY).await, 1);
    assert!(!is_there(&late).await && is_there(&held).await && is_there(&open).await);
    assert_eq!(clean(now() + 100 * RETENTION).await, 0, "what is not final is never old");
    assert_eq!(postroom.message(&open.name).await.state(), State::Queued);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_group_goes() {
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    let copies = format!(
        "insert into messages (site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id,
                               recipients, size_bytes, eight_bit, utf8_headers, state, final_time)
         select site_id, (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, account_id,
                from_address, envelope_sender, rfc_message_id,
                jsonb_set(recipients, '{{0,state}}', '\"sent\"'), size_bytes, eight_bit, utf8_headers, 'sent', now()
         from messages, generate_series(1, 2500) as n
         where message_id = '{0}';
         insert into events (site_id, items, time)
         select 'shop', '[{{}}]', now() - make_interval(secs => n) from generate_series(1, 2500) as n",
        id(&letter)
    );
    execute(&postroom, &copies).await;
    let store = postroom.store();
    let cleaned = cleaning::clean(&store, &shop(), RETENTION, now() + 2 * RETENTION).await.expect("cleaned");
    assert_eq!(cleaned, 2_500);
    assert_eq!(count(&postroom, "select count(*) from messages").await, 1);
    assert_eq!(count(&postroom, "select count(*) from events").await, 0);
    store.close().await;
}

/// Each row with the age at which it goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_counted_is_kept_as_long_as_it_counts() {
    let (_server, postroom) = start().await;
    let ago = |table: &str, age: Duration| (table.to_owned(), age);
    let tables = [
        ago("events", DAY),
        ago("lane_usage where unit = 'minute'", 2 * DAY),
        ago("lane_usage where unit = 'second'", Duration::from_mins(5)),
        ago("sender_codes", DAY),
    ];
    execute(
        &postroom,
        "insert into events (site_id, items) values ('shop', '[{}]');
         insert into lane_usage values ('shop', 1, 'minute', now(), 1, 1), ('shop', 1, 'second', now(), 1, 1);
         insert into sender_codes (site_id, sender_key, code_id, sender_id, code_mac, expire_time)
         values ('shop', 'a@example.com', gen_random_uuid(), 1, '', now() + interval '1 hour')",
    )
    .await;
    let store = postroom.store();
    let (mut moments, begin) = (tables.clone().map(|(_, age)| age).to_vec(), now());
    moments.sort_unstable();
    moments.dedup();
    for moment in moments {
        let end = begin + moment;
        for (at, is_over) in [(end - MINUTE, false), (end + MINUTE, true)] {
            cleaning::clean(&store, &shop(), RETENTION, at).await.expect("cleaned");
            for (table, age) in &tables {
                let left = count(&postroom, &format!("select count(*) from {table}")).await;
                let expected = *age > moment || *age == moment && !is_over;
                assert_eq!(left == 1, expected, "{table} at {at}");
            }
        }
    }
    store.close().await;
}

async fn create(postroom: &Postroom, address: &str, request_id: &str) -> Result<String, tonic::Status> {
    // Inactive: saved unchecked.
    let server = crate::scripted::ordinary::Behaviour::default().start().await;
    let account = postroom::api::proto::Account { active: Some(false), ..plain_account(&server, address) };
    let request = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(account),
        request_id: request_id.to_owned(),
        validate_only: false,
    };
    Ok(postroom.accounts().create_account(request).await?.into_inner().account.expect("set").name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_created_an_account_is_known_for_a_week_beyond_it() {
    let postroom = Postroom::start().await;
    let kept = create(&postroom, "kept@example.com", "kept").await.expect("created");
    let gone = create(&postroom, "gone@example.com", "gone").await.expect("created");
    let request = DeleteAccountRequest { name: gone, ..DeleteAccountRequest::default() };
    postroom.accounts().delete_account(request).await.expect("deleted");
    let store = postroom.store();
    let week = now() + RETENTION;
    for (moment, requests) in [(week - MINUTE, 2), (week + MINUTE, 1)] {
        cleaning::clean(&store, &shop(), RETENTION, moment).await.expect("cleaned");
        assert_eq!(count(&postroom, "select count(*) from account_requests").await, requests);
    }
    let reused = create(&postroom, "other@example.com", "kept").await.expect_err("known");
    assert_eq!(reason(&reused).1, "REQUEST_ID_REUSED");
    assert_ne!(create(&postroom, "other@example.com", "gone").await.expect("forgotten"), kept);
    store.close().await;
}
