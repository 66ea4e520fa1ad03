//! The letters: 4 KiB of random text each, so that nothing on the way can compress it.

use postroom::api::proto::message::Content;
use postroom::api::proto::{Composed, Message};
use rand::RngExt as _;

/// Size of a letter's text.
pub(crate) const TEXT_BYTES: usize = 4096;
const LINE_BYTES: usize = 72;
/// Texts that differ; letters take them in turn.
const DIFFERENT: usize = 256;

/// Letters to send.
pub(crate) struct Letters(Vec<String>);

impl Letters {
    pub(crate) fn new() -> Self {
        Self((0..DIFFERENT).map(|_| text()).collect())
    }

    /// A letter for Postroom to put together, from this address.
    pub(crate) fn message(&self, number: usize, from: &str) -> Message {
        let composed = Composed {
            subject: format!("Letter {number}"),
            text: self.text(number).to_owned(),
            ..Composed::default()
        };
        Message {
            from_address: from.to_owned(),
            to: vec![recipient(number)],
            content: Some(Content::Composed(composed)),
            ..Message::default()
        }
    }

    /// The text alone.
    pub(crate) fn text(&self, number: usize) -> &str {
        &self.0[number % DIFFERENT]
    }

    /// A letter with its headers, lines ended by line feeds, for those who take it as it is.
    pub(crate) fn file(&self, number: usize) -> String {
        format!(
            "From: {}\nTo: {}\nSubject: Letter {number}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{}",
            sender(0),
            recipient(number),
            self.text(number)
        )
    }
}

/// The address of an account.
pub(crate) fn sender(account: usize) -> String {
    format!("account{account}@bench.example")
}

/// Whom a letter goes to.
pub(crate) fn recipient(number: usize) -> String {
    format!("reader{number}@customers.example")
}

fn text() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+ ";
    let mut random = rand::rng();
    let mut text = String::with_capacity(TEXT_BYTES);
    while text.len() < TEXT_BYTES {
        // No line begins with a dot or From, none ends with a blank.
        text.push('x');
        let length = LINE_BYTES.min((TEXT_BYTES - text.len()).saturating_sub(2));
        text.extend((0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
        text.push_str("x\n");
    }
    text
}
