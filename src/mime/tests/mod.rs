//! Tests of whole letters: what is composed or normalised is parsed again and compared.

mod compose;
mod properties;
mod raw;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Encoding, Message, MessageParser, MessagePart};
use time::OffsetDateTime;

use crate::domain::address::Mailbox;
use crate::mime::MAX_LINE_BYTES;
use crate::mime::compose::Composed;

const MESSAGE_ID: &str = "<0192f0c1-7d1a-7000-8000-0123456789ab@example.com>";

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect(text)
}

/// A letter with nothing but From, Date and Message-ID.
fn empty(from: &Mailbox) -> Composed<'_> {
    Composed {
        from,
        to: &[],
        cc: &[],
        reply_to: &[],
        subject: "",
        text: "",
        html: "",
        attachments: &[],
        headers: &[],
        date: OffsetDateTime::UNIX_EPOCH,
        message_id: MESSAGE_ID,
    }
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    MessageParser::default().parse(bytes).expect("a message")
}

/// Every line within the limit, ended by CRLF, no CR or LF alone.
fn assert_canonical(bytes: &[u8]) {
    assert!(bytes.ends_with(b"\r\n"), "does not end with CRLF");
    for line in bytes[..bytes.len() - 2].split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= MAX_LINE_BYTES, "a line of {} bytes", line.len());
        assert!(!line.contains(&b'\r'), "a bare CR");
    }
    let bare = bytes.iter().zip(&bytes[1..]).any(|(&before, &byte)| byte == b'\n' && before != b'\r');
    assert!(!bare && bytes[0] != b'\n', "a bare LF");
}

/// The header section as text.
fn header(bytes: &[u8]) -> String {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line");
    String::from_utf8(bytes[..end + 2].to_vec()).expect("UTF-8")
}

/// The names of the header fields in their order, lower case.
fn field_names(bytes: &[u8]) -> Vec<String> {
    let header = header(bytes);
    let fields = header.lines().filter(|line| !line.starts_with([' ', '\t']));
    fields.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// The decoded bytes of a part, without any change of charset.
fn decoded(message: &Message<'_>, part: &MessagePart<'_>) -> Vec<u8> {
    let raw = &message.raw_message[part.offset_body as usize..part.offset_end as usize];
    match part.encoding {
        Encoding::None => raw.to_vec(),
        Encoding::QuotedPrintable => part.contents().to_vec(),
        Encoding::Base64 => {
            let encoded: Vec<u8> = raw.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            STANDARD.decode(encoded).expect("base64")
        }
    }
}
