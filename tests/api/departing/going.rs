//! What becomes of mail and rows when a site goes: letters under way, letters that come at that moment, many letters, a crash.

use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::{CreateAccountRequest, GetSiteRequest, Message, SendMessageRequest};
use postroom::store::departures::{self, Begun};
use tokio::task::JoinSet;
use tonic::Code;

use super::{create, delete, not_found, rows, wait_until_gone};
use crate::binary::{DataDir, Serving};
use crate::desk::{FROM, count, execute, in_millis, shop, start};
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, plain_account, reason};

/// The letter under way comes to its end; those in hand behind it are not begun, and nothing is written into the void.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_under_way_ends_quietly() {
    let server = Behaviour::default().delay("dot", Duration::from_secs(1)).start().await;
    let postroom = Postroom::start().await;
    let limits = Some(postroom::api::proto::Limits { max_connections: Some(1), ..Default::default() });
    postroom.create_account(postroom::api::proto::Account { limits, ..plain_account(&server, FROM) }).await;
    for number in 0..12 {
        let message =
            Message { tags: vec!["x".to_owned()], ..letter(FROM, &[&format!("{number}@example.org")]) };
        crate::desk::submit(&postroom, message).await;
    }
    server.wait_until(|journal| journal.commands.iter().any(|command| command.starts_with("DATA"))).await;
    delete(&postroom, SITE, true).await.expect("deleted");
    wait_until_gone(&postroom, "shop").await;
    assert!(server.journal().letters.len() < 12, "letters in hand were sent on");
    // The recorder goes on: what another site sends is recorded.
    postroom.create_site("other").await;
    postroom.create_account_in("sites/other", plain_account(&server, FROM)).await;
    let request = SendMessageRequest {
        parent: "sites/other".to_owned(),
        message: Some(letter(FROM, &["ann@example.org"])),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..SendMessageRequest::default()
    };
    let sent = postroom.send().send_message(request).await.expect("taken").into_inner().message.expect("set");
    assert_eq!(sent.state(), State::Sent);
    assert_eq!(rows(&postroom, "shop").await, []);
}

/// What is accepted at the moment at which the site is deleted is a reason not to, or is not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn no_letter_slips_in_while_a_site_is_deleted() {
    const ROUNDS: usize = 12;
    let server = Behaviour::default().start().await;
    let first = Postroom::start().await;
    let second = first.another().await;
    let (mut deleted, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let site = first.create_site(&format!("s{round}")).await;
        first.create_account_in(&site, plain_account(&server, FROM)).await;
        let mut sending = JoinSet::new();
        for number in 0..6 {
            let mut send = [&first, &second][number % 2].send();
            let message = Message { send_time: in_millis(3_600_000), ..letter(FROM, &["ann@example.org"]) };
            let request =
                SendMessageRequest { parent: site.clone(), message: Some(message), ..Default::default() };
            sending.spawn(async move { send.send_message(request).await.map(|_| ()) });
        }
        // Each round a little later.
        tokio::time::sleep(Duration::from_millis(u64::try_from(round).expect("few") * 2)).await;
        let answer = delete(&second, &site, false).await;
        let taken = sending.join_all().await.into_iter().flatten().count();
        match answer {
            Ok(()) => {
                deleted += 1;
                assert_eq!(taken, 0, "letters were accepted and thrown away");
            }
            Err(status) => {
                kept += 1;
                assert_eq!(reason(&status).1, "STATE_CONFLICT");
                let id = site.strip_prefix("sites/").expect("a name");
                let stored =
                    count(&first, &format!("select count(*) from queue where site_id = '{id}'")).await;
                // Or more: a busy store may have taken one whose caller was told to try again.
                assert!(usize::try_from(stored).expect("few") >= taken, "{stored} of {taken}");
            }
        }
    }
    assert_eq!(deleted + kept, ROUNDS);
}

