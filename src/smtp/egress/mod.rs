//! Where connections may go: the operator's policy over hosts, addresses and ports. Pure; `connect` asks it.

mod hosts;
mod literal;
mod networks;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use self::hosts::HostPattern;
pub use self::literal::literal;
pub use self::networks::Network;

/// The ports of SMTP relay and submission, and the one providers offer where 25 is blocked.
const DEFAULT_PORTS: [u16; 4] = [25, 465, 587, 2525];

/// What `localhost` stands for.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Why an element of a policy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// No network in CIDR form.
    #[error("`{0}` is no network such as 10.0.0.0/8 or fd00::/8")]
    Network(String),
    /// No port and no range of ports.
    #[error("`{0}` is neither a port such as 587 nor a range such as 1-65535")]
    Port(String),
    /// No name, no address and no star before a name.
    #[error("`{0}` is no host such as mail.example.com or *.example.com")]
    Host(String),
}

/// Ports, from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self(port..=port)
    }
}

impl FromStr for Ports {
    type Err = ElementError;

    fn from_str(text: &str) -> Result<Self, ElementError> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(ElementError::Port(text.to_owned())),
        }
    }
}

/// The hosts, addresses and ports to which sessions may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Networks allowed besides the public ones.
    pub allow: Vec<Network>,
    /// Networks refused, also where they are public or in `allow`.
    pub deny: Vec<Network>,
    /// Ports allowed.
    pub ports: Vec<Ports>,
    /// Hosts allowed; every one where this is empty.
    pub allow_hosts: Vec<HostPattern>,
    /// Hosts refused, also where they are in `allow_hosts`.
    pub deny_hosts: Vec<HostPattern>,
}

impl Default for Policy {
    /// Public addresses only, of any name; ports 25, 465, 587, 2525.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            ports: DEFAULT_PORTS.map(Ports::from).to_vec(),
            allow_hosts: Vec::new(),
            deny_hosts: Vec::new(),
        }
    }
}

/// What a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The port, whatever the host.
    Port,
    /// The host, by its name or by its address.
    Host,
}

/// Where a host leads, as far as that is known without a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To these addresses, which are allowed.
    To(Vec<IpAddr>),
    /// Where its name is looked up to. Each address must then be held against [`Policy::permits`].
    ByName,
}

impl Policy {
    /// Judges a server by what can be told without a look-up: port, name, and the address where the host is one.
    ///
    /// # Errors
    /// What is forbidden.
    pub fn judge(&self, host: &str, port: u16) -> Result<Leads, Forbidden> {
        if !self.permits_port(port) {
            return Err(Forbidden::Port);
        }
        let named = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.matches(host));
        if named(&self.deny_hosts) || !(self.allow_hosts.is_empty() || named(&self.allow_hosts)) {
            return Err(Forbidden::Host);
        }
        let known = match literal(host).or_else(|| hosts::address_in_other_script(host)) {
            Some(address) => vec![address],
            None if hosts::is_localhost(host) => LOOPBACKS.to_vec(),
            None => return Ok(Leads::ByName),
        };
        let allowed: Vec<IpAddr> = known.into_iter().filter(|address| self.permits(*address)).collect();
        if allowed.is_empty() { Err(Forbidden::Host) } else { Ok(Leads::To(allowed)) }
    }

    /// Whether connections to this port are allowed.
    #[must_use]
    pub fn permits_port(&self, port: u16) -> bool {
        port != 0 && self.ports.iter().any(|Ports(range)| range.contains(&port))
    }

    /// Whether connections to this address are allowed: it is public or in a network that the operator allows, and in
    /// none that he refuses. An address that carries another one inside is allowed only if the inner one is, too.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let named = |networks: &[Network], address| networks.iter().any(|network| network.contains(address));
        // The system would connect to this machine, and nobody who names a network means that.
        if address.is_unspecified() || named(&self.deny, address) {
            return false;
        }
        let IpAddr::V6(v6) = address else {
            return named(&self.allow, address) || networks::is_public(address);
        };
        if let Some(v4) = v6.to_ipv4_mapped() {
            // No name server answers with a mapped address: whoever writes one wants to get past a filter.
            return named(&self.allow, v4.into()) && self.permits(v4.into());
        }
        let is_reachable = named(&self.allow, address) || networks::is_public(address);
        is_reachable && networks::embedded(v6).into_iter().all(|inner| self.permits(inner.into()))
    }
}
