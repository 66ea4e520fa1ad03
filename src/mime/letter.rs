//! A letter as its parts, before it is checked and built.

use time::OffsetDateTime;

use crate::domain::address::Mailbox;

/// A letter as its parts. Bcc is no part of it: it never stands in a header.
pub struct Composed<'a> {
    /// The From mailbox.
    pub from: &'a Mailbox,
    /// The To mailboxes.
    pub to: &'a [Mailbox],
    /// The Cc mailboxes.
    pub cc: &'a [Mailbox],
    /// Where answers go; empty = to From.
    pub reply_to: &'a [Mailbox],
    /// At most 10,000 characters; empty = no Subject field.
    pub subject: &'a str,
    /// The plain text; may be empty. Line breaks that are all LF become CRLF, everything else arrives byte for byte.
    pub text: &'a str,
    /// The HTML; may be empty. Line breaks as in `text`.
    pub html: &'a str,
    /// Files and inline pictures.
    pub attachments: &'a [Attachment<'a>],
    /// Further header fields, name and value, in this order; at most 100.
    pub headers: &'a [(String, String)],
    /// The Date.
    pub date: OffsetDateTime,
    /// The Message-ID with its angle brackets, unique in the world; made by the caller.
    pub message_id: &'a str,
}

/// A file of a letter; its content arrives byte for byte.
pub struct Attachment<'a> {
    /// At most 255 characters; may be empty.
    pub filename: &'a str,
    /// `type/subtype` with parameters; empty = `application/octet-stream`.
    ///
    /// RFC 2046 forbids to encode `message/*` and `multipart/*`. A `message/*` that is 7-bit with CRLF line ends goes as
    /// it is; anything else of these two kinds goes as `application/octet-stream`, so that its bytes survive.
    pub content_type: &'a str,
    /// The bytes; may be empty.
    pub content: &'a [u8],
    /// Set for a picture that the HTML shows as `cid:`, without angle brackets; empty for other files.
    pub content_id: &'a str,
}
