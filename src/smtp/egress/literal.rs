//! Hosts that are addresses, in all forms in which system resolvers read one.

use std::net::{IpAddr, Ipv4Addr};

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
