//! What arrived, compared with what had to arrive.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Address, Encoding, Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::{Composed, Kind, Letter, Part};

/// Longest line without its CRLF (RFC 5322 2.1.1).
const MAX_LINE_BYTES: usize = 998;
/// Fields that servers on the way put on top.
const TRACE_FIELDS: [&[u8]; 3] = [b"received:", b"return-path:", b"delivered-to:"];

/// Compares the bytes that arrived (without dot-stuffing) with the letter; panics where they differ.
pub(crate) fn check(letter: &Letter, arrived: &[u8]) {
    let name = letter.name;
    assert_lines(name, arrived);
    let bytes = without_trace(arrived);
    let header_end = position(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
    let header = String::from_utf8_lossy(&bytes[..header_end]).to_lowercase();
    for line in header.lines() {
        assert!(!line.starts_with("bcc") && !line.starts_with("resent-bcc"), "{name}: a Bcc header");
    }
    for bcc in &letter.bcc {
        assert!(!header.contains(&bcc.to_lowercase()), "{name}: a Bcc address in the header");
    }

    let message = MessageParser::default().parse(bytes).unwrap_or_else(|| panic!("{name}: no message"));
    assert!(
        message.date().is_some() && message.message_id().is_some(),
        "{name}: Date or Message-ID is missing"
    );
    assert_eq!(message.subject().unwrap_or_default(), letter.subject, "{name}: subject");
    match &letter.kind {
        Kind::Composed(composed) => check_header(name, composed, &message, bytes),
        Kind::Raw(raw) => {
            assert!(bytes.ends_with(&raw.kept), "{name}: the raw message was changed");
            let added = String::from_utf8_lossy(&bytes[..bytes.len() - raw.kept.len()]).to_lowercase();
            let own = |line: &str| line.starts_with("date: ") || line.starts_with("message-id: ");
            assert!(added.lines().all(own), "{name}: more than Date and Message-ID was added");
        }
    }
    check_parts(letter, &message);
}

fn check_header(name: &str, composed: &Composed, message: &Message<'_>, bytes: &[u8]) {
    assert!(bytes.is_ascii(), "{name}: a composed letter is 7-bit");
    for (field, got, expected) in [
        ("From", message.from(), std::slice::from_ref(&composed.from)),
        ("To", message.to(), &composed.to[..]),
        ("Cc", message.cc(), &composed.cc[..]),
        ("Reply-To", message.reply_to(), &composed.reply_to[..]),
    ] {
        let got = got.map(mailboxes).unwrap_or_default();
        let expected: Vec<_> = expected.iter().map(|text| mailbox(text)).collect();
        assert_eq!(got, expected, "{name}: {field}");
    }
    for (field, value) in &composed.headers {
        let raw = message.header_raw(field.as_str()).unwrap_or_else(|| panic!("{name}: {field} is missing"));
        let unfolded = raw.replace("\r\n", "");
        let got = postroom::mime::words::decode(unfolded.trim());
        assert_eq!(got, *value, "{name}: {field}");
    }
}

/// Name and address of all mailboxes, groups opened.
fn mailboxes(parsed: &Address<'_>) -> Vec<(String, String)> {
    parsed
        .iter()
        .map(|one| (one.name().unwrap_or_default().to_owned(), one.address().unwrap_or_default().to_owned()))
        .collect()
}

fn mailbox(text: &str) -> (String, String) {
    let mailbox = postroom::domain::address::Mailbox::parse(text).expect(text);
    (mailbox.name.unwrap_or_default(), mailbox.address.to_string())
}

fn check_parts(letter: &Letter, message: &Message<'_>) {
    let name = letter.name;
    let leaves: Vec<&MessagePart<'_>> =
        message.parts.iter().filter(|part| !matches!(part.body, PartType::Multipart(_))).collect();
    let types = |parts: &[Part]| parts.iter().map(|p| p.content_type.clone()).collect::<Vec<_>>().join(" ");
    let got: Vec<Part> = leaves.iter().map(|part| arrived_part(message, part)).collect();
    assert_eq!(types(&got), types(&letter.parts), "{name}: parts");
    for (index, (got, expected)) in got.iter().zip(&letter.parts).enumerate() {
        assert_eq!(got.filename, expected.filename, "{name}: part {index}");
        assert_eq!(got.content_id, expected.content_id, "{name}: part {index}");
        // Not assert_eq: 20 MiB of numbers help nobody.
        assert!(
            got.bytes == expected.bytes,
            "{name}: part {index} has {} bytes, expected {}; first difference at {:?}",
            got.bytes.len(),
            expected.bytes.len(),
            got.bytes.iter().zip(&expected.bytes).position(|(a, b)| a != b),
        );
        if expected.text.is_some() {
            assert_eq!(got.text, expected.text, "{name}: part {index} as text");
        }
    }
}

fn arrived_part(message: &Message<'_>, part: &MessagePart<'_>) -> Part {
    let content_type = part.content_type().map_or_else(
        || "text/plain".to_owned(),
        |t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()).to_lowercase(),
    );
    let body = &message.raw_message[part.offset_body as usize..part.offset_end as usize];
    let bytes = match part.encoding {
        Encoding::None => body.to_vec(),
        Encoding::QuotedPrintable => quoted(body),
        Encoding::Base64 => {
            let encoded: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            STANDARD.decode(encoded).expect("base64")
        }
    };
    Part {
        content_type,
        filename: part.attachment_name().unwrap_or_default().to_owned(),
        content_id: part.content_id().unwrap_or_default().to_owned(),
        bytes,
        text: part.text_contents().map(str::to_owned),
    }
}

/// Quoted-printable into bytes; mail-parser gives it only behind the charset.
fn quoted(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body;
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'=', [b'\r', b'\n', behind @ ..]) => behind,
            (b'=', [high, low, behind @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("ASCII");
                bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                behind
            }
            _ => {
                bytes.push(*first);
                behind
            }
        };
    }
    bytes
}

fn assert_lines(name: &str, bytes: &[u8]) {
    assert!(bytes.ends_with(b"\r\n"), "{name}: the last line has no end");
    for line in bytes[..bytes.len() - 1].split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or_else(|| panic!("{name}: a bare LF"));
        assert!(!line.contains(&b'\r'), "{name}: a bare CR");
        assert!(line.len() <= MAX_LINE_BYTES, "{name}: a line of {} bytes", line.len());
    }
}

/// The message below the trace fields of the servers on its way.
fn without_trace(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    let mut in_trace = false;
    while let Some(end) = position(rest, b"\r\n") {
        let line = rest[..end].to_ascii_lowercase();
        let continued = line.starts_with(b" ") || line.starts_with(b"\t");
        in_trace =
            if continued { in_trace } else { TRACE_FIELDS.iter().any(|field| line.starts_with(field)) };
        if !in_trace {
            break;
        }
        rest = &rest[end + 2..];
    }
    rest
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
