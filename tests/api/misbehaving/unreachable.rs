//! Case 1: nobody there, nobody who stays, no such name; and what several of these in a row lead to.

use std::time::Duration;

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{Attempt, Step, recipient};
use sqlx::Connection as _;

use super::rig::{Hostile, Patience, Rig};
use super::story::between;
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{letter, plain_account};

/// Sessions in a row that cannot be opened, after which the account is parked.
const SEVERAL: usize = 3;

/// What keeps the server from being reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Refused,
    Dropped,
    NameNotFound,
}

/// A smallest retry interval after which probes come quickly.
const SHORT_FLOOR: Duration = Duration::from_secs(6);

async fn several_in_a_row(way: Way, words: &str) {
    let rig = Rig::start_with(Patience::Long, SHORT_FLOOR).await;
    let hostile = Hostile::scripted(Behaviour::default(), |peer| async move {
        peer.fault("dropped");
        Ok(())
    })
    .await;
    let from = "shop@example.com";
    let account = rig.postroom.create_account(plain_account(&hostile.server, from)).await;
    let port = hostile.server.port();
    let mut hostile = Some(hostile);
    match way {
        Way::Refused => drop(hostile.take()),
        Way::Dropped => hostile.as_ref().expect("set").misbehave(true),
        // No check would let such a name pass: it has to vanish later.
        Way::NameNotFound => rename(&rig, "no-such-host.invalid").await,
    }
    if way == Way::Refused {
        // The server's task lets go of its port when it is scheduled again.
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    let mut names = Vec::new();
    for number in 1..=SEVERAL {
        let name = rig.send(letter(from, &[&format!("r{number}@example.org")])).await;
        let tried = eventually("an attempt", async || {
            let message = rig.postroom.message(&name).await;
            (message.state() == State::Queued && !message.attempts.is_empty()).then_some(message)
        })
        .await;
        let attempt = &tried.attempts[0];
        assert_eq!(attempt.outcome(), Outcome::Retry, "{tried:?}");
        let step = if way == Way::NameNotFound { Step::Resolve } else { Step::Connect };
        assert_eq!(attempt.step(), step, "{tried:?}");
        let reply = attempt.reply.as_ref().expect("set");
        assert!(reply.code == 0 && reply.text.contains(words), "{words}: {reply:?}");
        assert!(between(attempt.start_time, attempt.end_time) < Patience::Long.bound());
        assert_eq!(tried.recipients[0].state(), recipient::State::Pending, "{tried:?}");
        if number < SEVERAL {
            assert_eq!(tried.attempts.len(), 1, "{tried:?}");
            let wait = between(attempt.end_time, tried.next_attempt_time);
            assert!(wait >= Duration::from_mins(30), "it counts as a try: {wait:?}");
            assert_eq!(rig.account(&account.name).await.parking, None, "not yet");
        }
        names.push(name);
    }
    let parked = async || rig.account(&account.name).await.parking;
    let parking = eventually("parked", parked).await;
    assert_eq!(parking.reason(), Reason::Unreachable, "{parking:?}");
    assert!(parking.error.contains(words), "{parking:?}");
    let errors = rig.postroom.entries("send-admin-1").await;
    let errors = errors.iter().filter(|entry| entry.kind() == Kind::Error && entry.text.contains(words));
    assert!(errors.count() >= SEVERAL);
    if let Some(hostile) = &hostile
        && way == Way::Dropped
    {
        assert!(hostile.server.journal().faults.len() >= SEVERAL);
    }

    // It is there again: the one that waits goes out by itself, the others at their intervals.
    let Some(hostile) = hostile else { return };
    hostile.misbehave(false);
    if way == Way::NameNotFound {
        rename(&rig, "127.0.0.1").await;
    }
    let sent = eventually("sent by itself", async || {
        let message = rig.postroom.message(&names[SEVERAL - 1]).await;
        (message.state() == State::Sent).then_some(message)
    })
    .await;
    assert_eq!(sent.attempts.last().map(Attempt::outcome), Some(Outcome::Sent), "{sent:?}");
    assert_eq!(rig.account(&account.name).await.parking, None);
    for name in &names[..SEVERAL - 1] {
        let waiting = rig.postroom.message(name).await;
        assert_eq!((waiting.state(), waiting.attempts.len()), (State::Queued, 1), "{waiting:?}");
    }
    assert_eq!(hostile.server.journal().letters.len(), 1);
}

/// Moves the account to another host, behind the back of all checks.
async fn rename(rig: &Rig, host: &str) {
    let mut database = sqlx::PgConnection::connect(&rig.postroom.database_url).await.expect("a connection");
    let changed = sqlx::query("update accounts set host = $1").bind(host).execute(&mut database).await;
    assert_eq!(changed.expect("changed").rows_affected(), 1);
    database.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_1_nobody_there_or_nobody_who_stays() {
    tokio::join!(
        several_in_a_row(Way::Refused, "Connection refused"),
        several_in_a_row(Way::Dropped, "the server closed the connection"),
        several_in_a_row(Way::NameNotFound, "the name no-such-host.invalid was not found"),
    );
}
