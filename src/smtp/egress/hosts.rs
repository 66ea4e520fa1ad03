//! Hosts as an operator names them, and how they are compared with those of accounts.

use std::net::IpAddr;
use std::str::FromStr;

use super::{ElementError, literal};

/// Longest domain name in bytes (RFC 1035 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Hosts that an operator allows or refuses by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// This name.
    Exact(String),
    /// Every name below this one at any depth, kept with its leading dot, not the name itself.
    Below(String),
    /// A host that is written as this address, in whatever form.
    Address(IpAddr),
}

impl FromStr for HostPattern {
    type Err = ElementError;

    fn from_str(text: &str) -> Result<Self, ElementError> {
        let wrong = || ElementError::Host(text.to_owned());
        let below = text.strip_prefix("*.");
        match (below, literal(text)) {
            (None, Some(address)) => return Ok(Self(Pattern::Address(address.to_canonical()))),
            (Some(rest), _) if literal(rest).is_some() => return Err(wrong()),
            _ => {}
        }
        let name = comparable(below.unwrap_or(text)).filter(|name| is_name(name)).ok_or_else(wrong)?;
        Ok(Self(if below.is_some() { Pattern::Below(format!(".{name}")) } else { Pattern::Exact(name) }))
    }
}

impl HostPattern {
    /// Whether the pattern is of this host, which is a name or an address as an account has it.
    pub(super) fn matches(&self, host: &str) -> bool {
        match (&self.0, literal(host)) {
            (Pattern::Address(own), Some(address)) => *own == address.to_canonical(),
            (Pattern::Address(_), None) | (_, Some(_)) => false,
            (Pattern::Exact(own), None) => comparable(host).is_some_and(|name| name == *own),
            (Pattern::Below(own), None) => {
                comparable(host).is_some_and(|name| name.len() > own.len() && name.ends_with(own.as_str()))
            }
        }
    }
}

/// The address in a host like `１２７。0.0.1`, which becomes one when it is mapped as names are (UTS 46).
pub(super) fn address_in_other_script(host: &str) -> Option<IpAddr> {
    if host.is_ascii() { None } else { literal(&comparable(host)?) }
}

/// Whether the host is `localhost` or below it: always this machine, whatever a name server says (RFC 6761 6.3).
pub(super) fn is_localhost(host: &str) -> bool {
    comparable(host).is_some_and(|name| name == "localhost" || name.ends_with(".localhost"))
}

/// A name in lower-case A-labels without closing dots. `None` where it is no name in any script.
fn comparable(host: &str) -> Option<String> {
    let name = idna::domain_to_ascii(host).ok()?;
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label)
}
