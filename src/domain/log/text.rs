//! A log as text: a line an entry, as it is downloaded and sent to a mail administrator.
//!
//! ```text
//! 2026-11-22T01:11:52.123456Z [0a1b2c3d] CLIENT -> SERVER: EHLO shop.example.com
//! ```
//!
//! The brackets hold the last digits of the session's id, which tell sessions apart that run side by side.

use std::fmt::Write as _;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Entry, EntryKind};

/// Bytes of a time, with the space behind it.
const TIME_BYTES: usize = "2026-11-22T01:11:52.123456Z ".len();
/// Bytes of a session, with the space behind it.
const SESSION_BYTES: usize = "[0a1b2c3d] ".len();
/// Bytes between the kind and the text, and at the end of the line.
const REST_BYTES: usize = ": \n".len();

/// The kind, in the words that debug outputs of mail programs use.
const fn words(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Error => "ERROR",
        EntryKind::Client => "CLIENT -> SERVER",
        EntryKind::Server => "SERVER -> CLIENT",
        EntryKind::Connection => "CONNECTION",
        EntryKind::Data => "DATA",
        EntryKind::Audit => "AUDIT",
    }
}

/// The size of an entry's line in bytes; what [`write()`] adds.
#[must_use]
pub const fn size(session: Option<Uuid>, kind: EntryKind, text_bytes: usize) -> usize {
    let session = if session.is_some() { SESSION_BYTES } else { 0 };
    TIME_BYTES + session + words(kind).len() + REST_BYTES + text_bytes
}

/// Adds the line of an entry.
pub fn write(text: &mut String, session: Option<Uuid>, entry: &Entry) {
    let time = entry.time.to_offset(time::UtcOffset::UTC);
    write_time(text, time);
    if let Some(session) = session {
        let [.., a, b, c, d] = *session.as_bytes();
        let _ = write!(text, "[{a:02x}{b:02x}{c:02x}{d:02x}] ");
    }
    text.push_str(words(entry.kind));
    text.push_str(": ");
    text.push_str(&entry.text);
    text.push('\n');
}

/// RFC 3339 in UTC with six digits of the second: always as long. Writing to a string does not fail.
fn write_time(text: &mut String, time: OffsetDateTime) {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, microsecond) = time.to_hms_micro();
    let _ = write!(
        text,
        "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z ",
        u8::from(month)
    );
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::{Entry, EntryKind, size, write};

    #[test]
    fn a_line_has_the_size_that_is_told() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_012_345_678).expect("a time");
        let session = Some(Uuid::from_u128(0x0193_5a3c_0000_7000_8000_0000_0a1b_2c3d));
        let table = [
            (session, EntryKind::Error, "no ü", "[0a1b2c3d] ERROR: no ü"),
            (session, EntryKind::Client, "EHLO x", "[0a1b2c3d] CLIENT -> SERVER: EHLO x"),
            (session, EntryKind::Server, "250 ok", "[0a1b2c3d] SERVER -> CLIENT: 250 ok"),
            (session, EntryKind::Connection, "closed", "[0a1b2c3d] CONNECTION: closed"),
            (session, EntryKind::Data, "", "[0a1b2c3d] DATA: "),
            (None, EntryKind::Audit, "key 1 read", "AUDIT: key 1 read"),
        ];
        for (session, kind, text, line) in table {
            let mut written = String::new();
            write(&mut written, session, &Entry { time, kind, text: text.to_owned() });
            assert_eq!(written, format!("2023-11-14T22:13:20.012345Z {line}\n"));
            assert_eq!(written.len(), size(session, kind, text.len()), "{line}");
        }
    }
}
