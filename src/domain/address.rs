//! Mail addresses and mailboxes (`Name <address>`), parsed once into types that cannot be wrong.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

/// Longest address in bytes (RFC 5321 4.5.3.1.3: a path of 256 with its brackets).
const MAX_ADDRESS_BYTES: usize = 254;
/// Longest local part in bytes (RFC 5321 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;
/// Longest display name in characters; longer ones are no name but an attack or a mistake.
const MAX_NAME_CHARS: usize = 256;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// CR, LF, NUL or another control character.
    #[error("must not contain control characters")]
    Control,
    /// No `@`, or nothing before or behind it.
    #[error("must have the form local@domain")]
    Form,
    /// Over 254 bytes.
    #[error("must be at most 254 bytes")]
    TooLong,
    /// Local part over 64 bytes.
    #[error("the part before @ must be at most 64 bytes")]
    LocalTooLong,
    /// Something in the local part that RFC 5321 does not allow.
    #[error("the part before @ is not a valid local part")]
    Local,
    /// An address literal such as `[192.0.2.1]`.
    #[error("an address literal is not accepted, use a domain")]
    Literal,
    /// No valid domain name.
    #[error("the part behind @ is not a valid domain name")]
    Domain,
    /// `Name <address>` that is not closed or has something behind it.
    #[error("must have the form `address` or `Name <address>`")]
    Mailbox,
    /// Display name over 256 characters.
    #[error("the name must be at most 256 characters")]
    NameTooLong,
}

/// An address, `local@domain` (RFC 5321 4.1.2, RFC 6531 3.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    local: String,
    domain: String,
}

impl Address {
    /// Parses `local@domain`. The domain may be in Unicode or A-label form.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Form)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        if local.len() > MAX_LOCAL_BYTES {
            return Err(AddressError::LocalTooLong);
        }
        if !is_local_part(local) {
            return Err(AddressError::Local);
        }
        if domain.starts_with('[') {
            return Err(AddressError::Literal);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| AddressError::Domain)?;
        if domain.is_empty() || domain.ends_with('.') {
            return Err(AddressError::Domain);
        }
        if local.len() + 1 + domain.len() > MAX_ADDRESS_BYTES || text.len() > MAX_ADDRESS_BYTES {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local: local.to_owned(), domain })
    }

    /// The part before the `@`, as given.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain, lower case, in A-label form.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether the local part needs SMTPUTF8 (RFC 6531); domains never do, they are in A-label form.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }

    /// What addresses are compared by: composed (NFC), lower case, domain in A-label form.
    #[must_use]
    pub fn key(&self) -> String {
        let local = if self.local.is_ascii() {
            self.local.to_ascii_lowercase()
        } else {
            self.local.nfc().collect::<String>().to_lowercase()
        };
        [&local, "@", &self.domain].concat()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Address {
    /// Masked: addresses are people, and Debug ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "***@{}", self.domain)
    }
}

/// A local part: a dot-atom (UTF-8 allowed) or a quoted string.
fn is_local_part(local: &str) -> bool {
    if let Some(quoted) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let mut escaped = false;
        for c in quoted.chars() {
            match (escaped, c) {
                (false, '\\') => escaped = true,
                (false, '"') => return false,
                _ => escaped = false,
            }
        }
        return !escaped && local.len() >= 2;
    }
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char))
}

fn is_atom_char(c: char) -> bool {
    c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_whitespace())
}

/// An address with an optional display name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Display name, decoded from quotes but not from RFC 2047; none where it is empty.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

impl Mailbox {
    /// Parses `Name <address>`, `"Quoted, name" <address>`, `<address>` or `address`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        let Some(inside) = text.strip_suffix('>') else {
            return Ok(Self { name: None, address: Address::parse(text)? });
        };
        let (name, address) = inside.rsplit_once('<').ok_or(AddressError::Mailbox)?;
        let name = unquote(name.trim()).ok_or(AddressError::Mailbox)?;
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(AddressError::NameTooLong);
        }
        let name = (!name.is_empty()).then_some(name);
        Ok(Self { name, address: Address::parse(address)? })
    }
}

impl fmt::Display for Mailbox {
    /// `Name <address>` or `address`; a name that could be misread is quoted (RFC 5322 3.2.4).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = &self.name else { return self.address.fmt(f) };
        let plain = name
            .chars()
            .all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c));
        if plain && name.trim() == name {
            return write!(f, "{name} <{}>", self.address);
        }
        write!(f, "\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address)
    }
}

/// A display name without its quotes and escapes; `None` where a quote is not closed.
fn unquote(name: &str) -> Option<String> {
    let Some(rest) = name.strip_prefix('"') else {
        return Some(name.to_owned());
    };
    let mut plain = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.push(characters.next()?),
            '"' if characters.as_str().is_empty() => return Some(plain.trim().to_owned()),
            '"' => return None,
            _ => plain.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError, Mailbox};

    #[test]
    fn addresses_that_are_right() {
        for (text, key) in [
            ("ann@example.com", "ann@example.com"),
            ("Ann.Lee+tag@Example.COM", "ann.lee+tag@example.com"),
            ("info@пример.рф", "info@xn--e1afmkfd.xn--p1ai"),
            ("ИВАН@example.com", "иван@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(Address::parse(text).map(|a| a.key()), Ok(key.to_owned()), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_wrong() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_domain = format!("a@{}example.com", "abcdefghi.".repeat(25));
        for (text, error) in [
            ("", AddressError::Empty),
            ("ann", AddressError::Form),
            ("@example.com", AddressError::Form),
            ("ann@", AddressError::Form),
            ("ann@[192.0.2.1]", AddressError::Literal),
            ("a b@example.com", AddressError::Local),
            ("a..b@example.com", AddressError::Local),
            ("ann@exa mple.com", AddressError::Domain),
            ("ann@-example.com", AddressError::Domain),
            ("ann@example.com\r\nRCPT TO:<x@y>", AddressError::Control),
            ("ann\0@example.com", AddressError::Control),
            (long_local.as_str(), AddressError::LocalTooLong),
            (long_domain.as_str(), AddressError::Domain),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn mailboxes() {
        for (text, name, address) in [
            ("ann@example.com", None, "ann@example.com"),
            ("<ann@example.com>", None, "ann@example.com"),
            ("Ann Lee <ann@example.com>", Some("Ann Lee"), "ann@example.com"),
            ("\"Lee, \\\"Ann\\\"\" <ann@example.com>", Some("Lee, \"Ann\""), "ann@example.com"),
            ("Анна <ann@example.com>", Some("Анна"), "ann@example.com"),
        ] {
            let mailbox = Mailbox::parse(text).expect(text);
            assert_eq!(mailbox.name.as_deref(), name, "{text}");
            assert_eq!(mailbox.address.to_string(), address, "{text}");
            assert_eq!(Mailbox::parse(&mailbox.to_string()), Ok(mailbox), "{text}");
        }
        for text in ["Ann <ann@example.com", "\"Ann <ann@example.com>", "Ann ann@example.com>", "a <b> <c>"] {
            assert!(Mailbox::parse(text).is_err(), "{text}");
        }
    }
}
