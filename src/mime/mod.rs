//! Letters as bytes: built from their parts (`compose`), or taken as they are (`raw`).
//! The only place that knows lettre and mail-parser; knows nothing of gRPC, SQL and sockets.
//!
//! lettre encodes bodies. Header fields and the tree of parts are written here, since lettre never folds a long `To`,
//! lets control characters into names, and holds a large letter in memory several times.

mod body;
mod check;
pub mod compose;
mod content_type;
mod field;
mod letter;
mod mailboxes;
pub mod raw;
#[cfg(test)]
mod tests;
pub mod words;

pub(crate) use self::check::bad_parts;

/// Longest line in bytes without its CRLF (RFC 5322 2.1.1).
pub const MAX_LINE_BYTES: usize = 998;

/// A letter ready for DATA: every line ends with CRLF and is at most [`MAX_LINE_BYTES`] long, no CR or LF stands alone.
/// Dots at line starts are not doubled yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes; they end with CRLF.
    pub bytes: Vec<u8>,
    /// The Message-ID with its angle brackets.
    pub message_id: String,
    /// The body has bytes over 127: the server must offer 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// The header section has bytes over 127: the server must offer SMTPUTF8 (RFC 6531).
    pub utf8_headers: bool,
}

impl std::fmt::Debug for Content {
    /// Without the bytes: letters are private, and Debug ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("bytes", &self.bytes.len())
            .field("message_id", &self.message_id)
            .field("eight_bit", &self.eight_bit)
            .field("utf8_headers", &self.utf8_headers)
            .finish()
    }
}

/// Date as RFC 5322 3.3 writes it, in UTC: `Sat, 21 Nov 2026 19:06:00 +0000`.
fn rfc5322_date(date: time::OffsetDateTime) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = date.to_offset(time::UtcOffset::UTC);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} +0000",
        DAYS[usize::from(date.weekday().number_days_from_monday())],
        date.day(),
        MONTHS[usize::from(u8::from(date.month())) - 1],
        date.year(),
        date.hour(),
        date.minute(),
        date.second(),
    )
}
