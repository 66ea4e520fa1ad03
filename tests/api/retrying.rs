//! Retrying: everybody who has not got a letter is tried again now, and nobody twice.

use std::collections::BTreeMap;

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, DeleteAccountRequest, Message, RetryMessagesRequest, Settings, attempt, recipient,
};
use tonic::Code;

use crate::desk::{
    FROM, Lease, cancel, count, execute, id, in_millis, lease, retry, retry_all, settle, start, start_at,
    submit, told, waiting,
};
use crate::scripted::Received;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{PATIENCE, Postroom, SITE, bad_fields, letter, plain_account, reason, variable};

/// How often each address got a letter.
fn copies(letters: &[Received]) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for recipient in letters.iter().flat_map(|letter| &letter.recipients) {
        let address = recipient.split(['<', '>']).nth(1).expect("a path");
        *copies.entry(address.to_owned()).or_default() += 1;
    }
    copies
}

fn outcomes(message: &Message) -> Vec<(i32, attempt::Outcome)> {
    message.attempts.iter().map(|attempt| (attempt.number, attempt.outcome())).collect()
}

/// The letter when it fits.
async fn until(postroom: &Postroom, name: &str, fits: impl Fn(&Message) -> bool) -> Message {
    let start = std::time::Instant::now();
    loop {
        let message = postroom.message(name).await;
        if fits(&message) || start.elapsed() > PATIENCE {
            return message;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_letter_goes_to_those_who_have_not_got_it() {
    use attempt::Outcome::{PartiallySent, Sent};
    let behaviour = Behaviour::default().once("RCPT TO:<bob@", "550 5.1.1 no such mailbox\r\n", Then::GoOn);
    let (server, postroom) = start_at(behaviour).await;
    let partly = postroom.send_and_wait(letter(FROM, &["ann@example.org", "bob@example.org"])).await;
    assert_eq!(partly.state(), State::PartiallySent, "{partly:?}");
    let retried = retry(&postroom, &partly.name).await.expect("retried");
    assert!(retried.final_time.is_none(), "{retried:?}");
    let sent = until(&postroom, &partly.name, |message| message.final_time.is_some()).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(outcomes(&sent), [(1, PartiallySent), (2, Sent)], "numbers go on");
    let expected = ["ann@example.org", "bob@example.org"].map(|address| (address.to_owned(), 1));
    assert_eq!(copies(&server.journal().letters), expected.into());
    assert_eq!(told(&postroom, &partly).await, ["partially_sent", "queued", "sent"]);
    let refused = retry(&postroom, &partly.name).await.expect_err("all have it");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    assert_eq!(variable(&refused, "state"), "STATE_SENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_waits_for_its_interval_goes_now() {
    use attempt::Outcome::{Retry, Sent};
    let behaviour = Behaviour::default().once("RCPT TO:<ann@", "450 4.2.0 greylisted\r\n", Then::GoOn);
    let (_server, postroom) = start_at(behaviour).await;
    // Half an hour by default.
    let name = submit(&postroom, letter(FROM, &["ann@example.org"])).await.name;
    let deferred = until(&postroom, &name, |message| !message.attempts.is_empty()).await;
    assert_eq!(deferred.state(), State::Queued, "{deferred:?}");
    retry(&postroom, &name).await.expect("retried");
    let sent = until(&postroom, &name, |message| message.final_time.is_some()).await;
    assert_eq!(outcomes(&sent), [(1, Retry), (2, Sent)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_intervals_are_ahead_again() {
    let behaviour = Behaviour::default().on("RCPT TO:<ann@", "451 4.3.0 never\r\n");
    let (server, postroom) = start_at(behaviour).await;
    let retry_intervals = vec![prost_types::Duration { seconds: 0, nanos: 50_000_000 }];
    postroom.change_settings(Settings { retry_intervals, ..Settings::default() }).await;
    let failed = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!((failed.state(), failed.attempts.len()), (State::Failed, 2), "{failed:?}");
    retry(&postroom, &failed.name).await.expect("retried");
    let failed = until(&postroom, &failed.name, |message| message.final_time.is_some()).await;
    assert_eq!((failed.state(), failed.attempts.len()), (State::Failed, 4), "{failed:?}");
    let numbers: Vec<i32> = failed.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(server.journal().faults.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_again_stays_as_it_is() {
    let (_server, postroom) = start().await;
    let to = ["ann@example.org"];
    let cancelled = waiting(&postroom, &to).await;
    cancel(&postroom, &cancelled.name).await.expect("cancelled");
    let under_way = waiting(&postroom, &to).await;
    lease(&postroom, &under_way, Lease::Living, &[]).await;
    let own = waiting(&postroom, &to).await;
    settle(&postroom, &own, "failed", "failed", false).await;
    execute(&postroom, &format!("update messages set is_own = true where message_id = '{}'", id(&own))).await;
    let expired = waiting(&postroom, &to).await;
    settle(&postroom, &expired, "failed", "failed", false).await;
    let past = "send_time = null, expire_time = now() - interval '1 second'";
    execute(&postroom, &format!("update messages set {past} where message_id = '{}'", id(&expired))).await;
    for (message, words) in [
        (&cancelled, "nobody is left"),
        (&under_way, "an attempt is under way"),
        (&own, "content"),
        (&expired, "expire_time"),
    ] {
        let before = postroom.message(&message.name).await;
        let refused = retry(&postroom, &message.name).await.expect_err(words);
        assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
        assert!(refused.message().contains(words), "{refused:?}");
        assert_eq!(postroom.message(&message.name).await, before);
    }
    // Many are not refused, only passed over.
    assert_eq!(retry_all(&postroom, RetryMessagesRequest::default()).await.expect("none"), 0);
    let missing = retry(&postroom, &format!("{SITE}/messages/{}", uuid::Uuid::now_v7())).await;
    assert_eq!(reason(&missing.expect_err("missing")), (Code::NotFound, "NOT_FOUND".to_owned()));
    postroom.change_settings(Settings { enabled: Some(false), ..Settings::default() }).await;
    let off = retry(&postroom, &own.name).await.expect_err("the site is off");
    assert_eq!(reason(&off), (Code::FailedPrecondition, "SITE_DISABLED".to_owned()));
    let off = retry_all(&postroom, RetryMessagesRequest::default()).await.expect_err("the site is off");
    assert_eq!(reason(&off), (Code::FailedPrecondition, "SITE_DISABLED".to_owned()));
}

/// A letter is not sent before its time, whoever asks.
/// Cancelled while an attempt was under way, which left it open: nobody sends it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_under_way_is_not_revived() {
    let (_server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    execute(&postroom, &format!("update queue set cancelled = true where message_id = '{}'", id(&letter)))
        .await;
    let refused = retry(&postroom, &letter.name).await.expect_err("cancelled");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "STATE_CONFLICT".to_owned()));
    let all = RetryMessagesRequest { parent: SITE.to_owned(), ..RetryMessagesRequest::default() };
    assert_eq!(retry_all(&postroom, all).await.expect("asked"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_time_is_to_come_goes_on_waiting_for_it() {
    let (server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    let retried = retry(&postroom, &letter.name).await.expect("retried");
    assert_eq!(retried.state(), State::Queued);
    assert_eq!(retried.next_attempt_time, letter.send_time);
    settle(&postroom, &letter, "failed", "failed", false).await;
    let retried = retry(&postroom, &letter.name).await.expect("retried");
    assert_eq!(retried.next_attempt_time, letter.send_time);
    assert!(server.journal().letters.is_empty());
}

/// A recipient of whom it is not known whether he has the letter gets it where somebody asks for just that.
#[tokio::test(flavor = "multi_thread")]
async fn an_uncertain_letter_is_sent_again_by_whoever_decides_so() {
    let (server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    settle(&postroom, &letter, "uncertain", "uncertain", true).await;
    execute(&postroom, "update messages set send_time = null").await;
    assert_eq!(retry_all(&postroom, RetryMessagesRequest::default()).await.expect("not named"), 0);
    let named =
        RetryMessagesRequest { states: vec![State::Uncertain.into()], ..RetryMessagesRequest::default() };
    assert_eq!(retry_all(&postroom, named).await.expect("named"), 1);
    let sent = until(&postroom, &letter.name, |message| message.final_time.is_some()).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(server.journal().letters.len(), 1);
    assert_eq!(count(&postroom, "select count(*) from messages where held_attempt is null").await, 1);
}

async fn delete_account(postroom: &Postroom, name: &str) {
    let request = DeleteAccountRequest { name: name.to_owned(), etag: String::new(), force: true };
    postroom.accounts().delete_account(request).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_account_was_deleted_is_chosen_another() {
    let (server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    delete_account(&postroom, &letter.account).await;
    let failed = postroom.message(&letter.name).await;
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert_eq!(told(&postroom, &letter).await, ["failed"]);
    let refused = retry(&postroom, &letter.name).await.expect_err("nobody may carry it");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "NO_MATCHING_ACCOUNT".to_owned()));
    assert_eq!(retry_all(&postroom, RetryMessagesRequest::default()).await.expect("none"), 0);
    assert_eq!(postroom.message(&letter.name).await, failed);
    let other = postroom.create_account(plain_account(&server, FROM)).await;
    execute(&postroom, "update messages set send_time = null").await;
    let retried = retry(&postroom, &letter.name).await.expect("another may");
    assert_eq!(retried.account, other.name);
    let sent = until(&postroom, &letter.name, |message| message.final_time.is_some()).await;
    assert_eq!((sent.state(), sent.account), (State::Sent, other.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_an_account_that_is_switched_off_waits_for_it() {
    let (server, postroom) = start().await;
    let letter = waiting(&postroom, &["ann@example.org"]).await;
    settle(&postroom, &letter, "failed", "failed", false).await;
    execute(&postroom, "update messages set send_time = null").await;
    let switch = async |active: bool| {
        let account = Account { name: letter.account.clone(), active: Some(active), ..Account::default() };
        let request = postroom::api::proto::UpdateAccountRequest {
            account: Some(account),
            ..postroom::api::proto::UpdateAccountRequest::default()
        };
        postroom.accounts().update_account(request).await.expect("updated");
    };
    switch(false).await;
    let retried = retry(&postroom, &letter.name).await.expect("put into the queue");
    assert_eq!((retried.state(), retried.account.as_str()), (State::Queued, letter.account.as_str()));
    assert_eq!(retried.recipients[0].state(), recipient::State::Pending);
    switch(true).await;
    server.wait_until(|journal| journal.letters.len() == 1).await;
}

/// An attempt whose process ended keeps its number, and what it may have sent is not sent again unasked.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_attempt_was_interrupted_is_due_now() {
    use attempt::Outcome::{Interrupted, Sent};
    let (server, postroom) = start().await;
    let (plain, held) =
        (waiting(&postroom, &["ann@example.org"]).await, waiting(&postroom, &["ann@example.org"]).await);
    lease(&postroom, &plain, Lease::Dead, &[]).await;
    lease(&postroom, &held, Lease::Dead, &[0]).await;
    execute(&postroom, "update messages set send_time = null").await;
    assert_eq!(retry_all(&postroom, RetryMessagesRequest::default()).await.expect("both"), 2);
    let sent = until(&postroom, &plain.name, |message| message.final_time.is_some()).await;
    assert_eq!(outcomes(&sent), [(1, Interrupted), (2, Sent)]);
    let held = until(&postroom, &held.name, |message| message.state() == State::Uncertain).await;
    assert_eq!((held.state(), held.final_time), (State::Uncertain, None), "{held:?}");
    assert_eq!(server.journal().letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_retried_by_what_they_have_in_common() {
    let (server, postroom) = start().await;
    let to = ["ann@example.org"];
    let (failed, partly, queued) =
        (waiting(&postroom, &to).await, waiting(&postroom, &to).await, waiting(&postroom, &to).await);
    let tagged = Message {
        tags: vec!["x".to_owned()],
        send_time: in_millis(3_600_000),
        ..letter(FROM, &["bob@example.org"])
    };
    let tagged = submit(&postroom, tagged).await;
    settle(&postroom, &failed, "failed", "failed", false).await;
    settle(&postroom, &tagged, "failed", "failed", false).await;
    execute(
        &postroom,
        &format!(
            r#"delete from queue where message_id = '{0}';
               update messages
               set state = 'partially_sent', final_time = now(),
                   recipients = jsonb_set(recipients, '{{0,state}}', '"sent"') ||
                                jsonb_set(recipients, '{{0,state}}', '"refused"')
               where message_id = '{0}'"#,
            id(&partly)
        ),
    )
    .await;
    let all = RetryMessagesRequest::default();
    let by = |account: &str, tag: &str, states: &[State]| RetryMessagesRequest {
        account: account.to_owned(),
        tag: tag.to_owned(),
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..all.clone()
    };
    let none = [
        by("sites/shop/accounts/7", "", &[]),
        by("", "X", &[]),
        by("", "x", &[State::PartiallySent, State::Uncertain]),
        RetryMessagesRequest { since: in_millis(60_000), ..all.clone() },
    ];
    for request in none {
        assert_eq!(retry_all(&postroom, request.clone()).await.expect("none"), 0, "{request:?}");
    }
    let wrong = RetryMessagesRequest {
        tag: "\n".to_owned(),
        since: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        ..by("sites/other/accounts/1", "", &[State::Queued, State::Sending, State::Sent, State::Cancelled])
    };
    let refused = retry_all(&postroom, wrong).await.expect_err("all wrong");
    assert_eq!(bad_fields(&refused), ["account", "tag", "states[1]", "states[2]", "states[3]", "since"]);

    execute(&postroom, "update messages set send_time = null").await;
    assert_eq!(retry_all(&postroom, by("", "x", &[])).await.expect("one"), 1);
    let sent = until(&postroom, &tagged.name, |message| message.final_time.is_some()).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(retry_all(&postroom, by(&failed.account, "", &[State::PartiallySent])).await.expect("one"), 1);
    until(&postroom, &partly.name, |message| message.state() == State::Sent).await;
    assert_eq!(retry_all(&postroom, all.clone()).await.expect("the two that are left"), 2);
    for name in [&failed.name, &queued.name] {
        let sent = until(&postroom, name, |message| message.final_time.is_some()).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
    }
    assert_eq!(copies(&server.journal().letters)["ann@example.org"], 3);
    assert_eq!(retry_all(&postroom, all).await.expect("none is left"), 0);
}

/// Whatever the order in which retrying and sending meet, everybody gets a letter once.
#[tokio::test(flavor = "multi_thread")]
async fn retrying_while_letters_are_sent_doubles_none() {
    const LETTERS: usize = 80;
    let mut behaviour = Behaviour::default().delay("dot", std::time::Duration::from_millis(5));
    for _ in 0..2 * LETTERS {
        behaviour = behaviour.once("RCPT TO:<r", "450 4.2.0 greylisted\r\n", Then::GoOn);
    }
    let (server, postroom) = start_at(behaviour).await;
    let mut names = Vec::new();
    for number in 0..LETTERS {
        names.push(submit(&postroom, letter(FROM, &[&format!("r{number}@example.org")])).await.name);
    }
    // Half an hour would pass by itself.
    let (begin, mut retried) = (std::time::Instant::now(), 0);
    while server.journal().letters.len() < LETTERS && begin.elapsed() < PATIENCE {
        retried += retry_all(&postroom, RetryMessagesRequest::default()).await.expect("retried");
    }
    assert!(retried >= i64::try_from(LETTERS).expect("small"), "{retried}");
    for name in &names {
        let sent = until(&postroom, name, |message| message.final_time.is_some()).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
    }
    let expected = (0..LETTERS).map(|number| (format!("r{number}@example.org"), 1)).collect();
    assert_eq!(copies(&server.journal().letters), expected);
}
