//! Mailboxes as callers give them: `Name <address>` or `address`, the name maybe in encoded words (RFC 2047).

use crate::api::fields::Violations;
use crate::domain::address::{AddressError, Mailbox};
use crate::mime::words;

/// One mailbox, its name decoded.
pub(super) fn parse(text: &str) -> Result<Mailbox, AddressError> {
    let mut mailbox = Mailbox::parse(text)?;
    mailbox.name = mailbox.name.map(|name| words::decode(&name));
    Ok(mailbox)
}

/// The mailboxes of a repeated field.
pub(super) fn parse_all(field: &str, texts: &[String], violations: &mut Violations) -> Vec<Mailbox> {
    let parse = |(index, text): (usize, &String)| violations.take(&format!("{field}[{index}]"), parse(text));
    texts.iter().enumerate().filter_map(parse).collect()
}
