//! The pace of accounts, seen from the mail server: limits, batches, sessions, over two servers; other mail before
//! mailings; parts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::{Account, Limits, Message, Settings};

use crate::bulk::{multiply, send_all};
use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::sink::{Sink, Span, Transaction, most_at_once};
use crate::support::{Options, PATIENCE, Postroom, account_at, letter, plain_account};

const MINUTE: Duration = Duration::from_mins(1);

fn sender(number: usize) -> String {
    format!("account{number}@example.com")
}

/// The begins of the transactions of each sender, in order.
fn begins(transactions: &[Transaction]) -> BTreeMap<&str, Vec<Instant>> {
    let mut begins: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for transaction in transactions {
        begins.entry(transaction.sender.as_str()).or_default().push(transaction.begun);
    }
    for times in begins.values_mut() {
        times.sort();
    }
    begins
}

/// The shortest time in which so many plus one transactions began.
fn shortest_stretch(begins: &[Instant], limit: usize) -> Option<Duration> {
    begins.windows(limit + 1).map(|window| window[limit] - window[0]).min()
}

/// 5,000 letters of 20 accounts over two servers: what an account may not do, it does not do, whoever sends for it.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_keep_the_limits_of_twenty_accounts() {
    const ACCOUNTS: usize = 20;
    /// The first so many accounts have a limit that their letters exceed.
    const LIMITED: usize = 4;
    const PER_MINUTE: usize = 100;
    const OF_LIMITED: usize = 150;
    const OF_OTHERS: usize = 275;
    const PER_BATCH: usize = 25;
    const CONNECTIONS: usize = 2;
    const INTERVAL: Duration = Duration::from_secs(1);
    /// From the slot that is taken to the server's ear.
    const ON_THE_WAY: Duration = Duration::from_millis(250);

    let sink = Sink::start(Duration::ZERO).await;
    let first = Postroom::start().await;
    first
        .change_settings(Settings {
            max_messages_per_batch: Some(25),
            min_batch_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Settings::default()
        })
        .await;
    for number in 0..ACCOUNTS {
        let limits = Limits {
            per_minute: (number < LIMITED).then_some(100),
            per_day: Some(1_000),
            max_connections: Some(2),
            ..Limits::default()
        };
        let account = account_at(sink.port(), &sender(number));
        first.create_account(Account { limits: Some(limits), ..account }).await;
    }
    let mut second = first.another().await;
    let checks = sink.connections().len();

    let count = |number| if number < LIMITED { OF_LIMITED } else { OF_OTHERS };
    // One of each account in turn.
    let letters: Vec<Message> = (0..OF_OTHERS)
        .flat_map(|place| (0..ACCOUNTS).filter(move |number| place < count(*number)))
        .map(|number| letter(&sender(number), &["ann@example.org"]))
        .collect();
    let total = letters.len();
    assert_eq!(total, 5_000);
    let start = Instant::now();
    send_all(&[&first, &second], letters).await;
    sink.wait_for(total, 4 * MINUTE).await;
    println!("{total} letters in {:?}", start.elapsed());

    let transactions = sink.transactions();
    let once: BTreeSet<_> = transactions.iter().map(|transaction| &transaction.message_id).collect();
    assert_eq!((transactions.len(), once.len()), (total, total), "each letter once");
    let begins = begins(&transactions);
    for number in 0..ACCOUNTS {
        let begun = &begins[sender(number).as_str()];
        assert_eq!(begun.len(), count(number), "account {number}");
        if number < LIMITED {
            let stretch = shortest_stretch(begun, PER_MINUTE).expect("more than the limit");
            assert!(stretch >= MINUTE, "account {number}: {PER_MINUTE} and one more within {stretch:?}");
        }
        // In the time of one interval no more than two batches can begin.
        for (place, begin) in begun.iter().enumerate() {
            let intervals = (*begin - start).as_secs_f64() / INTERVAL.as_secs_f64();
            let batches = place / PER_BATCH;
            assert!(
                intervals + ON_THE_WAY.as_secs_f64() >= f64::from(u32::try_from(batches).expect("few")),
                "account {number}: letter {place} after {intervals} intervals"
            );
        }
        let stretch = shortest_stretch(begun, 2 * PER_BATCH).expect("more than two batches");
        assert!(stretch + ON_THE_WAY >= INTERVAL, "account {number}: three batches within {stretch:?}");
    }
    let spans = sink.connections();
    for number in 0..ACCOUNTS {
        let own: BTreeSet<usize> = transactions
            .iter()
            .filter(|t| t.sender == sender(number) && t.connection >= checks)
            .map(|t| t.connection)
            .collect();
        let own: Vec<Span> = own.into_iter().map(|connection| spans[connection]).collect();
        let most = most_at_once(&own);
        assert!(most <= CONNECTIONS, "account {number} had {most} sessions at once");
    }
    second.stop().await;
}

