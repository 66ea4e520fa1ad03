//! Networks: how an operator writes them, which are public, and which addresses carry another one inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::ElementError;

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

/// The only IPv6 network with public hosts; loopback, mapped, NAT64, ULA, link-local, site-local and multicast are
/// outside of it.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What in it are no public hosts.
const FORBIDDEN_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    SIX_TO_FOUR,
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Networks whose addresses have an IPv4 address in their last 32 bits: NAT64 (RFC 6052), its local prefix (RFC 8215;
/// of its layouts that of /96), IPv4-translated (RFC 2765), IPv4-compatible (RFC 4291 2.5.5.1).
const IN_LAST_BITS: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
    (Ipv6Addr::UNSPECIFIED, 96),
];
/// 6to4 (RFC 3056): the IPv4 address is in bits 16 to 47.
const SIX_TO_FOUR: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);
/// Teredo (RFC 4380): the server in bits 32 to 63, the client in the last 32 bits, inverted.
const TEREDO: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32);
/// ISATAP (RFC 5214 6.1): these 32 bits, under any prefix, stand before the IPv4 address.
const ISATAP: [u16; 2] = [0x0000, 0x0200];
const ISATAP_MARK: u16 = 0x5efe;

/// A network in CIDR form; a lone address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = ElementError;

    fn from_str(text: &str) -> Result<Self, ElementError> {
        let wrong = || ElementError::Network(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            // `u8` reads a sign, too.
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(wrong()),
            Some(digits) => digits.parse().map_err(|_| wrong())?,
            None => longest,
        };
        if length > longest {
            return Err(wrong());
        }
        // Mapped addresses are judged as what they stand for, so networks of them are read as that, too.
        match address {
            IpAddr::V6(v6) if length >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => Ok(Self { address: v4.into(), length: length - 96 }),
                None => Ok(Self { address, length }),
            },
            _ => Ok(Self { address, length }),
        }
    }
}

impl Network {
    /// Whether the address is in it.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => in_v4((network, self.length), address),
            (IpAddr::V6(network), IpAddr::V6(address)) => in_v6((network, self.length), address),
            _ => false,
        }
    }
}

/// Whether public hosts have such addresses.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !FORBIDDEN_V4.iter().any(|network| in_v4(*network, v4)),
        IpAddr::V6(v6) => in_v6(PUBLIC_V6, v6) && !FORBIDDEN_V6.iter().any(|network| in_v6(*network, v6)),
    }
}

/// The IPv4 addresses to which an IPv6 address may lead, or whose hosts carry what is sent to it.
pub(super) fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let at =
        |start: usize| Ipv4Addr::new(octets[start], octets[start + 1], octets[start + 2], octets[start + 3]);
    let [.., before, mark, _, _] = address.segments();
    if address == Ipv6Addr::LOCALHOST || address == Ipv6Addr::UNSPECIFIED {
        Vec::new()
    } else if IN_LAST_BITS.iter().any(|network| in_v6(*network, address)) {
        vec![at(12)]
    } else if in_v6(SIX_TO_FOUR, address) {
        vec![at(2)]
    } else if in_v6(TEREDO, address) {
        vec![at(4), Ipv4Addr::from_bits(!at(12).to_bits())]
    } else if ISATAP.contains(&before) && mark == ISATAP_MARK {
        vec![at(12)]
    } else {
        Vec::new()
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
