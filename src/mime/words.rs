//! RFC 2047 encoded words, decoded. They are written in `field`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;

/// Base64 as mail programs write it: padding may be missing, spare bits may be set.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// `=?charset?encoding?text?=` taken apart.
struct Word<'a> {
    charset: &'a str,
    bytes: Vec<u8>,
}

/// Decodes the encoded words in a display name or a subject; what is none stays as it is.
///
/// White space between two encoded words is dropped, and neighbours of one charset are joined before they are
/// decoded, since some programs cut a character in two. Control characters in the result become spaces.
#[must_use]
pub fn decode(text: &str) -> String {
    if !text.contains("=?") {
        return text.to_owned();
    }
    let mut decoded = String::with_capacity(text.len());
    let mut pending: Option<Word<'_>> = None;
    let mut rest = text;
    while let Some(start) = rest.find("=?") {
        let (before, from_word) = rest.split_at(start);
        let Some((word, behind)) = parse(from_word) else {
            flush(&mut pending, &mut decoded);
            decoded.push_str(before);
            decoded.push_str("=?");
            rest = &from_word[2..];
            continue;
        };
        let adjacent = pending.is_some() && before.chars().all(char::is_whitespace);
        match &mut pending {
            Some(previous) if adjacent && previous.charset.eq_ignore_ascii_case(word.charset) => {
                previous.bytes.extend_from_slice(&word.bytes);
            }
            _ => {
                flush(&mut pending, &mut decoded);
                if !adjacent {
                    decoded.push_str(before);
                }
                pending = Some(word);
            }
        }
        rest = behind;
    }
    flush(&mut pending, &mut decoded);
    decoded.push_str(rest);
    decoded.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One encoded word at the start of the text, and what is behind it.
fn parse(text: &str) -> Option<(Word<'_>, &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (encoded, behind) = rest.split_once("?=")?;
    // RFC 2231 5: a language may follow the charset.
    let charset = charset.split_once('*').map_or(charset, |(charset, _language)| charset);
    if charset.is_empty() || !charset.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => LENIENT.decode(encoded.trim()).ok()?,
        "Q" | "q" => quoted(encoded)?,
        _ => return None,
    };
    Some((Word { charset, bytes }, behind))
}

/// The Q encoding (RFC 2047 4.2).
fn quoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        match byte {
            b'_' => bytes.push(b' '),
            b'=' => bytes.push(hex(input.next()?)? << 4 | hex(input.next()?)?),
            _ => bytes.push(byte),
        }
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn flush(pending: &mut Option<Word<'_>>, decoded: &mut String) {
    let Some(Word { charset, bytes }) = pending.take() else { return };
    match charset_decoder(charset.as_bytes()) {
        Some(convert) => decoded.push_str(&convert(&bytes)),
        None => decoded.push_str(&String::from_utf8_lossy(&bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn encoded_words() {
        for (text, expected) in [
            ("Ann Lee", "Ann Lee"),
            ("=?utf-8?B?0JDQvdC90LA=?=", "Анна"),
            ("=?UTF-8?Q?Andr=C3=A9_Lee?=", "André Lee"),
            ("=?koi8-r?B?4c7OwQ==?= (sales)", "Анна (sales)"),
            ("=?windows-1251?Q?=C0=ED=ED=E0?=", "Анна"),
            ("=?iso-2022-jp?B?GyRCOzNFRBsoQg==?=", "山田"),
            ("=?gb18030?B?1cXOsA==?=", "张伟"),
            ("=?utf-8*ru?B?0JDQvdC90LA?=", "Анна"),
            // One character cut in two.
            ("=?utf-8?B?0A==?= =?utf-8?B?kA==?=", "А"),
            ("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9?= b", "aé b"),
            ("=?utf-8?Q?a=0D=0ABcc:_x?=", "a  Bcc: x"),
            ("1 =? 2", "1 =? 2"),
            ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
            ("=?utf-8?Q?=zz?=", "=?utf-8?Q?=zz?="),
        ] {
            assert_eq!(decode(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(=\\?|\\?|utf-8|B|Q|=|[ -~]|\\PC){0,40}") {
            let _ = decode(&text);
        }
    }
}
