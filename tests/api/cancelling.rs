//! Cancelling: letters that wait, are under way, are held, or final; one or many.

use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::{CancelMessagesRequest, Message, Settings, attempt, recipient};
use tonic::Code;

use crate::desk::{
    FROM, Lease, cancel, cancel_all, count, execute, id, lease, settle, start, start_at, submit, told,
    waiting,
};
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason, variable};

/// Twenty thousand waiting letters are cancelled within so long, in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn states(message: &Message) -> Vec<recipient::State> {
    message.recipients.iter().map(postroom::api::proto::Recipient::state).collect()
}

fn words(message: &Message, recipient: usize) -> &str {
    message.recipients[recipient].reply.as_ref().map_or("", |reply| reply.text.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_waits_is_cancelled_at_once_and_once() {
    let (server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org", "bob@example.org"]).await;
    // Cancelling stays possible.
    postroom.change_settings(Settings { enabled: Some(false), ..Settings::default() }).await;
    let cancelled = cancel(&postroom, &letter.name).await.expect("cancelled");
    assert_eq!(cancelled.state(), State::Cancelled, "{cancelled:?}");
    assert_eq!(states(&cancelled), [recipient::State::Cancelled; 2]);
    assert_eq!(words(&cancelled, 0), "cancelled");
    assert!(cancelled.final_time.is_some() && cancelled.next_attempt_time.is_none());
    assert_eq!(cancelled, postroom.message(&letter.name).await);
    assert_eq!(cancel(&postroom, &letter.name).await.expect("again"), cancelled);
    assert_eq!(told(&postroom, &letter).await, ["cancelled"]);
    assert_eq!(count(&postroom, "select count(*) from queue").await, 0);
    assert_eq!(count(&postroom, "select count(*) from message_bodies").await, 1, "it may be read");
    assert!(server.journal().letters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_final_is_not_cancelled() {
    let (_server, postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let mut table = vec![(sent.name, "STATE_SENT")];
    for (recipient, state, told) in
        [("failed", "failed", "STATE_FAILED"), ("uncertain", "uncertain", "STATE_UNCERTAIN")]
    {
        let letter = waiting(&postroom, &["ann@example.org"]).await;
        settle(&postroom, &letter, recipient, state, false).await;
        table.push((letter.name, told));
    }
    for (name, state) in table {
        let before = postroom.message(&name).await;
        let refused = cancel(&postroom, &name).await.expect_err(state);
        assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
        assert_eq!(
            (variable(&refused, "state"), variable(&refused, "name")),
            (state.to_owned(), name.clone())
        );
        assert_eq!(postroom.message(&name).await, before);
    }
    let missing = cancel(&postroom, &format!("{SITE}/messages/{}", uuid::Uuid::now_v7())).await;
    assert_eq!(reason(&missing.expect_err("missing")), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_letter_under_way_only_the_rest_is_cancelled() {
    let behaviour = Behaviour::default()
        .delay("RCPT TO:<slow@", Duration::from_secs(3))
        .on("RCPT TO:<later@", "451 4.3.0 later\r\n");
    let (server, postroom) = start_at(behaviour).await;
    let under_way = submit(&postroom, letter(FROM, &["slow@example.org", "later@example.org"])).await;
    server.wait_until(|journal| journal.commands.iter().any(|heard| heard.contains("slow@"))).await;
    let answered = cancel(&postroom, &under_way.name).await.expect("marked");
    assert_eq!(answered.state(), State::Sending, "{answered:?}");
    assert!(told(&postroom, &under_way).await.is_empty(), "nothing changed yet");
    assert_eq!(
        cancel_all(&postroom, CancelMessagesRequest::default()).await.expect("none"),
        0,
        "it is marked"
    );
    let start = Instant::now();
    let end = loop {
        let message = postroom.message(&under_way.name).await;
        if message.final_time.is_some() || start.elapsed() > crate::support::PATIENCE {
            break message;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(end.state(), State::PartiallySent, "{end:?}");
    assert_eq!(states(&end), [recipient::State::Sent, recipient::State::Cancelled]);
    assert_eq!(server.journal().letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_have_it_is_uncertain_and_not_cancelled() {
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org", "bob@example.org"]).await;
    lease(&postroom, &letter, Lease::Living, &[0]).await;
    assert_eq!(cancel(&postroom, &letter.name).await.expect("marked").state(), State::Sending);
    lease(&postroom, &letter, Lease::Dead, &[0]).await;
    let closed = cancel(&postroom, &letter.name).await.expect("closed");
    assert_eq!(closed.state(), State::Uncertain, "{closed:?}");
    assert_eq!(states(&closed), [recipient::State::Uncertain, recipient::State::Cancelled]);
    assert!(words(&closed, 0).contains("not known"), "{closed:?}");
    assert!(closed.final_time.is_some(), "who cancels has decided");
    let told_attempts: Vec<_> = closed.attempts.iter().map(|one| (one.number, one.outcome())).collect();
    assert_eq!(told_attempts, [(1, attempt::Outcome::Interrupted)]);
    assert_eq!(told(&postroom, &letter).await, ["uncertain"]);
    let again = cancel(&postroom, &letter.name).await.expect_err("closed");
    assert_eq!(reason(&again).1, "STATE_CONFLICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_held_is_closed_as_it_is() {
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    settle(&postroom, &letter, "uncertain", "uncertain", true).await;
    let held = postroom.message(&letter.name).await;
    assert!(held.final_time.is_none());
    let closed = cancel(&postroom, &letter.name).await.expect("closed");
    assert!(closed.final_time.is_some(), "{closed:?}");
    assert_eq!(Message { final_time: None, ..closed }, held);
}

/// The code in a letter of Postroom's own goes with its last attempt, however that ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_our_own_loses_its_content() {
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    execute(&postroom, &format!("update messages set is_own = true where message_id = '{}'", id(&letter)))
        .await;
    cancel(&postroom, &letter.name).await.expect("cancelled");
    assert_eq!(count(&postroom, "select count(*) from message_bodies").await, 0);
}

/// Five letters: of another account, with a tag, under way, held, and sent.
struct Five {
    other: Message,
    tagged: Message,
    under_way: Message,
    held: Message,
    sent: Message,
}

async fn five(postroom: &Postroom) -> Five {
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let held = waiting(postroom, &["ann@example.org"]).await;
    settle(postroom, &held, "uncertain", "uncertain", true).await;
    let under_way = waiting(postroom, &["ann@example.org"]).await;
    lease(postroom, &under_way, Lease::Living, &[]).await;
    let ahead = crate::desk::in_millis(3_600_000);
    let other = Message { send_time: ahead, ..letter("other@example.com", &["ann@example.org"]) };
    let other = submit(postroom, other).await;
    let tagged =
        Message { tags: vec!["x".to_owned()], send_time: ahead, ..letter(FROM, &["ann@example.org"]) };
    let tagged = submit(postroom, tagged).await;
    Five { other, tagged, under_way, held, sent }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_cancelled_by_what_they_have_in_common() {
    let (server, postroom) = start().await;
    postroom.create_account(plain_account(&server, "other@example.com")).await;
    let Five { other, tagged, under_way, held, sent } = five(&postroom).await;
    let all = CancelMessagesRequest::default();
    let by = |account: &str, tag: &str, states: &[State]| CancelMessagesRequest {
        account: account.to_owned(),
        tag: tag.to_owned(),
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..all.clone()
    };
    let none = [
        by("sites/shop/accounts/7", "", &[]),
        by("", "X", &[]),
        by(&other.account, "x", &[]),
        CancelMessagesRequest { since: crate::desk::in_millis(60_000), ..all.clone() },
        by("", "x", &[State::Sending, State::Uncertain]),
    ];
    for request in none {
        assert_eq!(cancel_all(&postroom, request.clone()).await.expect("none"), 0, "{request:?}");
    }
    let state = async |message: &Message| postroom.message(&message.name).await.state();
    let marked = "select count(*) from queue where cancelled";
    assert_eq!(cancel_all(&postroom, by(&other.account, "", &[])).await.expect("one"), 1);
    assert_eq!(state(&other).await, State::Cancelled);
    assert_eq!(state(&tagged).await, State::Queued);
    let since = CancelMessagesRequest { since: tagged.create_time, ..by("", "", &[State::Queued]) };
    assert_eq!(cancel_all(&postroom, since).await.expect("one"), 1);
    assert_eq!((state(&tagged).await, count(&postroom, marked).await), (State::Cancelled, 0));
    assert_eq!(cancel_all(&postroom, all.clone()).await.expect("the one under way"), 1);
    assert_eq!((state(&under_way).await, count(&postroom, marked).await), (State::Sending, 1));
    assert!(postroom.message(&held.name).await.final_time.is_none());
    assert_eq!(cancel_all(&postroom, by("", "", &[State::Uncertain])).await.expect("the one held"), 1);
    assert!(postroom.message(&held.name).await.final_time.is_some());
    assert_eq!(state(&sent).await, State::Sent);

    let wrong = CancelMessagesRequest {
        tag: "\n".to_owned(),
        since: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        ..by(
            "sites/other/accounts/1",
            "",
            &[State::Queued, State::Sent, State::Unspecified, State::Cancelled],
        )
    };
    let refused = cancel_all(&postroom, wrong).await.expect_err("all wrong");
    assert_eq!(bad_fields(&refused), ["account", "tag", "states[1]", "states[2]", "states[3]", "since"]);
    let nowhere =
        CancelMessagesRequest { parent: "sites/nowhere".to_owned(), ..CancelMessagesRequest::default() };
    let missing = postroom.send().cancel_messages(nowhere).await.expect_err("no such site");
    assert_eq!(reason(&missing), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_waiting_letters_are_cancelled_within_seconds() {
    const COPIES: i64 = 20_000;
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    let id = id(&letter);
    let copies = format!(
        "insert into messages (site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id,
                               recipients, size_bytes, eight_bit, utf8_headers)
         select site_id, (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, account_id,
                from_address, envelope_sender, rfc_message_id, recipients, size_bytes, eight_bit, utf8_headers
         from messages, generate_series(2, {COPIES}) as n
         where message_id = '{id}';
         insert into queue (site_id, message_id, account_id, due)
         select site_id, message_id, account_id, now() + interval '1 hour' from messages where message_id <> '{id}'"
    );
    execute(&postroom, &copies).await;
    let begin = Instant::now();
    let cancelled = cancel_all(&postroom, CancelMessagesRequest::default()).await.expect("all of them");
    let took = begin.elapsed();
    assert_eq!(cancelled, COPIES);
    assert!(took < SOON, "{took:?}");
    assert_eq!(count(&postroom, "select count(*) from messages where state = 'cancelled'").await, COPIES);
    assert_eq!(count(&postroom, "select sum(jsonb_array_length(items)) from events").await, COPIES);
    assert_eq!(count(&postroom, "select count(*) from queue").await, 0);
}

/// Whatever the order in which cancelling and sending meet, what is told of a letter is what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_letters_are_sent_tells_the_truth() {
    const LETTERS: usize = 120;
    let (server, postroom) = start_at(Behaviour::default().delay("dot", Duration::from_millis(5))).await;
    let mut names = Vec::new();
    let mut cancelled = 0;
    for number in 0..LETTERS {
        names.push(submit(&postroom, letter(FROM, &[&format!("r{number}@example.org")])).await.name);
        if number % 10 == 9 {
            cancelled += cancel_all(&postroom, CancelMessagesRequest::default()).await.expect("cancelled");
        }
    }
    assert!(cancelled > 0, "nothing was left to cancel: the test tells nothing");
    let begin = Instant::now();
    for (number, name) in names.iter().enumerate() {
        let end = loop {
            let message = postroom.message(name).await;
            if message.final_time.is_some() || begin.elapsed() > crate::support::PATIENCE {
                break message;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let address = format!("<r{number}@");
        let letters = server.journal().letters;
        let copies = letters.iter().filter(|letter| letter.recipients[0].contains(&address)).count();
        let expected = match end.state() {
            State::Sent => 1,
            State::Cancelled => 0,
            state => panic!("{state:?}: {end:?}"),
        };
        assert_eq!(copies, expected, "{end:?}");
    }
}
