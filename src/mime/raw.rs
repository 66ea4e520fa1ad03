//! A complete RFC 5322 message, taken as it is: signatures over it stay valid. Only Bcc goes, a missing Date or
//! Message-ID is added on top, and line ends become CRLF.

use time::OffsetDateTime;

use crate::domain::address::Mailbox;
use crate::domain::error::Violation;
use crate::mime::mailboxes::parse;
use crate::mime::{Content, MAX_LINE_BYTES, rfc5322_date};

/// Longest header section in bytes; servers refuse far shorter ones (Postfix keeps 100 KiB).
const MAX_HEADER_SECTION_BYTES: usize = 1024 * 1024;

/// A raw message and what its header says.
#[derive(Debug)]
pub struct Raw {
    /// The bytes to send.
    pub content: Content,
    /// The one mailbox in From.
    pub from: Mailbox,
    /// The mailboxes in To, groups included.
    pub to: Vec<Mailbox>,
    /// The mailboxes in Cc.
    pub cc: Vec<Mailbox>,
    /// The mailboxes in Bcc, which is no longer in the content. Resent fields are not read.
    pub bcc: Vec<Mailbox>,
}

/// Makes a raw message ready to send; `date` and `message_id` (with angle brackets) are used where it has none.
///
/// Bare LF and bare CR become CRLF, and the last line gets one. Lines over 998 bytes are refused: to recode them would
/// break signatures.
///
/// # Errors
/// All that is wrong with the message, with the path `raw`.
pub fn normalise(bytes: &[u8], date: OffsetDateTime, message_id: &str) -> Result<Raw, Vec<Violation>> {
    let mut violations = Violations(Vec::new());
    let (header, body) = split(bytes, &mut violations);
    let fields = fields(header, &mut violations);
    let from = from_mailbox(&fields, &mut violations);
    let to = mailboxes(&fields, "To", &mut violations);
    let cc = mailboxes(&fields, "Cc", &mut violations);
    let bcc = mailboxes(&fields, "Bcc", &mut violations);
    let own_message_id = own_message_id(&fields, &mut violations);

    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32 + 256);
    if !fields.iter().any(|field| field.is("Date")) {
        out.extend_from_slice(format!("Date: {}\r\n", rfc5322_date(date)).as_bytes());
    }
    if own_message_id.is_none() {
        out.extend_from_slice(format!("Message-ID: {message_id}\r\n").as_bytes());
    }
    for field in fields.iter().filter(|field| !field.is("Bcc") && !field.is("Resent-Bcc")) {
        for line in &field.lines {
            push_line(&mut out, line);
        }
    }
    let utf8_headers = !out.is_ascii();
    if utf8_headers && std::str::from_utf8(&out).is_err() {
        violations.add("has header fields that are neither ASCII nor UTF-8");
    }
    push_line(&mut out, b"");
    let body_start = out.len();
    for line in Lines(body) {
        push_line(&mut out, line);
    }
    let eight_bit = !out[body_start..].is_ascii();
    if let Some(line) = first_long_line(bytes) {
        violations.add(format!("line {line} is longer than 998 bytes"));
    }
    match from {
        Some(from) if violations.0.is_empty() => {
            let message_id = own_message_id.unwrap_or_else(|| message_id.to_owned());
            Ok(Raw {
                content: Content { bytes: out, message_id, eight_bit, utf8_headers },
                from,
                to,
                cc,
                bcc,
            })
        }
        _ => Err(violations.0),
    }
}

/// All of them concern the one field.
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, description: impl Into<String>) {
        self.0.push(Violation::new("raw", description));
    }
}

/// Lines without their ends; CRLF, LF and CR end a line.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let Some(end) = self.0.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            return Some(std::mem::take(&mut self.0));
        };
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        Some(line)
    }
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

fn first_long_line(bytes: &[u8]) -> Option<usize> {
    Lines(bytes).position(|line| line.len() > MAX_LINE_BYTES).map(|index| index + 1)
}

/// The lines of the header section, and the body behind the empty line; without an empty line all is header.
fn split<'a>(bytes: &'a [u8], violations: &mut Violations) -> (Vec<&'a [u8]>, &'a [u8]) {
    let mut lines = Lines(bytes);
    let mut header = Vec::new();
    while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
        if bytes.len() - lines.0.len() > MAX_HEADER_SECTION_BYTES {
            violations.add("has a header section of more than 1 MiB");
            break;
        }
        header.push(line);
    }
    (header, lines.0)
}

/// A header field with its continuation lines.
struct Field<'a> {
    name: &'a [u8],
    lines: Vec<&'a [u8]>,
}

impl Field<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// What stands behind the colon, folded as it is, ended by CRLF.
    fn value(&self) -> Vec<u8> {
        let mut value = Vec::new();
        self.lines.iter().for_each(|line| push_line(&mut value, line));
        let colon = value.iter().position(|&b| b == b':').map_or(0, |at| at + 1);
        value.split_off(colon)
    }
}

fn fields<'a>(header: Vec<&'a [u8]>, violations: &mut Violations) -> Vec<Field<'a>> {
    let mut fields: Vec<Field<'a>> = Vec::new();
    for (index, line) in header.into_iter().enumerate() {
        if line.contains(&0) {
            violations.add(format!("line {} of the header has a NUL", index + 1));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            match fields.last_mut() {
                Some(field) => field.lines.push(line),
                None => violations.add("begins with a continuation line"),
            }
            continue;
        }
        let name = line.iter().position(|&b| b == b':').map(|colon| line[..colon].trim_ascii_end());
        match name {
            Some(name) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) => {
                fields.push(Field { name, lines: vec![line] });
            }
            _ => {
                violations.add(format!("line {} of the header is no header field", index + 1));
                return fields;
            }
        }
    }
    fields
}

fn from_mailbox(fields: &[Field<'_>], violations: &mut Violations) -> Option<Mailbox> {
    let mut from = mailboxes(fields, "From", violations);
    match fields.iter().filter(|field| field.is("From")).count() {
        0 => violations.add("has no From"),
        1 if from.len() == 1 => return from.pop(),
        // A bad address was told already.
        1 if from.is_empty() && !violations.0.is_empty() => {}
        _ => violations.add("must have one From with one mailbox"),
    }
    None
}

/// The mailboxes of all fields of a name.
fn mailboxes(fields: &[Field<'_>], name: &str, violations: &mut Violations) -> Vec<Mailbox> {
    let mut found = Vec::new();
    for field in fields.iter().filter(|field| field.is(name)) {
        for (index, mailbox) in parse(&field.value()).into_iter().enumerate() {
            match mailbox {
                Ok(mailbox) => found.push(mailbox),
                Err(error) => violations.add(format!("{name}: address {} {error}", index + 1)),
            }
        }
    }
    found
}

/// The Message-ID in the header. One without angle brackets stays so in the header; it gets them here.
fn own_message_id(fields: &[Field<'_>], violations: &mut Violations) -> Option<String> {
    let field = fields.iter().find(|field| field.is("Message-ID"))?;
    let value = field.value();
    let value = String::from_utf8_lossy(&value);
    let id = value.find('<').and_then(|open| value[open + 1..].split_once('>')).map_or(&*value, |(id, _)| id);
    let id: String = id.split_whitespace().collect();
    if id.is_empty() || id.contains(char::is_control) {
        violations.add("has a Message-ID that is not valid");
    }
    Some(format!("<{id}>"))
}
