//! Attempts: which recipients get another one, when, and what is told of them in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, Attempt, Message, Recipient, SendMessageRequest, Settings, Step, UpdateAccountRequest,
    UpdateSettingsRequest, recipient,
};
use prost_types::FieldMask;

use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received, Server};
use crate::support::{Postroom, SITE, letter, plain_account};

const FROM: &str = "shop@example.com";

/// A Postroom with an account at this server, and these retry intervals in milliseconds.
async fn start(server: &Server, intervals: &[i32]) -> Postroom {
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(server, FROM)).await;
    let millis = |millis: &i32| prost_types::Duration {
        seconds: i64::from(millis / 1_000),
        nanos: millis % 1_000 * 1_000_000,
    };
    let settings = Settings {
        name: format!("{SITE}/settings"),
        retry_intervals: intervals.iter().map(millis).collect(),
        ..Settings::default()
    };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    postroom.settings().update_settings(request).await.expect("settings");
    postroom
}

fn outcomes(message: &Message) -> Vec<Outcome> {
    assert!(
        message.attempts.iter().zip(1..).all(|(attempt, number)| attempt.number == number),
        "{message:?}"
    );
    message.attempts.iter().map(Attempt::outcome).collect()
}

/// State and reply code of each recipient, by address.
fn recipients(message: &Message) -> BTreeMap<String, (recipient::State, i32)> {
    let of = |one: &Recipient| {
        (one.address.clone(), (one.state(), one.reply.as_ref().map_or(0, |reply| reply.code)))
    };
    message.recipients.iter().map(of).collect()
}

/// How often each address got a letter.
fn copies(letters: &[Received]) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for recipient in letters.iter().flat_map(|letter| &letter.recipients) {
        let address = recipient.split(['<', '>']).nth(1).expect("a path");
        *copies.entry(address.to_owned()).or_default() += 1;
    }
    copies
}

fn header<'a>(letter: &'a Received, name: &str) -> &'a str {
    let text = std::str::from_utf8(&letter.content).expect("7-bit");
    text.lines().find_map(|line| line.strip_prefix(name)).expect("the header").trim()
}

