//! Fields by their effect, where no other file of tests shows it; and bad values of all that have any.

use std::time::Duration;

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::{GetMessageRequest, Settings, Step};
use postroom::store::{cleaning, settings};
use tonic::Code;

use super::{current, restore, seconds, update};
use crate::desk::{FROM, now, shop, start, submit};
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{Options, Postroom, bad_fields, letter, plain_account, reason};

/// A server that falls silent is left after `connection_timeout`, in a session as well as in a check.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_left_after_the_connection_timeout() {
    let server = Behaviour::default().each("RCPT TO:<silent@", "", Then::Silence).start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let change = Settings {
        connection_timeout: Some(seconds(1)),
        retry_intervals: vec![seconds(3_600)],
        ..Settings::default()
    };
    update(&postroom, change, &[]).await.expect("changed");
    let taken = submit(&postroom, letter(FROM, &["silent@example.org"])).await;
    let tried = postroom.wait_for_attempts(&taken.name, 1).await;
    let attempt = &tried.attempts[0];
    assert_eq!((attempt.outcome(), attempt.step()), (Outcome::Retry, Step::Envelope), "{attempt:?}");
    let length = |of: &postroom::api::proto::Attempt| {
        let (start, end) = (of.start_time.expect("set"), of.end_time.expect("set"));
        crate::desk::nanos(&end) - crate::desk::nanos(&start)
    };
    assert!(length(attempt) >= 1_000_000_000, "{attempt:?}");
    // The limit of before is ten seconds: far above, however busy the machine is.
    assert!(length(attempt) < 9_000_000_000, "{attempt:?}");
}

/// One session sends no more letters than `max_messages_per_batch`.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_sends_a_batch_and_no_more() {
    let (server, postroom) = start().await;
    let batch = Settings { max_messages_per_batch: Some(2), ..Settings::default() };
    update(&postroom, batch, &[]).await.expect("changed");
    for _ in 0..5 {
        assert_eq!(postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.state(), State::Sent);
    }
    let connections: Vec<usize> = server.journal().letters.iter().map(|letter| letter.connection).collect();
    for connection in &connections {
        assert!(connections.iter().filter(|other| *other == connection).count() <= 2, "{connections:?}");
    }
}

/// What the housekeeper does with the setting, at times of the test's own.
#[tokio::test(flavor = "multi_thread")]
async fn final_letters_are_kept_for_the_retention_of_their_site() {
    const DAY: Duration = Duration::from_hours(24);
    let (_server, postroom) = start().await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let store = postroom.store();
    let clean = async |days: u32| {
        let kept =
            settings::find(&store, &shop()).await.expect("read").expect("there").effective.message_retention;
        cleaning::clean(&store, &shop(), kept, now() + days * DAY).await.expect("cleaned")
    };
    update(&postroom, Settings { message_retention: Some(seconds(40 * 86_400)), ..Settings::default() }, &[])
        .await
        .expect("changed");
    assert_eq!(clean(39).await, 0, "longer than the default");
    restore(&postroom, &["message_retention"]).await.expect("restored");
    assert_eq!(clean(29).await, 0);
    assert_eq!(clean(31).await, 1);
    let request = GetMessageRequest { name: sent.name };
    let gone = postroom.send().get_message(request).await.expect_err("gone");
    assert_eq!(reason(&gone), (Code::NotFound, "NOT_FOUND".to_owned()));
    store.close().await;
}

/// One bad value of each field that can have one, all told at once, in the order of the fields' classes or not.
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_value_is_named() {
    let postroom =
        Postroom::start_with(Options { retry_floor: Duration::from_mins(30), ..Options::default() }).await;
    let before = current(&postroom).await;
    let wrong = Settings {
        account_priority: Some(3),
        connection_timeout: Some(seconds(601)),
        log_level: Some(5),
        log_rewrite_period: Some(-7),
        log_max_size_mib: Some(u32::MAX),
        retry_intervals: vec![seconds(1_799), seconds(1_800), seconds(2_592_001)],
        max_messages_per_batch: Some(0),
        min_batch_interval: Some(seconds(-1)),
        on_uncertain: Some(9),
        message_retention: Some(seconds(1)),
        ..Settings::default()
    };
    let refused = update(&postroom, wrong, &[]).await.expect_err("eleven faults");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    let expected = [
        "account_priority",
        "connection_timeout",
        "log_level",
        "log_max_size_mib",
        "log_rewrite_period",
        "max_messages_per_batch",
        "message_retention",
        "min_batch_interval",
        "on_uncertain",
        "retry_intervals[0]",
        "retry_intervals[2]",
    ];
    assert_eq!(fields, expected.map(|field| format!("settings.{field}")));
    assert_eq!(current(&postroom).await, before);
    // A fraction of a millisecond is not kept, and no change.
    let fraction = |nanos| Settings {
        connection_timeout: Some(prost_types::Duration { seconds: 2, nanos }),
        ..Settings::default()
    };
    let kept = update(&postroom, fraction(1_500_000), &[]).await.expect("changed");
    assert_eq!(kept.connection_timeout, fraction(1_000_000).connection_timeout);
    assert_eq!(update(&postroom, fraction(1_700_000), &[]).await.expect("as it is"), kept);
}

/// Callers that name no etag do not get in each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_are_all_kept() {
    let postroom = Postroom::start().await;
    let changes = [
        Settings { save_logs: Some(false), ..Settings::default() },
        Settings { send_in_parts: Some(true), ..Settings::default() },
        Settings { send_test_on_save: Some(true), ..Settings::default() },
        Settings { log_max_size_mib: Some(3), ..Settings::default() },
        Settings { max_messages_per_batch: Some(4), ..Settings::default() },
        Settings { connection_timeout: Some(seconds(5)), ..Settings::default() },
    ];
    let [one, two, three, four, five, six] = changes.map(|change| update(&postroom, change, &[]));
    let answers = tokio::join!(one, two, three, four, five, six);
    for answer in [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5] {
        answer.expect("changed");
    }
    let now = current(&postroom).await;
    assert_eq!(
        (now.save_logs, now.send_in_parts, now.send_test_on_save),
        (Some(false), Some(true), Some(true))
    );
    assert_eq!((now.log_max_size_mib, now.max_messages_per_batch), (Some(3), Some(4)));
    assert_eq!(now.connection_timeout, Some(seconds(5)));
}
