//! What a composed letter may hold: every bad field is found and named.

use crate::domain::address::Mailbox;
use crate::domain::error::Violation;
use crate::mime::content_type::ContentType;
use crate::mime::letter::{Attachment, Composed};

/// Longest subject in characters; the longest line people see is a fraction of it.
const MAX_SUBJECT_CHARS: usize = 10_000;
/// Most extra header fields.
const MAX_HEADERS: usize = 100;
/// Longest name of a header field in bytes, so that it fits into a line of 78 with its colon.
const MAX_HEADER_NAME_BYTES: usize = 76;
/// Longest value of an extra header field in bytes.
const MAX_HEADER_VALUE_BYTES: usize = 10_000;
/// Longest file name in characters; file systems end there.
const MAX_FILENAME_CHARS: usize = 255;
/// Longest content id in bytes, so that its field is one short line.
const MAX_CONTENT_ID_BYTES: usize = 250;
/// Most attachments; each costs header lines and work in every mail program.
const MAX_ATTACHMENTS: usize = 1_000;

/// Fields that Postroom writes itself, or that tell how a letter travelled; lower case.
const OWN_HEADERS: [&str; 18] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "received",
    "return-path",
    "delivered-to",
    "dkim-signature",
    "domainkey-signature",
    "authentication-results",
    "received-spf",
    "apparently-to",
];
/// Families of such fields; lower case.
const OWN_HEADER_PREFIXES: [&str; 3] = ["content-", "resent-", "arc-"];

/// Checks a letter; gives the content types of its attachments in their order.
///
/// # Errors
/// All violations, in the order of the fields.
pub(super) fn check(letter: &Composed<'_>) -> Result<Vec<ContentType>, Vec<Violation>> {
    let mut violations = Vec::new();
    check_name(letter.from, "from_address", &mut violations);
    for (list, path) in [(letter.to, "to"), (letter.cc, "cc"), (letter.reply_to, "composed.reply_to")] {
        for (index, mailbox) in list.iter().enumerate() {
            check_name(mailbox, &format!("{path}[{index}]"), &mut violations);
        }
    }
    let (content_types, of_parts) = check_parts(letter.subject, letter.attachments, letter.headers);
    violations.extend(of_parts);
    if violations.is_empty() { Ok(content_types) } else { Err(violations) }
}

/// What is wrong with the parts of a letter that are no addresses, so that it can be told together with bad ones.
pub(crate) fn bad_parts(
    subject: &str,
    attachments: &[Attachment<'_>],
    headers: &[(String, String)],
) -> Vec<Violation> {
    check_parts(subject, attachments, headers).1
}

/// The content types of the attachments that are right, and all violations.
fn check_parts(
    subject: &str,
    attachments: &[Attachment<'_>],
    headers: &[(String, String)],
) -> (Vec<ContentType>, Vec<Violation>) {
    let mut violations = Vec::new();
    if subject.contains(char::is_control) {
        violations.push(no_control("composed.subject"));
    }
    if subject.chars().count() > MAX_SUBJECT_CHARS {
        violations.push(Violation::new("composed.subject", "must be at most 10,000 characters"));
    }
    let content_types = check_attachments(attachments, &mut violations);
    check_headers(headers, &mut violations);
    (content_types, violations)
}

fn no_control(field: impl Into<String>) -> Violation {
    Violation::new(field, "must not contain control characters")
}

fn check_name(mailbox: &Mailbox, path: &str, violations: &mut Vec<Violation>) {
    if mailbox.name.as_deref().is_some_and(|name| name.contains(char::is_control)) {
        violations.push(no_control(path));
    }
}

fn check_attachments(attachments: &[Attachment<'_>], violations: &mut Vec<Violation>) -> Vec<ContentType> {
    if attachments.len() > MAX_ATTACHMENTS {
        violations.push(Violation::new("composed.attachments", "must be at most 1,000"));
        return Vec::new();
    }
    let mut content_types = Vec::with_capacity(attachments.len());
    for (index, attachment) in attachments.iter().enumerate() {
        let Attachment { filename, content_type, content: _, content_id } = attachment;
        let path = |field: &str| format!("composed.attachments[{index}].{field}");
        if filename.contains(char::is_control) {
            violations.push(no_control(path("filename")));
        }
        if filename.chars().count() > MAX_FILENAME_CHARS {
            violations.push(Violation::new(path("filename"), "must be at most 255 characters"));
        }
        match ContentType::parse(content_type) {
            Ok(content_type) => content_types.push(content_type),
            Err(why) => violations.push(Violation::new(path("content_type"), why)),
        }
        let id = bare_content_id(content_id);
        if !id.bytes().all(|b| b.is_ascii_graphic() && !b"<>()\"\\,;:[]".contains(&b)) {
            violations
                .push(Violation::new(path("content_id"), "must be letters, digits and marks without spaces"));
        } else if id.len() > MAX_CONTENT_ID_BYTES {
            violations.push(Violation::new(path("content_id"), "must be at most 250 bytes"));
        } else if !id.is_empty() && attachments[..index].iter().any(|a| bare_content_id(a.content_id) == id) {
            violations.push(Violation::new(path("content_id"), "must not occur twice in a letter"));
        }
    }
    content_types
}

/// A content id without the angle brackets that some callers write.
pub(super) fn bare_content_id(id: &str) -> &str {
    id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or(id)
}

fn check_headers(headers: &[(String, String)], violations: &mut Vec<Violation>) {
    if headers.len() > MAX_HEADERS {
        violations.push(Violation::new("composed.headers", "must be at most 100"));
        return;
    }
    for (index, (name, value)) in headers.iter().enumerate() {
        let path = |field: &str| format!("composed.headers[{index}].{field}");
        let lower = name.to_ascii_lowercase();
        // ftext of RFC 5322 2.2: printable ASCII without the colon.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            violations
                .push(Violation::new(path("name"), "must be printable ASCII without spaces and colons"));
        } else if name.len() > MAX_HEADER_NAME_BYTES {
            violations.push(Violation::new(path("name"), "must be at most 76 bytes"));
        } else if OWN_HEADERS.contains(&lower.as_str())
            || OWN_HEADER_PREFIXES.iter().any(|p| lower.starts_with(p))
        {
            violations
                .push(Violation::new(path("name"), "is a field of Postroom's own and cannot be set here"));
        }
        if value.trim().is_empty() {
            violations.push(Violation::new(path("value"), "must not be empty"));
        } else if value.contains(char::is_control) {
            violations.push(no_control(path("value")));
        } else if value.len() > MAX_HEADER_VALUE_BYTES {
            violations.push(Violation::new(path("value"), "must be at most 10,000 bytes"));
        }
    }
}