/// CASES 12.
#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_must_wait_are_tried_again() {
    let server = Behaviour::default()
        .on("RCPT TO:<nobody@", "550 5.1.1 no such mailbox\r\n")
        .once("RCPT TO:<full@", "452 4.2.2 mailbox full\r\n", Then::GoOn)
        .on("RCPT TO:<later@", "451 4.3.0 not now\r\n")
        .start()
        .await;
    let postroom = start(&server, &[50, 50]).await;
    let mut message =
        letter(FROM, &["ann@example.org", "nobody@example.org", "full@example.org", "later@example.org"]);
    message.bcc = vec!["bob@example.org".to_owned()];
    let sent = postroom.send_and_wait(message).await;

    assert_eq!(sent.state(), State::PartiallySent, "{sent:?}");
    assert_eq!(outcomes(&sent), [Outcome::PartiallySent, Outcome::PartiallySent, Outcome::Retry]);
    assert!(sent.final_time.is_some() && sent.next_attempt_time.is_none());
    let expected = [
        ("ann@example.org", (recipient::State::Sent, 250)),
        ("bob@example.org", (recipient::State::Sent, 250)),
        ("full@example.org", (recipient::State::Sent, 250)),
        ("later@example.org", (recipient::State::Failed, 451)),
        ("nobody@example.org", (recipient::State::Refused, 550)),
    ];
    assert_eq!(recipients(&sent), expected.map(|(a, r)| (a.to_owned(), r)).into());
    let journal = server.journal();
    let got = ["ann@example.org", "bob@example.org", "full@example.org"].map(|a| (a.to_owned(), 1));
    assert_eq!(copies(&journal.letters), got.into());
    let asked = |address: &str| {
        let command = format!("RCPT TO:<{address}@").to_uppercase();
        journal.commands.iter().filter(|heard| heard.to_uppercase().starts_with(&command)).count()
    };
    assert_eq!([asked("ann"), asked("bob"), asked("nobody"), asked("full"), asked("later")], [1, 1, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greylisted_letter_comes_through_at_the_next_attempt() {
    let greylisted = "450 4.2.0 greylisted, come back\r\n";
    let server = Behaviour::default().once("RCPT TO:<ann@", greylisted, Then::GoOn).start().await;
    let postroom = start(&server, &[100]).await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(outcomes(&sent), [Outcome::Retry, Outcome::Sent]);
    let first = &sent.attempts[0];
    let reply = first.reply.as_ref().expect("the server's words");
    assert_eq!((reply.code, reply.enhanced_code.as_str()), (450, "4.2.0"));
    assert!(reply.text.contains("greylisted"));
    assert_eq!(first.step(), Step::Envelope);
    assert_eq!(server.journal().faults.len(), 1);
    assert_eq!(server.journal().letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_interval_the_letter_fails() {
    let server = Behaviour::default().on("RCPT TO:<ann@", "451 4.3.0 never\r\n").start().await;
    let postroom = start(&server, &[50, 80]).await;
    let failed = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert_eq!(outcomes(&failed), [Outcome::Retry; 3]);
    assert_eq!(failed.recipients[0].state(), recipient::State::Failed);
    assert_eq!(server.journal().faults.len(), 3);
    // Each interval is kept, and at most a tenth is added to it before the letter is due.
    for (pair, millis) in failed.attempts.windows(2).zip([50, 80]) {
        let nanos = |time: Option<prost_types::Timestamp>| {
            let time = time.expect("a time");
            i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
        };
        assert!(nanos(pair[1].start_time) - nanos(pair[0].end_time) >= millis * 1_000_000, "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_refused_for_good_is_not_tried_again() {
    let server = Behaviour::default().on("dot", "554 5.7.1 no spam\r\n").start().await;
    let postroom = start(&server, &[50]).await;
    let failed = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(failed.state(), State::Failed);
    assert_eq!(outcomes(&failed), [Outcome::Refused]);
    assert_eq!(failed.recipients[0].state(), recipient::State::Refused);
    assert_eq!(failed.recipients[0].reply.as_ref().expect("words").text, "no spam");
    assert_eq!(server.journal().faults, ["DOT"]);
}

/// A server that takes a letter on each connection from 1 up to `last` and is gone without a word; ordinary otherwise.
pub(crate) async fn cuts_after_the_dot(last: usize) -> Server {
    let ordinary = Arc::new(Behaviour::default());
    Server::scripted(move |mut peer: Peer| {
        let ordinary = Arc::clone(&ordinary);
        async move {
            // The first connection is the check of the account.
            if peer.number == 0 || peer.number > last {
                return ordinary.serve(peer).await;
            }
            peer.hello(&[]).await?;
            peer.envelope().await?;
            let content = peer.content().await?;
            peer.take(Received { content, connection: peer.number, ..Received::default() });
            peer.fault("cut after the dot");
            peer.reset()
        }
    })
    .await
}

/// CASES 17.
#[tokio::test(flavor = "multi_thread")]
async fn an_uncertain_letter_is_sent_again_under_the_same_message_id() {
    let server = cuts_after_the_dot(2).await;
    let postroom = start(&server, &[50, 50, 50]).await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(outcomes(&sent), [Outcome::Uncertain, Outcome::Uncertain, Outcome::Sent]);
    assert_eq!(sent.attempts[0].step(), Step::Acceptance);
    let journal = server.journal();
    assert_eq!(journal.faults.len(), 2);
    assert_eq!(journal.letters.len(), 3);
    for copy in &journal.letters {
        assert_eq!(header(copy, "Message-ID:"), sent.message_id);
        assert_eq!(copy.content, journal.letters[0].content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_stays_uncertain_is_told_so() {
    let server = cuts_after_the_dot(usize::MAX).await;
    let postroom = start(&server, &[50]).await;
    let uncertain = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(uncertain.state(), State::Uncertain, "{uncertain:?}");
    assert_eq!(outcomes(&uncertain), [Outcome::Uncertain; 2]);
    assert_eq!(uncertain.recipients[0].state(), recipient::State::Uncertain);
    assert!(uncertain.final_time.is_some());
    assert_eq!(server.journal().faults.len(), 2);
}

/// An ordinary server that drops every connection while it is `dead`.
async fn switchable(dead: &Arc<AtomicBool>) -> Server {
    let (dead, ordinary) = (Arc::clone(dead), Arc::new(Behaviour::default()));
    Server::scripted(move |peer: Peer| {
        let (dead, ordinary) = (Arc::clone(&dead), Arc::clone(&ordinary));
        async move {
            if !dead.load(Ordering::SeqCst) {
                return ordinary.serve(peer).await;
            }
            peer.fault("dead");
            peer.reset()
        }
    })
    .await
}

/// Sends without waiting; the letter's name.
async fn send(postroom: &Postroom, message: Message) -> String {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        ..SendMessageRequest::default()
    };
    let taken = postroom.send().send_message(request).await.expect("taken").into_inner();
    taken.message.expect("set").name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_gets_what_waited() {
    let dead = Arc::new(AtomicBool::new(false));
    let server = switchable(&dead).await;
    let postroom = start(&server, &[50; 30]).await;
    dead.store(true, Ordering::SeqCst);
    let name = send(&postroom, letter(FROM, &["ann@example.org"])).await;
    server.wait_until(|journal| journal.faults.len() >= 2).await;
    let waiting = postroom.message(&name).await;
    assert!(matches!(waiting.state(), State::Queued | State::Sending), "{waiting:?}");
    assert_eq!(waiting.recipients[0].state(), recipient::State::Pending);
    dead.store(false, Ordering::SeqCst);
    server.wait_until(|journal| !journal.letters.is_empty()).await;
    // Outcomes are recorded in their order: behind this letter's, the first one's is there.
    postroom.send_and_wait(letter(FROM, &["bob@example.org"])).await;
    let sent = postroom.message(&name).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    let told = outcomes(&sent);
    assert_eq!(told.last(), Some(&Outcome::Sent));
    assert!(told.len() >= 3 && told[..told.len() - 1].iter().all(|one| *one == Outcome::Retry), "{told:?}");
    assert_eq!(copies(&server.journal().letters)["ann@example.org"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_an_account_that_is_switched_off_waits() {
    const OTHER: &str = "other@example.com";
    let dead = Arc::new(AtomicBool::new(false));
    let server = switchable(&dead).await;
    let greylisted = "450 4.2.0 greylisted\r\n";
    let other = Behaviour::default()
        .once("RCPT TO:<first@", greylisted, Then::GoOn)
        .once("RCPT TO:<second@", greylisted, Then::GoOn)
        .start()
        .await;
    // The last one is long: mail of an account that cannot send is given up after all of them together.
    let postroom = start(&server, &[&[50; 30][..], &[60_000]].concat()).await;
    postroom.create_account(plain_account(&other, OTHER)).await;
    let switch = async |active: bool| {
        let account =
            Account { name: format!("{SITE}/accounts/1"), active: Some(active), ..Account::default() };
        let update_mask = Some(FieldMask { paths: vec!["active".to_owned()] });
        let request =
            UpdateAccountRequest { account: Some(account), update_mask, ..UpdateAccountRequest::default() };
        postroom.accounts().update_account(request).await.expect("updated");
    };
    dead.store(true, Ordering::SeqCst);
    let name = send(&postroom, letter(FROM, &["ann@example.org"])).await;
    server.wait_until(|journal| !journal.faults.is_empty()).await;
    switch(false).await;
    // A retry of the other account takes a look at the whole queue: after it, no attempt of this one is under way.
    let seen = async |to: &str| {
        let sent = postroom.send_and_wait(letter(OTHER, &[to])).await;
        assert_eq!(outcomes(&sent), [Outcome::Retry, Outcome::Sent]);
    };
    seen("first@example.org").await;
    let before = postroom.message(&name).await;
    dead.store(false, Ordering::SeqCst);
    seen("second@example.org").await;
    let waiting = postroom.message(&name).await;
    assert_eq!(waiting.state(), State::Queued, "{waiting:?}");
    assert_eq!(outcomes(&waiting), outcomes(&before), "it was tried although the account is off");
    assert!(server.journal().letters.is_empty());
    switch(true).await;
    server.wait_until(|journal| !journal.letters.is_empty()).await;
    assert_eq!(server.journal().letters.len(), 1);
}