/// A mailing of 20,000 waits, and goes on leaving; a single other letter overtakes it.
#[tokio::test(flavor = "multi_thread")]
async fn other_mail_overtakes_a_mailing() {
    const SLOW: Duration = Duration::from_millis(25);
    let sink = Sink::start(SLOW).await;
    let postroom = Postroom::start().await;
    let limits = Some(Limits { max_connections: Some(2), ..Limits::default() });
    let from = sender(1);
    postroom.create_account(Account { limits, ..account_at(sink.port(), &from) }).await;
    let mailing = Message { mailing: true, ..letter(&from, &["reader@example.org"]) };
    let first = postroom.send_and_wait(mailing).await;
    multiply(&postroom, &first.name, 20_000).await;
    sink.wait_for(40, PATIENCE).await;

    let submitted = Instant::now();
    let sent = postroom.send_and_wait(letter(&from, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    let transactions = sink.transactions();
    let own = transactions.iter().find(|t| t.recipients == ["ann@example.org"]).expect("it came");
    let before = transactions.iter().filter(|t| t.begun > submitted && t.taken < own.taken).count();
    // Those under way, and what two sessions begin while the letter is stored and claimed; each of them has up to 16
    // letters of the mailing in hand.
    assert!(before <= 12, "{before} letters of the mailing went first");
    assert!(sink.count() < 2_000, "the mailing is over: nothing was tested");
}

/// A part of the limits is kept from mailings.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_leaves_the_reserve_to_others() {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start().await;
    let from = sender(1);
    let limits = Limits { per_minute: Some(20), reserve_percent: Some(50), ..Limits::default() };
    postroom.create_account(Account { limits: Some(limits), ..account_at(sink.port(), &from) }).await;
    let mailing = Message { mailing: true, ..letter(&from, &["reader@example.org"]) };
    let names = send_all(&[&postroom], vec![mailing; 30]).await;
    sink.wait_for(10, PATIENCE).await;
    for number in 0..10 {
        let sent = postroom.send_and_wait(letter(&from, &[&format!("{number}@example.org")])).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
    }
    assert_eq!(sink.count(), 20, "ten of the mailing, ten others");
    let mut waiting = 0;
    for name in names {
        let message = postroom.message(&name).await;
        match message.state() {
            State::Sent => {}
            State::Queued => {
                waiting += 1;
                assert!(message.attempts.is_empty(), "what waits was not tried: {message:?}");
            }
            state => panic!("{state:?}: {message:?}"),
        }
    }
    assert_eq!(waiting, 20);
}

/// `send_in_parts`, and a smaller `max_recipients`.
#[tokio::test(flavor = "multi_thread")]
async fn letters_go_in_parts() {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start().await;
    let from = sender(1);
    let limits = Some(Limits { max_recipients: Some(2), ..Limits::default() });
    postroom.create_account(Account { limits, ..account_at(sink.port(), &from) }).await;
    let to = ["a@example.org", "b@example.org", "c@example.org", "d@example.org", "e@example.org"];
    let sent = postroom.send_and_wait(letter(&from, &to)).await;
    assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 1), "{sent:?}");
    let parts: Vec<usize> = sink.transactions().iter().map(|t| t.recipients.len()).collect();
    assert_eq!(parts, [2, 2, 1]);

    postroom.change_settings(Settings { send_in_parts: Some(true), ..Settings::default() }).await;
    let sent = postroom.send_and_wait(letter(&from, &to)).await;
    assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 1), "{sent:?}");
    let transactions = sink.transactions();
    let parts: Vec<_> = transactions[3..].iter().map(|t| t.recipients.join(" ")).collect();
    assert_eq!(parts, to);
    let connections: BTreeSet<usize> = transactions[3..].iter().map(|t| t.connection).collect();
    assert_eq!(connections.len(), 1, "one session");
}

