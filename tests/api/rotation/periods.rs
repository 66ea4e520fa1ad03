//! Periods: when one is over a log begins afresh, whether or not anything is added to it.

use postroom::api::proto::LogRewritePeriod;
use postroom::api::proto::restart::Cause;

use super::{DAY, HOUR, SECOND, age, change_time, is_told, period, rename, texts, two_accounts};
use crate::desk::{FROM, now, start_unswept};
use crate::support::letter;
use crate::transcripts::{Stepped, chunk, clear, download, size};

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_after_the_period_is_over_begins_a_new_log() {
    let (_server, postroom, letters) = two_accounts().await;
    age(&postroom, 23).await;
    let second = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
    let both: Vec<_> = postroom.entries("send-admin-1").await.into_iter().map(|e| e.message).collect();
    assert!(both.contains(&letters[0]) && both.contains(&second));
    age(&postroom, 1).await;
    is_told(&postroom, &letters, Cause::Period, async || {
        let third = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
        let entries = postroom.entries("send-admin-1").await;
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry.message == third));
        let fourth = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
        let more = postroom.entries("send-admin-1").await;
        assert_eq!(more[..entries.len()], entries);
        assert!(more[entries.len()..].iter().all(|entry| entry.message == fourth));
        assert_eq!(size(&postroom, "send-admin-1").await, download(&postroom, "send-admin-1").await.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_period_is_over_is_emptied_although_nothing_is_added() {
    let (_server, postroom, letters) = two_accounts().await;
    let store = Stepped::over(&postroom);
    let before = texts(&postroom, "send-admin-1").await;
    age(&postroom, 23).await;
    store.restart_due(now()).await;
    assert_eq!(texts(&postroom, "send-admin-1").await, before);
    age(&postroom, 1).await;
    is_told(&postroom, &letters, Cause::Period, async || {
        store.restart_due(now()).await;
        assert_eq!(texts(&postroom, "send-admin-1").await, [""; 0]);
        assert_eq!(size(&postroom, "send-admin-1").await, 0);
        assert!(size(&postroom, "send-admin-2").await > 0);
        store.restart_due(now()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn periods_are_counted_from_the_last_change_of_the_account() {
    let (_server, postroom) = start_unswept().await;
    let store = Stepped::over(&postroom);
    for (number, (name, length)) in [
        (LogRewritePeriod::Day, DAY),
        (LogRewritePeriod::Week, 7 * DAY),
        (LogRewritePeriod::Month, 30 * DAY),
        (LogRewritePeriod::Year, 365 * DAY),
    ]
    .into_iter()
    .enumerate()
    {
        period(&postroom, name).await;
        rename(&postroom, &format!("Change {number}")).await;
        let change = change_time(&postroom, 1).await;
        let held = async || texts(&postroom, "send-admin-1").await;
        // An hour old when the period ends: it goes all the same.
        store.record("send-admin-1", change + length - HOUR, "first").await;
        store.restart_due(change + length - SECOND).await;
        store.record("send-admin-1", change + length - SECOND, "second").await;
        assert_eq!(held().await, ["first", "second"], "{name:?}");
        store.record("send-admin-1", change + length, "third").await;
        assert_eq!(held().await, ["third"], "{name:?}");
        store.record("send-admin-1", change + 2 * length - SECOND, "fourth").await;
        assert_eq!(held().await, ["third", "fourth"], "{name:?}");
        store.restart_due(change + 2 * length).await;
        assert_eq!(held().await, [""; 0], "{name:?}");
        // After several periods in which nothing happened, too.
        store.record("send-admin-1", change + 2 * length, "fifth").await;
        store.record("send-admin-1", change + 7 * length, "sixth").await;
        assert_eq!(held().await, ["sixth"], "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_checks_of_new_accounts_counts_from_its_first_entry() {
    let (_server, postroom) = start_unswept().await;
    let store = Stepped::over(&postroom);
    clear(&postroom, "check-admin-0").await.expect("cleared");
    let begin = now();
    let held = async || texts(&postroom, "check-admin-0").await;
    store.record("check-admin-0", begin, "first").await;
    store.record("check-admin-0", begin + 5 * HOUR, "second").await;
    store.restart_due(begin + DAY - SECOND).await;
    assert_eq!(held().await, ["first", "second"]);
    store.record("check-admin-0", begin + DAY + HOUR, "third").await;
    assert_eq!(held().await, ["third"]);
    // Counted from there, and not in days from the first one.
    store.record("check-admin-0", begin + 2 * DAY, "fourth").await;
    assert_eq!(held().await, ["third", "fourth"]);
    store.restart_due(begin + 2 * DAY + HOUR).await;
    assert_eq!(held().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_runs_across_the_end_of_a_period_stays_whole() {
    let (_server, postroom) = start_unswept().await;
    let store = Stepped::over(&postroom);
    let change = change_time(&postroom, 1).await;
    store.record("send-admin-1", change + HOUR, "old").await;
    // Said before the end of the day, recorded after it.
    let said = chunk("send-admin-1", change + DAY - SECOND, &["hello"]);
    store.record("check-admin-1", change + DAY, "sets the clock").await;
    store.put(&[said]).await;
    store.record("send-admin-1", change + DAY + SECOND, "goodbye").await;
    store.restart_due(change + DAY + HOUR).await;
    assert_eq!(texts(&postroom, "send-admin-1").await, ["hello", "goodbye"]);
}
