//! Who delivers may stop a letter before any of its transactions, and before any dot.

use std::sync::Mutex;

use postroom::domain::outcome::{Class, RecipientResult, Scope};
use postroom::domain::reply::Reply;
use postroom::smtp::{Gate, Letter};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{CONTENT, USER, addresses, classes, open, plain, send, transcript};

/// Lets so many transactions and dots through, two recipients each, and notes what it was asked.
struct Turnstile {
    transactions: usize,
    dots: usize,
    reach: Scope,
    asked: Mutex<Vec<String>>,
}

impl Turnstile {
    fn new(transactions: usize, dots: usize, reach: Scope) -> Self {
        Self { transactions, dots, reach, asked: Mutex::default() }
    }

    fn ask(&self, what: &str, question: String, allowed: usize) -> Result<(), Reply> {
        let mut asked = self.asked.lock().expect("no panic");
        let before = asked.iter().filter(|earlier| earlier.starts_with(what)).count();
        asked.push(question);
        if before < allowed { Ok(()) } else { Err(Reply::absent("not now")) }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Gate for Turnstile {
    fn max_recipients(&self) -> usize {
        2
    }

    async fn transaction(&self, recipients: usize) -> Result<(), Reply> {
        self.ask("transaction", format!("transaction of {recipients}"), self.transactions)
    }

    async fn dot(&self, recipients: &[usize]) -> Result<(), Reply> {
        self.ask("dot", format!("dot for {recipients:?}"), self.dots)
    }

    fn reach(&self, _result: &RecipientResult) -> Scope {
        self.reach
    }
}

const FIVE: [&str; 5] = ["a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"];

async fn deliver(server: &Server, gate: &Turnstile) -> (Vec<RecipientResult>, bool) {
    let mut session = open(&plain(server)).await;
    let (sender, recipients) = (&addresses(&[USER])[0], &addresses(&FIVE));
    let letter = Letter {
        sender,
        recipients,
        content: CONTENT,
        eight_bit: false,
        utf8_headers: false,
        is_private: false,
    };
    let results = session.deliver_through(gate, &letter, &transcript()).await;
    let usable = session.is_usable();
    if usable {
        assert_eq!(classes(&send(&mut session, &["next@example.com"]).await), [Class::Sent]);
    }
    (results, usable)
}

#[tokio::test]
async fn each_transaction_and_each_dot_is_asked_for() {
    use Class::{Retry, Sent};
    let server = Behaviour::default().on("RCPT TO:<c@", "451 4.3.0 later\r\n").start().await;
    let gate = Turnstile::new(9, 9, Scope::Recipient);
    let (results, _) = deliver(&server, &gate).await;
    assert_eq!(classes(&results), [Sent, Sent, Retry, Sent, Sent]);
    let expected = [
        "transaction of 2",
        "dot for [0, 1]",
        "transaction of 2",
        "dot for [3]",
        "transaction of 1",
        "dot for [4]",
    ];
    assert_eq!(gate.asked(), expected);
}

#[tokio::test]
async fn whoever_has_no_turn_is_untried_and_the_session_goes_on() {
    use Class::{Sent, Untried};
    let server = Behaviour::default().start().await;
    let gate = Turnstile::new(1, 9, Scope::Recipient);
    let (results, usable) = deliver(&server, &gate).await;
    assert_eq!(classes(&results), [Sent, Sent, Untried, Untried, Untried]);
    assert!(usable);
    let mails = server.journal().commands.iter().filter(|command| command.starts_with("MAIL")).count();
    assert_eq!(mails, 2, "one of this letter, one of the next");
}

#[tokio::test]
async fn without_leave_the_dot_is_not_written() {
    use Class::{Sent, Untried};
    let server = Behaviour::default().start().await;
    let gate = Turnstile::new(9, 1, Scope::Recipient);
    let (results, usable) = deliver(&server, &gate).await;
    assert_eq!(classes(&results), [Sent, Sent, Untried, Untried, Untried]);
    assert!(!usable, "the server waits for the end of a letter that it does not get");
    let ended = server.wait_until(|journal| journal.ended == journal.connections).await;
    assert_eq!(ended.letters.len(), 1);
}

#[tokio::test]
async fn a_result_may_reach_the_rest_of_the_letter() {
    for (reach, rest) in [(Scope::Message, Class::Refused), (Scope::Account, Class::Untried)] {
        let server = Behaviour::default().on("RCPT TO:<b@", "550 5.4.5 no\r\n").start().await;
        let gate = Turnstile::new(9, 9, reach);
        let (results, _) = deliver(&server, &gate).await;
        assert_eq!(classes(&results), [Class::Sent, Class::Refused, rest, rest, rest], "{reach:?}");
        assert_eq!(gate.asked().len(), 2, "one transaction, one dot");
    }
}
