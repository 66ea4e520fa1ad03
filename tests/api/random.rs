//! A thousand letters to a server that refuses, defers and accepts at random: everybody ends in the right state, nobody
//! gets a letter twice, and the attempts tell what the server saw.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    Account, GetMessageRequest, Limits, Message, SendMessageRequest, Settings, recipient,
};
use uuid::Uuid;

use crate::eventually::eventually;
use crate::scripted::{Peer, Server};
use crate::support::{Authorised, Postroom, SITE, letter, patiently, plain_account};

const FROM: &str = "shop@example.com";
const LETTERS: usize = 1_000;
const RECIPIENTS: usize = 3;
/// Another one makes another test of it.
const SEED: u64 = 20_261_121;
/// After so many waits a recipient who is still deferred has failed.
const INTERVALS_MS: [i32; 3] = [5, 10, 20];
const SESSIONS: u32 = 8;

/// What the server told a recipient in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Taken,
    Deferred,
    Refused,
}

/// One connection for a thousand calls and more.
type Client = SendServiceClient<Authorised>;

/// A number that depends on who is asked and how often he was asked before, and so not on the order of sessions.
fn die(what: &str, address: &str, asked: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (SEED, what, address, asked).hash(&mut hasher);
    hasher.finish() % 100
}

/// What each address was told, in order.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<HashMap<String, Vec<Answer>>>>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, address: &str, answer: Answer) {
        self.lock().entry(address.to_owned()).or_default().push(answer);
    }

    fn asked(&self, address: &str) -> usize {
        self.lock().get(address).map_or(0, Vec::len)
    }
}

/// Half are taken, three in ten deferred; one letter in ten is deferred at the dot.
async fn moody(book: Book, mut peer: Peer) -> std::io::Result<()> {
    peer.say("220 moody.example ESMTP\r\n").await?;
    let mut accepted: Vec<String> = Vec::new();
    loop {
        let line = peer.line().await?;
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-moody.example\r\n250 PIPELINING\r\n",
            "MAIL" | "RSET" => {
                accepted.clear();
                "250 2.1.0 ok\r\n"
            }
            // Of the check.
            "RCPT" if line.contains(FROM) => "250 2.1.5 ok\r\n",
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1).unwrap_or_default();
                match die("rcpt", address, book.asked(address)) {
                    0..50 => {
                        accepted.push(address.to_owned());
                        "250 2.1.5 ok\r\n"
                    }
                    50..80 => {
                        book.note(address, Answer::Deferred);
                        "451 4.3.0 not in the mood\r\n"
                    }
                    _ => {
                        book.note(address, Answer::Refused);
                        "550 5.1.1 never heard of\r\n"
                    }
                }
            }
            "DATA" if accepted.is_empty() => "503 5.5.1 nobody to send to\r\n",
            "DATA" => {
                peer.say("354 go ahead\r\n").await?;
                peer.content().await?;
                let is_taken = die("dot", &accepted[0], book.asked(&accepted[0])) >= 10;
                for address in accepted.drain(..) {
                    book.note(&address, if is_taken { Answer::Taken } else { Answer::Deferred });
                }
                if is_taken { "250 2.0.0 taken\r\n" } else { "451 4.3.0 not in the mood\r\n" }
            }
            "QUIT" => return peer.say("221 2.0.0 bye\r\n").await,
            _ => "500 5.5.2 what?\r\n",
        };
        peer.say(reply).await?;
    }
}

/// What becomes of a recipient who was told this.
fn fate(answers: &[Answer]) -> Option<(recipient::State, i32)> {
    match answers {
        [before @ .., last] if before.iter().all(|answer| *answer == Answer::Deferred) => match last {
            Answer::Taken => Some((recipient::State::Sent, 250)),
            Answer::Refused => Some((recipient::State::Refused, 550)),
            Answer::Deferred => {
                (before.len() == INTERVALS_MS.len()).then_some((recipient::State::Failed, 451))
            }
        },
        _ => None,
    }
}

/// What an attempt came to in which recipients were told this.
fn outcome(answers: &[Answer]) -> Outcome {
    let any = |answer| answers.contains(&answer);
    match (any(Answer::Taken), any(Answer::Deferred), any(Answer::Refused)) {
        (true, false, false) => Outcome::Sent,
        (true, ..) => Outcome::PartiallySent,
        (false, true, _) => Outcome::Retry,
        (false, false, _) => Outcome::Refused,
    }
}