/// What was sent of a long letter is known before all of it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_in_many_parts_is_recorded_on_its_way() {
    const RECIPIENTS: usize = 250;
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start().await;
    let from = sender(1);
    postroom.create_account(account_at(sink.port(), &from)).await;
    postroom.change_settings(Settings { send_in_parts: Some(true), ..Settings::default() }).await;
    let to: Vec<String> = (0..RECIPIENTS).map(|number| format!("{number}@example.org")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let sent = postroom.send_and_wait(letter(&from, &to)).await;
    assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 3), "{:?}", sent.attempts);
    let recipients: BTreeSet<String> = sink.transactions().into_iter().flat_map(|t| t.recipients).collect();
    assert_eq!((sink.count(), recipients.len()), (RECIPIENTS, RECIPIENTS));
}

/// A letter that needs more transactions than its account has slots gets the rest when there are slots again.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_waits_for_the_rest_of_its_slots() {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start().await;
    let from = sender(1);
    let limits = Limits { per_minute: Some(2), max_recipients: Some(1), ..Limits::default() };
    let account =
        postroom.create_account(Account { limits: Some(limits), ..account_at(sink.port(), &from) }).await;
    let names =
        send_all(&[&postroom], vec![letter(&from, &["a@example.org", "b@example.org", "c@example.org"])])
            .await;
    sink.wait_for(2, PATIENCE).await;
    let waiting = postroom.wait_for_attempts(&names[0], 1).await;
    assert_eq!(waiting.state(), State::Queued, "{waiting:?}");
    // More slots are a change of the account, and count at once.
    let limits = Limits { per_minute: Some(3), max_recipients: Some(1), ..Limits::default() };
    postroom.change_limits(&account, limits).await;
    sink.wait_for(3, PATIENCE).await;
    let recipients: Vec<_> = sink.transactions().into_iter().flat_map(|t| t.recipients).collect();
    assert_eq!(recipients, ["a@example.org", "b@example.org", "c@example.org"]);
}

/// One account's server accepts connections and says nothing, and its mail waits; the others do not notice, and it is
/// probed with one letter, not with all.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_delays_nobody_else() {
    let dead = Server::scripted(|mut peer| async move {
        if peer.number == 0 {
            return std::sync::Arc::new(Behaviour::default()).serve(peer).await;
        }
        peer.hold().await.map(|_| ())
    })
    .await;
    let sink = Sink::start(Duration::ZERO).await;
    let postroom =
        Postroom::start_with(Options { retry_floor: Duration::from_mins(30), ..Options::default() }).await;
    postroom.create_account(plain_account(&dead, "dead@example.com")).await;
    for number in 0..50 {
        postroom.create_account(account_at(sink.port(), &sender(number))).await;
    }
    let name = send_all(&[&postroom], vec![letter("dead@example.com", &["ann@example.org"])]).await;
    multiply(&postroom, &name[0], 10_000).await;
    tokio::time::timeout(PATIENCE, dead.wait_until(|journal| journal.connections > 1)).await.expect("tried");
    let letters = (0..500).map(|n| letter(&sender(n % 50), &[&format!("{n}@example.org")])).collect();
    send_all(&[&postroom], letters).await;
    sink.wait_for(500, 4 * MINUTE).await;
    let tried = dead.journal().connections - 1;
    assert!(tried <= 3, "{tried} sessions stood before a server that says nothing");
}
