//! Address lists of a raw header: groups, comments, folding and encoded words in any charset, into the domain's
//! mailboxes.

use mail_parser::parsers::MessageStream;
use mail_parser::{Addr, Address as Parsed, HeaderValue};

use crate::domain::address::{Address, AddressError, Mailbox};

/// Longest display name in characters, as for mailboxes in a request.
const MAX_NAME_CHARS: usize = 256;

/// Parses the value of an address field that ends with a line break; one result for each mailbox, groups opened.
pub(super) fn parse(value: &[u8]) -> Vec<Result<Mailbox, AddressError>> {
    match MessageStream::new(value).parse_address() {
        HeaderValue::Address(Parsed::List(list)) => list.into_iter().map(mailbox).collect(),
        HeaderValue::Address(Parsed::Group(groups)) => {
            groups.into_iter().flat_map(|group| group.addresses).map(mailbox).collect()
        }
        _ => Vec::new(),
    }
}

fn mailbox(parsed: Addr<'_>) -> Result<Mailbox, AddressError> {
    let Addr { name, address } = parsed;
    let address = Address::parse(&address.ok_or(AddressError::Form)?)?;
    let name = name.map(|name| clean(&name)).filter(|name| !name.is_empty());
    if name.as_deref().is_some_and(|name| name.chars().count() > MAX_NAME_CHARS) {
        return Err(AddressError::NameTooLong);
    }
    Ok(Mailbox { name, address })
}

/// A name without control characters, which encoded words can hide, and with single spaces.
fn clean(name: &str) -> String {
    name.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
