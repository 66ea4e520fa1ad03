//! Letters of which nobody knows whether they were taken: sent again, or held until a person decides. Also after the
//! server was killed at any moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, Attempt, CreateAccountRequest, GetMessageRequest, Limits, ListSitesRequest, Message,
    OnUncertain, SendMessageRequest, Settings, UpdateSettingsRequest, recipient,
};
use postroom::domain::log::Chunk;
use postroom::domain::message::{self, AttemptOutcome, Next, RecipientState};
use postroom::domain::reply::Reply;
use postroom::domain::site::SiteId;
use postroom::store::queue::{self, Claim, Lane, Wanted};
use postroom::store::{Store, logs, replicas};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::binary::{Client, DataDir, Serving};
use crate::retries::cuts_after_the_dot;
use crate::scripted::ordinary::Behaviour;
use crate::sink::Sink;
use crate::support::{PATIENCE, Postroom, SITE, account_at, letter, plain_account};

const FROM: &str = "shop@example.com";

fn hold() -> Settings {
    Settings { on_uncertain: Some(OnUncertain::Hold.into()), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_held_when_nobody_knows_whether_it_was_taken() {
    let server = cuts_after_the_dot(usize::MAX).await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    postroom.change_settings(hold()).await;
    let held = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(held.state(), State::Uncertain, "{held:?}");
    assert!(held.final_time.is_none(), "it waits for a person");
    assert!(held.recipients.iter().all(|r| r.state() == recipient::State::Uncertain), "{held:?}");
    let outcomes: Vec<_> = held.attempts.iter().map(Attempt::outcome).collect();
    assert_eq!(outcomes, [Outcome::Uncertain]);
    assert_eq!(server.journal().letters.len(), 1);
}

/// A claim by a replica that is only known to the store.
async fn claim(store: &Store, lane: &Lane, replica: Uuid) -> Vec<Claim> {
    replicas::heartbeat(store, replica).await.expect("heard");
    queue::claim(store, lane, replica, None, Wanted::Any, 10).await.expect("asked")
}

/// What is recorded where the server took the letter after all.
fn sent(claim: Claim) -> queue::Outcome {
    let Claim { message, attempt, mut recipients, due, .. } = claim;
    for recipient in &mut recipients {
        recipient.state = RecipientState::Sent;
        recipient.reply = Some(Reply::absent("taken"));
    }
    let attempts = vec![message::Attempt {
        number: attempt,
        start_time: Some(due),
        end_time: due,
        step: None,
        outcome: AttemptOutcome::Sent,
        reply: Reply::absent("taken"),
    }];
    let next = Next::Final(message::MessageState::Sent);
    queue::Outcome { message, attempt, recipients, attempts, panicked: false, next, held: None }
}

/// A replica loses its lease between the dot and the record; another one holds the letter; then the first one's result
/// comes after all, and it alone counts.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_late_result_of_its_attempt_corrects_a_held_letter() {
    let server = Behaviour::default().start().await;
    let mut postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    postroom.change_settings(hold()).await;
    let lane = Lane { site: SiteId::parse("shop").expect("a site"), account: 1 };
    let later = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    postroom.stop().await;
    let store = postroom.store();
    crate::bulk::multiply(&postroom, &later.name, 1).await;

    let (slow, other) = (Uuid::now_v7(), Uuid::now_v7());
    let first = claim(&store, &lane, slow).await.pop().expect("the letter");
    let noted = queue::at_dot(&store, &lane.site, slow, first.message, first.attempt, &[0]).await;
    assert!(noted.expect("noted"), "its lease counts");
    replicas::sign_off(&store, slow).await.expect("silent");
    let second = claim(&store, &lane, other).await.pop().expect("free again");
    assert_eq!((second.attempt, second.at_dot.as_deref()), (2, Some(&[0][..])));
    let noted = queue::at_dot(&store, &lane.site, slow, first.message, first.attempt, &[0]).await;
    assert!(!noted.expect("asked"), "its lease counts no more: the dot must not be written");
    let name = format!("{SITE}/messages/{}", first.message);
    queue::hand_back(&store, &lane.site, other, &[(second.message, 2)], Duration::ZERO).await.expect("back");
    replicas::sign_off(&store, other).await.expect("gone");

    // The server itself finds the dot, and holds the letter.
    postroom.restart().await;
    let start = Instant::now();
    let held = loop {
        let message = postroom.message(&name).await;
        if message.state() == State::Uncertain {
            break message;
        }
        assert!(start.elapsed() < PATIENCE, "{message:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(held.attempts.iter().map(Attempt::outcome).collect::<Vec<_>>(), [Outcome::Interrupted]);
    assert_eq!(server.journal().letters.len(), 1, "the letter itself was not sent again");

    let chunks: [Chunk; 0] = [];
    let foreign = queue::Outcome { attempt: 7, ..sent(first.clone()) };
    let counted = logs::record(&store, &lane.site, &[foreign], &chunks).await.expect("recorded");
    assert_eq!(counted.len(), 0, "another attempt's result does not count");
    let counted = logs::record(&store, &lane.site, &[sent(first)], &chunks).await.expect("recorded");
    assert_eq!(counted.len(), 1);
    let corrected = postroom.message(&name).await;
    assert_eq!(corrected.state(), State::Sent, "{corrected:?}");
    assert!(corrected.final_time.is_some());
    assert_eq!(corrected.attempts.iter().map(Attempt::outcome).collect::<Vec<_>>(), [Outcome::Sent]);
    store.close().await;
}

/// CASES 55: an outcome whose commit was not answered is recorded again, and counts once.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_recorded_once() {
    let server = Behaviour::default().start().await;
    let mut postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let lane = Lane { site: SiteId::parse("shop").expect("a site"), account: 1 };
    let first = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    postroom.stop().await;
    let store = postroom.store();
    crate::bulk::multiply(&postroom, &first.name, 1).await;
    let claim = claim(&store, &lane, Uuid::now_v7()).await.pop().expect("the letter");
    let name = format!("{SITE}/messages/{}", claim.message);
    let due = claim.due + Duration::from_hours(1);
    let recipients = claim.recipients.clone();
    let waiting = queue::Outcome { recipients, next: Next::Due(due), ..sent(claim) };
    let waiting = std::slice::from_ref(&waiting);
    let counted = logs::record(&store, &lane.site, waiting, &[]).await;
    assert_eq!(counted.expect("recorded").len(), 1);
    let counted = logs::record_again(&store, &lane.site, waiting, &[]).await;
    assert_eq!(counted.expect("recorded").len(), 0);
    store.close().await;
    postroom.restart().await;
    assert_eq!(postroom.message(&name).await.attempts.len(), 1);
}

/// Two attempts of one letter may end at the same moment: the first where its lease had ended, and another one had begun.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_outcomes_of_a_letter_the_newest_attempt_counts() {
    let server = Behaviour::default().start().await;
    let mut postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let lane = Lane { site: SiteId::parse("shop").expect("a site"), account: 1 };
    let first = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    postroom.stop().await;
    let store = postroom.store();
    crate::bulk::multiply(&postroom, &first.name, 1).await;
    let (slow, other) = (Uuid::now_v7(), Uuid::now_v7());
    let early = claim(&store, &lane, slow).await.pop().expect("the letter");
    replicas::sign_off(&store, slow).await.expect("silent");
    let late = claim(&store, &lane, other).await.pop().expect("free again");
    assert_eq!((early.attempt, late.attempt), (1, 2));
    let name = format!("{SITE}/messages/{}", late.message);
    let waiting = queue::Outcome { next: Next::Due(early.due), ..sent(early) };
    let outcomes = [waiting, sent(late)];
    let counted = logs::record(&store, &lane.site, &outcomes, &[]).await.expect("recorded");
    assert_eq!(counted.len(), 1);
    store.close().await;
    postroom.restart().await;
    let message = postroom.message(&name).await;
    assert_eq!(message.state(), State::Sent);
    assert_eq!(message.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [2]);
}

/// A site of the killing test.
struct Site {
    name: String,
    on_uncertain: OnUncertain,
}

const ACCOUNTS: usize = 4;

async fn prepare(client: &Client, sink: &Sink, sites: &[Site]) {
    for site in sites {
        let settings = Settings {
            name: format!("{}/settings", site.name),
            on_uncertain: Some(site.on_uncertain.into()),
            retry_intervals: vec![prost_types::Duration { seconds: 0, nanos: 100_000_000 }; 30],
            ..Settings::default()
        };
        let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
        client.settings().update_settings(request).await.expect("settings");
        for number in 0..ACCOUNTS {
            // Sessions of killed servers count for some seconds more.
            let limits = Some(Limits { max_connections: Some(100), ..Limits::default() });
            let account = Account { limits, ..account_at(sink.port(), &format!("{number}@example.com")) };
            let request = CreateAccountRequest {
                parent: site.name.clone(),
                account: Some(account),
                ..CreateAccountRequest::default()
            };
            client.accounts().create_account(request).await.expect("an account");
        }
    }
}

/// Hands in letters one after the other until the end, as a patient client does: whatever happens to a call, it is made
/// again with the same request id. What was taken.
async fn feed(site: String, mut client: watch::Receiver<Client>, end: watch::Receiver<bool>) -> Vec<Message> {
    let mut taken = Vec::new();
    while !*end.borrow() {
        let from = format!("{}@example.com", taken.len() % ACCOUNTS);
        let request = SendMessageRequest {
            parent: site.clone(),
            message: Some(letter(&from, &["ann@example.org"])),
            request_id: Uuid::now_v7().to_string(),
            ..SendMessageRequest::default()
        };
        let message = loop {
            let mut send = client.borrow_and_update().send();
            match send.send_message(request.clone()).await {
                Ok(answer) => break answer.into_inner().message.expect("set"),
                // The server is gone, or its store is busy.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        taken.push(message);
    }
    taken
}

/// With HOLD no letter arrives twice; with RESEND none is lost, and each double has the same Message-ID. Counted by the
/// mail server.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_fifty_moments() {
    const KILLS: usize = 50;
    const FEEDERS: usize = 3;
    /// Leases end 25 s after the last heartbeat.
    const AFTER_KILLS: Duration = Duration::from_mins(3);
    let sink = Sink::start(Duration::from_millis(10)).await;
    let data_dir = DataDir::new();
    let arguments = ["--retry-floor", "0s"];
    let sites = [("hold", OnUncertain::Hold), ("resend", OnUncertain::Resend)]
        .map(|(id, on_uncertain)| Site { name: format!("sites/{id}"), on_uncertain });
    let mut serving = Serving::start(&data_dir.path(), &arguments).await;
    for id in ["hold", "resend"] {
        data_dir.lines(&["site", "create", id]).await;
    }
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    prepare(&serving.client(&key), &sink, &sites).await;
    let (clients, client) = watch::channel(serving.client(&key));
    let (end, ended) = watch::channel(false);
    let mut feeders = JoinSet::new();
    for site in &sites {
        for _ in 0..FEEDERS {
            let feeding = feed(site.name.clone(), client.clone(), ended.clone());
            feeders.spawn(feeding);
        }
    }
    for _ in 0..KILLS {
        // Moments count from when it works.
        let ready = serving.client(&key);
        while ready.settings().list_sites(ListSitesRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let moment = rand::rng().random_range(20..700);
        // The moment is the point of the test, not a wait for something.
        tokio::time::sleep(Duration::from_millis(moment)).await;
        serving.signal(Signal::SIGKILL);
        serving.end(PATIENCE).await;
        serving = Serving::start(&data_dir.path(), &arguments).await;
        clients.send_replace(serving.client(&key));
    }
    end.send_replace(true);
    let letters: Vec<Message> = feeders.join_all().await.into_iter().flatten().collect();

    let client = serving.client(&key);
    let start = Instant::now();
    let mut states: HashMap<State, usize> = HashMap::new();
    let mut arrived: HashMap<String, usize> = HashMap::new();
    let mut finals = Vec::new();
    for letter in &letters {
        loop {
            let request = GetMessageRequest { name: letter.name.clone() };
            let message = client.send().get_message(request).await.expect("found").into_inner();
            let message = message.message.expect("set");
            if !matches!(message.state(), State::Queued | State::Sending) {
                finals.push(message);
                break;
            }
            assert!(start.elapsed() < AFTER_KILLS, "{message:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for transaction in sink.transactions() {
        *arrived.entry(transaction.message_id).or_default() += 1;
    }
    let mut doubles = 0;
    for message in &finals {
        let copies = arrived.get(&message.message_id).copied().unwrap_or(0);
        *states.entry(message.state()).or_default() += 1;
        if message.name.starts_with("sites/hold/") {
            assert!(copies <= 1, "{copies} copies with HOLD: {message:?}");
            match message.state() {
                State::Sent => assert_eq!(copies, 1, "{message:?}"),
                state => assert_eq!(state, State::Uncertain, "{message:?}"),
            }
        } else {
            assert_eq!(message.state(), State::Sent, "{message:?}");
            assert!(copies >= 1, "lost: {message:?}");
            doubles += copies - 1;
        }
    }
    let known = finals.iter().filter(|message| arrived.contains_key(&message.message_id)).count();
    assert_eq!(known, arrived.len(), "letters arrived that nobody handed in");
    println!(
        "{KILLS} kills, {} letters, {states:?}, {doubles} doubles with RESEND, {:?} until all was settled",
        letters.len(),
        start.elapsed()
    );
    assert!(letters.len() > 10 * KILLS, "too few letters: nothing was tested");
    serving.signal(Signal::SIGTERM);
    let (status, output) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{output}");
}
