//! What a certificate says of itself (RFC 5280 4.1): subject, issuer, end of its time. Only for people: what is trusted is
//! decided elsewhere.

use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Longest name of a subject or an issuer that is told, in bytes.
const MAX_NAME_BYTES: usize = 200;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version is explicitly tagged [0], and left out in version 1.
const VERSION: u8 = 0xa0;

/// Object identifiers below 2.5.4 (X.520) with their usual short names (RFC 4514 3).
const ATTRIBUTES: [(u8, &str); 6] = [(3, "CN"), (6, "C"), (7, "L"), (8, "ST"), (10, "O"), (11, "OU")];

/// The parts of a certificate that people compare, as they stand in it.
struct Parts<'a> {
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
}

/// Serial number and algorithm stand before the issuer, the validity between issuer and subject.
fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let (_, certificate, _) = der(certificate)?;
    let (_, mut rest, _) = der(certificate)?;
    if rest.first() == Some(&VERSION) {
        rest = der(rest)?.2;
    }
    let (_, _, rest) = der(rest)?;
    let (_, _, rest) = der(rest)?;
    let (_, issuer, rest) = der(rest)?;
    let (_, validity, rest) = der(rest)?;
    let (_, subject, _) = der(rest)?;
    Some(Parts { issuer, validity, subject })
}

/// Whether issuer and subject of a certificate are the same.
pub(super) fn is_self_issued(certificate: &[u8]) -> bool {
    parts(certificate).is_some_and(|parts| parts.issuer == parts.subject)
}

/// The end of a certificate's time, where it can be read.
pub fn certificate_end(certificate: &[u8]) -> Option<OffsetDateTime> {
    let (_, _, behind) = der(parts(certificate)?.validity)?;
    let (tag, text, _) = der(behind)?;
    let form = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    PrimitiveDateTime::parse(&time(tag, text)?, form).ok().map(PrimitiveDateTime::assume_utc)
}

/// `of CN=mail.example.com, issued by CN=An authority, valid until 2030-01-31 12:00 UTC`. Names are
/// masked as a whole, before they are cut; nothing is escaped.
pub(super) fn describe(certificate: &[u8], mask: impl Fn(&str) -> String) -> Option<String> {
    let Parts { issuer, validity, subject } = parts(certificate)?;
    let (_, _, behind) = der(validity)?;
    let (tag, end, _) = der(behind)?;
    let shown = |of| short(mask(&name(of)));
    let (subject, issuer, end) = (shown(subject), shown(issuer), time(tag, end)?);
    Some(format!("of {subject}, issued by {issuer}, valid until {end}"))
}

/// A distinguished name (RFC 5280 4.1.2.4), in the order in which it stands.
fn name(mut rest: &[u8]) -> String {
    let mut text = String::new();
    while let Some((SET, mut set, behind)) = der(rest) {
        rest = behind;
        while let Some((SEQUENCE, attribute, behind)) = der(set) {
            set = behind;
            let Some((OBJECT_IDENTIFIER, identifier, value)) = der(attribute) else { continue };
            let Some((kind, value, _)) = der(value) else { continue };
            let known = |id: u8| ATTRIBUTES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
            // What is not known by name is seldom and says little to people.
            if let [0x55, 0x04, id] = identifier
                && let Some(attribute) = known(*id)
            {
                let separator = if text.is_empty() { "" } else { ", " };
                text.extend([separator, attribute, "=", &string(kind, value)]);
            }
        }
    }
    if text.is_empty() { "nobody".to_owned() } else { text }
}

/// The name, cut where it is long.
fn short(mut name: String) -> String {
    if name.len() > MAX_NAME_BYTES {
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        name.push('…');
    }
    name
}

/// A directory string; all kinds but one are ASCII, UTF-8 or unknown.
fn string(kind: u8, bytes: &[u8]) -> String {
    if kind != BMP_STRING {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A time in the one form that certificates may have (RFC 5280 4.1.2.5), to the minute.
fn time(tag: u8, text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (century, rest) = match tag {
        // Two digits mean 1950 to 2049.
        UTC_TIME if text.get(..2)? < "50" => ("20", text),
        UTC_TIME => ("19", text),
        GENERALIZED_TIME => (text.get(..2)?, text.get(2..)?),
        _ => return None,
    };
    let two = |place: usize| rest.get(place * 2..place * 2 + 2);
    Some(format!("{century}{}-{}-{} {}:{} UTC", two(0)?, two(1)?, two(2)?, two(3)?, two(4)?))
}

/// Tag, content and what follows of one DER element.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};

    use super::{certificate_end, describe, is_self_issued, string, time};

    fn certificate(fill: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        fill(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn what_is_told() {
        let told = |fill: &dyn Fn(&mut CertificateParams)| {
            describe(&certificate(fill), str::to_owned).expect("told")
        };
        let full = told(&|params| {
            params.not_after = date_time_ymd(2031, 2, 3);
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Bäcker & Söhne");
            params.distinguished_name.push(DnType::CommonName, "mail.example.com");
        });
        let name = "C=DE, O=Bäcker & Söhne, CN=mail.example.com";
        assert_eq!(full, format!("of {name}, issued by {name}, valid until 2031-02-03 00:00 UTC"));
        let late = told(&|params| params.not_after = date_time_ymd(2060, 12, 31));
        assert_eq!(late, "of nobody, issued by nobody, valid until 2060-12-31 00:00 UTC");
        let long = told(&|params| params.distinguished_name.push(DnType::CommonName, "ü".repeat(300)));
        assert!(long.len() < 2 * (super::MAX_NAME_BYTES + 5) + 60, "{long}");
        let long = certificate(|params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, format!("{}correct horse", "x".repeat(190)));
        });
        let masked = describe(&long, |name| name.replace("correct horse", "<hidden>")).expect("told");
        assert!(!masked.contains("corr"), "masked before it is cut: {masked}");
        let hostile = told(&|params| {
            let value = DnValue::Utf8String("\u{1b}[2J\0\u{202e}".to_owned());
            params.distinguished_name.push(DnType::CommonName, value);
        });
        assert!(hostile.contains("CN=\u{1b}[2J"), "escaping is the transcript's: {hostile}");
        assert!(is_self_issued(&certificate(|_| ())));
        let end = date_time_ymd(2031, 2, 3);
        assert_eq!(certificate_end(&certificate(|params| params.not_after = end)), Some(end));
    }

    #[test]
    fn old_forms() {
        assert_eq!(string(super::BMP_STRING, b"\0A\x20\xac"), "A€");
        assert_eq!(time(super::UTC_TIME, b"491231235959Z").as_deref(), Some("2049-12-31 23:59 UTC"));
        assert_eq!(time(super::UTC_TIME, b"500101000000Z").as_deref(), Some("1950-01-01 00:00 UTC"));
        assert_eq!(time(super::GENERALIZED_TIME, b"20"), None);
        assert_eq!(time(super::GENERALIZED_TIME, "2ü".as_bytes()), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            let _ = describe(&bytes, str::to_owned);
            let mut broken = certificate(|_| ());
            let at = at.index(broken.len());
            broken.truncate(at);
            let _ = (describe(&broken, str::to_owned), is_self_issued(&broken), certificate_end(&broken));
        }
    }
}
