//! When letters are sent: not before their time, not after it, and what their Date says.

use std::time::{Duration, Instant};

use postroom::api::proto::message::{Content, State};
use postroom::api::proto::{Account, Message, SendMessageRequest, UpdateAccountRequest, recipient};
use postroom::store::closing;

use crate::desk::{
    FROM, Lease, execute, id, in_millis, lease, nanos, shop, start, start_at, start_unswept, told, waiting,
};
use crate::scripted::Received;
use crate::scripted::ordinary::Behaviour;
use crate::support::{PATIENCE, Postroom, SITE, bad_fields, letter};

/// Longer than any test lasts.
const HOUR: Duration = Duration::from_hours(1);

fn date(letter: &Received) -> i64 {
    let parsed = mail_parser::MessageParser::default().parse(&letter.content).expect("a message");
    parsed.date().expect("a Date").to_timestamp()
}

async fn switch(postroom: &Postroom, active: bool) {
    let name = format!("{SITE}/accounts/1");
    let account = Some(Account { name, active: Some(active), ..Account::default() });
    let request = UpdateAccountRequest { account, ..UpdateAccountRequest::default() };
    postroom.accounts().update_account(request).await.expect("updated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_not_sent_before_its_time_and_is_dated_by_it() {
    let (server, postroom) = start().await;
    let raw = format!("From: {FROM}\r\nTo: ann@example.org\r\n\r\nHello\r\n");
    let raw = Message { content: Some(Content::Raw(raw.into())), ..Message::default() };
    for message in [letter(FROM, &["ann@example.org"]), raw] {
        let send_time = in_millis(1_500);
        let sent = postroom.send_and_wait(Message { send_time, ..message }).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
        assert_eq!(sent.send_time, send_time);
        let (start, earliest) = (sent.attempts[0].start_time.expect("set"), send_time.expect("set"));
        assert!(nanos(&start) >= nanos(&earliest), "{sent:?}");
        let letters = server.journal().letters;
        assert_eq!(date(letters.last().expect("arrived")), earliest.seconds);
    }
    // A time that has passed changes nothing.
    let before =
        sent_now(&postroom, Message { send_time: in_millis(-60_000), ..letter(FROM, &["ann@example.org"]) });
    let sent = before.await;
    let letters = server.journal().letters;
    let dated = date(letters.last().expect("arrived"));
    assert!((dated - sent.create_time.expect("set").seconds).abs() <= 1, "{dated} {sent:?}");
    // Nor does it change a Date that is there.
    let raw = format!(
        "From: {FROM}\r\nTo: ann@example.org\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\r\nHello\r\n"
    );
    let raw =
        Message { content: Some(Content::Raw(raw.into())), send_time: in_millis(100), ..Message::default() };
    sent_now(&postroom, raw).await;
    assert_eq!(date(server.journal().letters.last().expect("arrived")), 1_767_225_600);
}

async fn sent_now(postroom: &Postroom, message: Message) -> Message {
    let sent = postroom.send_and_wait(message).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_cannot_be_are_refused_and_others_answered() {
    let (_server, postroom) = start().await;
    let send = async |send_time, expire_time| {
        let message = Some(Message { send_time, expire_time, ..letter(FROM, &["ann@example.org"]) });
        let parent = SITE.to_owned();
        let request = SendMessageRequest { parent, message, validate_only: true, ..Default::default() };
        postroom.send().send_message(request).await.map(|answer| answer.into_inner().message.expect("set"))
    };
    let bad = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let year = 365 * 86_400_000;
    let (send_field, expire_field) = ("message.send_time", "message.expire_time");
    for (send_time, expire_time, fields) in [
        (bad, bad, vec![send_field, expire_field]),
        (in_millis(year + 60_000), None, vec![send_field]),
        (None, in_millis(-1_000), vec![expire_field]),
        (in_millis(60_000), in_millis(30_000), vec![expire_field]),
    ] {
        let refused = send(send_time, expire_time).await.expect_err("no such time");
        assert_eq!(bad_fields(&refused), fields, "{send_time:?} {expire_time:?}");
    }
    let (send_time, expire_time) = (in_millis(year - 60_000), in_millis(year));
    let valid = send(send_time, expire_time).await.expect("valid");
    assert_eq!((valid.send_time, valid.expire_time), (send_time, expire_time));
}

/// Its next attempt would come too late: so the last words of the server are the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_would_be_tried_too_late_fails() {
    let (_server, postroom) = start_at(Behaviour::default().on("RCPT TO:<ann@", "451 4.3.0 later\r\n")).await;
    // The interval is half an hour by default.
    let message = Message { expire_time: in_millis(60_000), ..letter(FROM, &["ann@example.org"]) };
    let failed = postroom.send_and_wait(message).await;
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert_eq!(failed.recipients[0].reply.as_ref().expect("words").code, 451);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_time_has_passed_is_not_sent() {
    let (server, postroom) = start_unswept().await;
    // By the sweep, where nobody claims it.
    let unclaimed = waiting(&postroom, &["ann@example.org"]).await;
    switch_off_behind(&postroom).await;
    execute(&postroom, &past(&unclaimed)).await;
    let store = postroom.store();
    assert_eq!(closing::expire(&store, &shop(), HOUR, 10).await.expect("swept"), 1);
    let failed = postroom.message(&unclaimed.name).await;
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert_eq!(failed.recipients[0].state(), recipient::State::Failed);
    let words = &failed.recipients[0].reply.as_ref().expect("words").text;
    assert_eq!(words, "expired: expire_time passed before the letter was sent");
    assert!(failed.final_time.is_some());
    assert_eq!(told(&postroom, &unclaimed).await, ["failed"]);
    // And by a claim.
    switch(&postroom, true).await;
    let claimed = waiting(&postroom, &["ann@example.org"]).await;
    execute(&postroom, &past(&claimed)).await;
    let begin = Instant::now();
    let failed = loop {
        let message = postroom.message(&claimed.name).await;
        if message.final_time.is_some() || begin.elapsed() > PATIENCE {
            break message;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert!(server.journal().letters.is_empty());
    store.close().await;
}

/// Makes both times of a letter that waits pass.
fn past(message: &Message) -> String {
    format!(
        "update queue set due = now(), expire_time = now() where message_id = '{0}';
         update messages set send_time = null, expire_time = now() where message_id = '{0}'",
        id(message)
    )
}

async fn switch_off_behind(postroom: &Postroom) {
    execute(postroom, "update accounts set active = false").await;
}

/// What the sweep ends, and what it leaves alone.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_where_nobody_would_end_it() {
    use recipient::State::{Cancelled, Failed, Pending, Uncertain};
    let (_server, postroom) = start_unswept().await;
    let to = ["ann@example.org", "bob@example.org"];
    let (future, idle, cancelled) =
        (waiting(&postroom, &to).await, waiting(&postroom, &to).await, waiting(&postroom, &to).await);
    let (held, under_way) = (waiting(&postroom, &to).await, waiting(&postroom, &to).await);
    switch_off_behind(&postroom).await;
    lease(&postroom, &under_way, Lease::Living, &[]).await;
    execute(
        &postroom,
        &format!(
            "update queue set cancelled = true where message_id = '{0}';
             update queue set due = now(), first_due = now() - interval '2 hours' where message_id in ('{1}', '{2}');
             update queue set expire_time = now() where message_id in ('{3}', '{2}');
             update messages set send_time = null, expire_time = now() where message_id in ('{3}', '{2}')",
            id(&cancelled),
            id(&idle),
            id(&under_way),
            id(&held),
        ),
    )
    .await;
    // Of a replica that is no more, beside the one that lives.
    let dead = "update queue set attempt = 1, leased_by = gen_random_uuid(), at_dot = array[1]";
    execute(&postroom, &format!("{dead} where message_id = '{}'", id(&held))).await;
    let store = postroom.store();
    let sweep = async |patience| closing::expire(&store, &shop(), patience, 10).await.expect("swept");
    assert_eq!(closing::expire(&store, &shop(), HOUR, 2).await.expect("swept"), 2, "at most so many");
    assert_eq!(sweep(HOUR).await, 1);
    assert_eq!(sweep(HOUR).await, 0);
    let given_up = "given up: the account could not send for as long as the retry intervals last";
    let table = [
        (&future, State::Queued, [Pending; 2], "", false),
        (&under_way, State::Sending, [Pending; 2], "", false),
        (&idle, State::Failed, [Failed; 2], given_up, true),
        (&cancelled, State::Cancelled, [Cancelled; 2], "cancelled", true),
        (
            &held,
            State::Uncertain,
            [Failed, Uncertain],
            "expired: expire_time passed before the letter was sent",
            // What is not known is held until a person decides.
            false,
        ),
    ];
    for (message, state, recipients, words, is_final) in table {
        let now = postroom.message(&message.name).await;
        assert_eq!(now.state(), state, "{now:?}");
        assert_eq!([0, 1].map(|number: usize| now.recipients[number].state()), recipients, "{now:?}");
        assert_eq!(now.recipients[0].reply.as_ref().map_or("", |reply| reply.text.as_str()), words);
        assert_eq!(now.final_time.is_some(), is_final, "{now:?}");
        assert_eq!(told(&postroom, message).await.len(), usize::from(!words.is_empty()));
    }
    store.close().await;
}

/// Mail is given up only where its account cannot send: parked, switched off or gone.
#[tokio::test(flavor = "multi_thread")]
async fn mail_is_given_up_where_its_account_cannot_send() {
    let (_server, postroom) = start_unswept().await;
    let store = postroom.store();
    let parked = "insert into lanes (site_id, account_id, parking_reason, parking_error, parked_until)
                  values ('shop', 1, 'unreachable', 'x', now() + interval '1 hour');
                  update accounts set active = true";
    let cannot = ["update accounts set active = false", parked, "delete from accounts"];
    for (statement, given_up) in [("update queue set due = now() + interval '1 hour'", 0), ("select 1", 0)]
        .into_iter()
        .chain(cannot.map(|s| (s, 1)))
    {
        execute(&postroom, "update accounts set active = true; delete from lanes").await;
        let letter = waiting(&postroom, &["ann@example.org"]).await;
        // So that the server does not send it meanwhile.
        execute(&postroom, "update settings set enabled = false").await;
        let overdue = "update queue set due = now(), first_due = now() - interval '2 hours'";
        execute(&postroom, &format!("{overdue}; {statement}")).await;
        let ended = closing::expire(&store, &shop(), HOUR, 10).await.expect("swept");
        assert_eq!(ended, given_up, "{statement}");
        let state = postroom.message(&letter.name).await.state();
        assert_eq!(state == State::Failed, given_up == 1, "{statement}: {state:?}");
        execute(&postroom, "delete from queue; update settings set enabled = true").await;
    }
    store.close().await;
}