/// Deleted in groups, by whoever comes first; what a crash left is gone after the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_site_goes_in_groups_and_after_a_crash() {
    let (_server, mut postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    postroom.stop().await;
    execute(
        &postroom,
        "insert into messages (site_id, message_id, account_id, state, from_address, envelope_sender, rfc_message_id,
                               recipients, attempts, size_bytes, eight_bit, utf8_headers, final_time)
         select 'shop', gen_random_uuid(), m.account_id, m.state, m.from_address, m.envelope_sender, m.rfc_message_id,
                m.recipients, m.attempts, m.size_bytes, false, false, now()
         from messages m, generate_series(1, 100000);
         insert into message_bodies (site_id, message_id, content)
         select 'shop', message_id, convert_to(repeat('x', 1000), 'UTF8') from messages on conflict do nothing;
         insert into log_chunks (site_id, log_id, session_id, attempt, first_time, last_time, size_bytes, lines)
         select 'shop', 'send-admin-1', gen_random_uuid(), 0, now(), now(), 1000, '0 C ' || repeat('x', 1000) || e'\\n'
         from generate_series(1, 20000);
         insert into events (site_id, items) select 'shop', '[{}]' from generate_series(1, 5000);
         insert into lane_usage (site_id, account_id, unit, start_time, transactions, recipients)
         select 'shop', 1, 'minute', now() - n * interval '1 minute', 1, 1 from generate_series(1, 3000) as n",
    )
    .await;
    let store = postroom.store();
    assert_eq!(departures::begin(&store, &shop(), false).await.expect("begun"), Begun::Going { waiting: 0 });
    assert_eq!(departures::begin(&store, &shop(), false).await.expect("answered"), Begun::NotFound);
    assert_eq!(departures::list(&store).await.expect("listed"), [], "not before everybody has noticed");
    // Broken off in the middle of it.
    execute(
        &postroom,
        "update sites set delete_time = now() - interval '1 minute' where site_id = 'shop';
         delete from messages where message_id in (select message_id from messages limit 1000)",
    )
    .await;
    assert_eq!(departures::list(&store).await.expect("listed"), [shop()]);
    store.close().await;
    let begun = Instant::now();
    let first = postroom.another().await;
    let second = postroom.another().await;
    assert_eq!(create(&first).await.expect_err("not yet").code(), Code::FailedPrecondition);
    wait_until_gone(&second, "shop").await;
    println!("100,000 letters and 20,000 chunks were gone after {:?}", begun.elapsed());
    assert_eq!(create(&first).await.expect("free").name, SITE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_deleted_at_the_command_line() {
    let data_dir = DataDir::new();
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
    data_dir.lines(&["key", "create", "--site", SITE, "--role", "admin"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let failed = async |arguments: &[&str], words: &str| {
        let output = data_dir.command(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && errors.contains(words), "{errors}");
    };
    failed(&["site", "delete", "other"], "there is no sites/other").await;
    failed(&["site", "delete", "Shop"], "is no site id").await;
    // Beside a running server, with a letter that waits.
    let server = Behaviour::default().start().await;
    let serving = Serving::start(&data_dir.path(), &[]).await;
    let client = serving.client(&key);
    let request = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(plain_account(&server, FROM)),
        ..Default::default()
    };
    client.accounts().create_account(request).await.expect("an account");
    let message = Message { send_time: in_millis(3_600_000), ..letter(FROM, &["ann@example.org"]) };
    let request =
        SendMessageRequest { parent: SITE.to_owned(), message: Some(message), ..Default::default() };
    client.send().send_message(request).await.expect("taken");
    failed(&["site", "delete", "shop"], "1 letters of sites/shop wait").await;
    assert_eq!(data_dir.lines(&["site", "delete", "shop", "--force"]).await, [SITE]);
    let name = SITE.to_owned();
    not_found("GetSite", client.settings().get_site(GetSiteRequest { name }).await.map(|_| ()));
    assert!(data_dir.lines(&["site", "list"]).await.is_empty());
    assert_eq!(data_dir.lines(&["key", "list"]).await.len(), 1, "its key went with it");
    // And without one.
    drop(serving);
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
    assert_eq!(data_dir.lines(&["site", "delete", "shop"]).await, [SITE]);
    assert_eq!(data_dir.lines(&["site", "create", "shop"]).await, [SITE]);
}
