//! The letters through the MIME layer alone, without a server: proves the letters and what is expected of them.

use std::panic::catch_unwind;

use postroom::domain::address::Mailbox;
use postroom::mime::Content;
use postroom::mime::compose::{Attachment, Composed, compose};
use postroom::mime::raw::normalise;
use time::OffsetDateTime;

use crate::letters::{self, Kind, Letter};

const MESSAGE_ID: &str = "<0192f0c1-7d1a-7000-8000-0123456789ab@example.com>";

fn mailboxes(texts: &[String]) -> Vec<Mailbox> {
    texts.iter().map(|text| Mailbox::parse(text).expect(text)).collect()
}

fn composed(letter: &letters::Composed) -> Content {
    let letters::Composed { from, to, cc, bcc: _, reply_to, subject, text, html, attachments, headers } =
        letter;
    let attachments: Vec<Attachment<'_>> = attachments
        .iter()
        .map(|file| Attachment {
            filename: &file.filename,
            content_type: &file.content_type,
            content: &file.content,
            content_id: &file.content_id,
        })
        .collect();
    compose(&Composed {
        from: &Mailbox::parse(from).expect(from),
        to: &mailboxes(to),
        cc: &mailboxes(cc),
        reply_to: &mailboxes(reply_to),
        subject,
        text,
        html,
        attachments: &attachments,
        headers,
        date: OffsetDateTime::UNIX_EPOCH,
        message_id: MESSAGE_ID,
    })
    .expect("a letter")
}

/// The bytes to send; checks the recipients of a raw message on the way.
pub(crate) fn content(letter: &Letter) -> Content {
    match &letter.kind {
        Kind::Composed(one) => composed(one),
        Kind::Raw(raw) => {
            let normal = normalise(&raw.bytes, OffsetDateTime::UNIX_EPOCH, MESSAGE_ID)
                .unwrap_or_else(|violations| panic!("{}: {violations:?}", letter.name));
            let all = [&normal.to, &normal.cc, &normal.bcc].into_iter().flatten();
            let addresses: Vec<String> = all.map(|mailbox| mailbox.address.to_string()).collect();
            assert_eq!(addresses, letter.recipients, "{}", letter.name);
            assert_eq!(normal.content.utf8_headers, raw.utf8_headers, "{}", letter.name);
            normal.content
        }
    }
}

#[test]
fn all_letters_survive_the_mime_layer() {
    let letters = letters::all();
    assert!(letters.len() >= 34);
    for letter in &letters {
        letters::check(letter, &content(letter).bytes);
    }
}

#[test]
fn the_check_notices_what_is_wrong() {
    let letters: Vec<Letter> = letters::all().into_iter().filter(|letter| !letter.is_large()).collect();
    let fails = |letter: &Letter, bytes: &[u8]| catch_unwind(|| letters::check(letter, bytes)).is_err();
    for (letter, other) in letters.iter().zip(letters.iter().skip(1)) {
        assert!(fails(letter, &content(other).bytes), "{} passes for {}", other.name, letter.name);
        let bytes = content(letter).bytes;
        assert!(fails(letter, &[b"Bcc: x@example.com\r\n", &bytes[..]].concat()), "{}", letter.name);
        assert!(fails(letter, &bytes[..bytes.len() - 1]), "{}", letter.name);
        if let Kind::Raw(raw) = &letter.kind
            && !letter.bcc.is_empty()
        {
            assert!(fails(letter, &raw.bytes), "{}", letter.name);
        }
        for bcc in &letter.bcc {
            let leak = format!("X-To: {bcc}\r\n");
            assert!(fails(letter, &[leak.as_bytes(), &bytes[..]].concat()), "{}", letter.name);
        }
    }
}