fn address(number: usize, recipient: usize) -> String {
    format!("l{number}r{recipient}@example.org")
}

async fn send(client: &Client, number: usize) -> String {
    let to: Vec<String> = (0..RECIPIENTS).map(|recipient| address(number, recipient)).collect();
    let message = letter(FROM, &to.iter().map(String::as_str).collect::<Vec<_>>());
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: Uuid::now_v7().to_string(),
        ..SendMessageRequest::default()
    };
    let taken = patiently(async || client.clone().send_message(request.clone()).await).await;
    taken.expect("taken").message.expect("set").name
}

/// Holds a letter that is final against what the server told its recipients; the state it must have.
fn compare(message: &Message, told: &[Vec<Answer>]) -> State {
    let mut states = Vec::new();
    for (recipient, answers) in message.recipients.iter().zip(told) {
        let code = recipient.reply.as_ref().map_or(0, |reply| reply.code);
        assert_eq!(Some((recipient.state(), code)), fate(answers), "{answers:?} {message:?}");
        states.push(recipient.state());
    }
    // Each attempt asks everybody who is still pending; those who were asked less often were done before.
    let attempts = told.iter().map(Vec::len).max().unwrap_or_default();
    assert_eq!(message.attempts.len(), attempts, "{told:?} {message:?}");
    for (place, attempt) in message.attempts.iter().enumerate() {
        assert_eq!(usize::try_from(attempt.number), Ok(place + 1), "{message:?}");
        let answers: Vec<Answer> = told.iter().filter_map(|answers| answers.get(place)).copied().collect();
        assert_eq!(attempt.outcome(), outcome(&answers), "attempt {}: {answers:?} {message:?}", place + 1);
    }
    match states.iter().filter(|state| **state == recipient::State::Sent).count() {
        0 => State::Failed,
        RECIPIENTS => State::Sent,
        _ => State::PartiallySent,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_what_the_server_decides_and_once() {
    let book = Book::default();
    let server = {
        let book = book.clone();
        Server::scripted(move |peer| moody(book.clone(), peer)).await
    };
    let postroom = Postroom::start().await;
    let limits = Some(Limits { max_connections: Some(SESSIONS), ..Limits::default() });
    postroom.create_account(Account { limits, ..plain_account(&server, FROM) }).await;
    let millis = |millis: i32| prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 };
    let retry_intervals = INTERVALS_MS.map(millis).to_vec();
    postroom.change_settings(Settings { retry_intervals, ..Settings::default() }).await;

    let client = postroom.send();
    // Several callers at once.
    let caller = async |first: usize| {
        let mut names = Vec::new();
        for number in (first..LETTERS).step_by(4) {
            names.push((number, send(&client, number).await));
        }
        names
    };
    let (a, b, c, d) = tokio::join!(caller(0), caller(1), caller(2), caller(3));
    let mut kinds: HashMap<State, usize> = HashMap::new();
    let mut fates: HashMap<recipient::State, usize> = HashMap::new();
    for (number, name) in [a, b, c, d].concat() {
        let message = eventually(&name, async || {
            let request = GetMessageRequest { name: name.clone() };
            let message = client.clone().get_message(request).await.expect("found").into_inner();
            let message = message.message.expect("set");
            message.final_time.is_some().then_some(message)
        })
        .await;
        let told: Vec<Vec<Answer>> = {
            let book = book.lock();
            (0..RECIPIENTS).map(|recipient| book[&address(number, recipient)].clone()).collect()
        };
        assert_eq!(message.state(), compare(&message, &told), "{message:?}");
        *kinds.entry(message.state()).or_default() += 1;
        for recipient in &message.recipients {
            *fates.entry(recipient.state()).or_default() += 1;
        }
    }
    // The server was moody indeed.
    assert!(
        [State::Sent, State::PartiallySent, State::Failed].iter().all(|state| kinds[state] > 20),
        "{kinds:?}"
    );
    for state in [recipient::State::Sent, recipient::State::Refused, recipient::State::Failed] {
        assert!(fates[&state] > 20, "{fates:?}");
    }
    let book = book.lock();
    assert_eq!(book.len(), LETTERS * RECIPIENTS);
    for (address, answers) in book.iter() {
        let copies = answers.iter().filter(|answer| **answer == Answer::Taken).count();
        assert!(copies <= 1, "{address}: {answers:?}");
    }
    let connections = server.journal().connections;
    assert!(connections > 2, "{connections} connections are no test of several sessions");
}
