//! Where connections may go: the operator's policy over addresses and ports, and the forms in which a host hides an address. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// The ports of SMTP relay and submission, and the one providers offer where 25 is blocked.
const DEFAULT_PORTS: [u16; 4] = [25, 465, 587, 2525];

/// IPv4 networks that are no public hosts (IANA special-purpose registry, RFC 6890), as address and prefix length.
const FORBIDDEN_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),            // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT, and metadata at 100.100.100.200
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // host services of a cloud
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, and metadata at 169.254.169.254
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments, and metadata at 192.0.0.192
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// The only IPv6 network with public hosts; loopback, mapped, NAT64, ULA, link-local and multicast are outside of it.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What in it are no public hosts.
const FORBIDDEN_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// NAT64 (RFC 6052): the IPv4 address is in the last 32 bits.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
/// IPv4-compatible addresses, long deprecated (RFC 4291 2.5.5.1).
const COMPATIBLE: (Ipv6Addr, u8) = (Ipv6Addr::UNSPECIFIED, 96);
/// 6to4 (RFC 3056): the IPv4 address is in bits 16 to 47.
const SIX_TO_FOUR: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// Why a policy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No network in CIDR form.
    #[error("`{0}` is no network such as 10.0.0.0/8 or fd00::/8")]
    Network(String),
    /// No port and no range of ports.
    #[error("`{0}` is no port such as 587 and no range such as 1-65535")]
    Port(String),
}

/// The addresses and ports to which sessions may connect.
///
/// Public addresses always count as allowed; the others only inside a network that the operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    networks: Vec<(IpAddr, u8)>,
    ports: Vec<RangeInclusive<u16>>,
}

impl Default for Policy {
    /// Public addresses only; ports 25, 465, 587, 2525.
    fn default() -> Self {
        Self { networks: Vec::new(), ports: DEFAULT_PORTS.map(|port| port..=port).to_vec() }
    }
}

impl Policy {
    /// Reads a policy: networks allowed besides the public ones (`127.0.0.0/8,fd00::/8`, a lone address is a network
    /// of one), and ports (`25,465,587,2525` or `1-65535`). Empty lists mean the defaults.
    ///
    /// # Errors
    /// The item that cannot be read.
    pub fn parse(networks: &str, ports: &str) -> Result<Self, PolicyError> {
        let networks = items(networks)
            .map(|item| network(item).ok_or_else(|| PolicyError::Network(item.to_owned())))
            .collect::<Result<_, _>>()?;
        let mut ports = items(ports)
            .map(|item| port_range(item).ok_or_else(|| PolicyError::Port(item.to_owned())))
            .collect::<Result<Vec<_>, _>>()?;
        if ports.is_empty() {
            ports = Self::default().ports;
        }
        Ok(Self { networks, ports })
    }

    /// Whether connections to this port are allowed.
    #[must_use]
    pub fn permits_port(&self, port: u16) -> bool {
        port != 0 && self.ports.iter().any(|range| range.contains(&port))
    }

    /// Whether connections to this address are allowed. An address that carries another one inside is allowed only
    /// if the inner one is, too.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let named = |address: IpAddr| self.networks.iter().any(|network| contains(*network, address));
        match address {
            IpAddr::V4(v4) => named(address) || is_public_v4(v4),
            IpAddr::V6(v6) => {
                if let Some(v4) = v6.to_ipv4_mapped() {
                    // No name server answers with a mapped address: whoever writes one wants to get past a filter.
                    return named(v4.into());
                }
                match embedded(v6) {
                    Some(v4) => named(address) && self.permits(v4.into()),
                    None => named(address) || is_public_v6(v6),
                }
            }
        }
    }
}

/// A host that is an address, in whatever form.
///
/// System resolvers read `2130706433`, `0x7f.1` and `0177.0.0.1` as 127.0.0.1 (`inet_aton`); here they are read the
/// same way, so that they are judged without a look-up. `None` where the host is a name.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(address);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let parts: Vec<u32> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    let shift = match leading.len() {
        0 => 0,
        count @ 1..=3 => 8 * u32::try_from(count).ok()?,
        _ => return None,
    };
    let mut address = *last;
    if u64::from(*last) >= 1 << (32 - shift) {
        return None;
    }
    for (part, position) in leading.iter().zip([24, 16, 8]) {
        address |= u32::from(u8::try_from(*part).ok()?) << position;
    }
    Some(Ipv4Addr::from_bits(address).into())
}

/// A number as `inet_aton` reads it: decimal, octal with a leading 0, hexadecimal with 0x.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    // glibc reads a lone `0x` as 0.
    if digits.is_empty() && radix == 16 { Some(0) } else { u32::from_str_radix(digits, radix).ok() }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let longest = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
    let length = if text.contains('/') { length.parse().ok()? } else { longest };
    (length <= longest).then_some((address, length))
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

fn contains((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => in_v4((network, length), address),
        (IpAddr::V6(network), IpAddr::V6(address)) => in_v6((network, length), address),
        _ => false,
    }
}

fn in_v4((network, length): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    (network.to_bits() ^ address.to_bits()) & mask == 0
}

fn in_v6((network, length): (Ipv6Addr, u8), address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    (network.to_bits() ^ address.to_bits()) & mask == 0
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !FORBIDDEN_V4.iter().any(|network| in_v4(*network, address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    in_v6(PUBLIC_V6, address) && !FORBIDDEN_V6.iter().any(|network| in_v6(*network, address))
}

/// The IPv4 address to which an IPv6 address leads.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at =
        |start: usize| Ipv4Addr::new(octets[start], octets[start + 1], octets[start + 2], octets[start + 3]);
    if address == Ipv6Addr::LOCALHOST || address == Ipv6Addr::UNSPECIFIED {
        None
    } else if in_v6(NAT64, address) || in_v6(COMPATIBLE, address) {
        Some(at(12))
    } else if in_v6(SIX_TO_FOUR, address) {
        Some(at(2))
    } else {
        None
    }
}
