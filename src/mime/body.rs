//! Bodies in 7 bits: quoted-printable where people read, base64 for the rest.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Body;
use lettre::message::header::ContentTransferEncoding;
use memchr::{memchr_iter, memchr3_iter};

/// Bytes that make one line of base64 (RFC 2045 6.8: at most 76 characters).
const BASE64_CHUNK_BYTES: usize = 57;
/// Characters of one full line of base64.
const BASE64_LINE_CHARS: usize = 76;
/// Longest line of quoted-printable (RFC 2045 6.7 rule 5).
const QUOTED_LINE_CHARS: usize = 76;
/// A byte outside printable ASCII costs three characters in quoted-printable and 1.35 in base64, any other one about
/// 1.03 and 1.35: base64 is shorter where more than one byte in six needs quoting.
const BASE64_SHORTER_FROM: usize = 6;

/// An encoded text and the name of its transfer encoding.
pub(super) struct EncodedText {
    pub(super) encoding: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// Encodes a text so that its decoded bytes are those given.
///
/// One exception, which RFC 2046 4.1.1 demands: where every line break is a bare LF, all become CRLF. A text that mixes
/// line breaks, or has a lone CR or a NUL, is no text for RFC 2045; it keeps its exact bytes in base64.
pub(super) fn encode_text(text: &str) -> EncodedText {
    let Some(canonical) = canonical(text) else {
        return base64_text(text.as_bytes());
    };
    let is_quoted = |b: u8| !matches!(b, b' '..=b'<' | b'>'..=b'~' | b'\t' | b'\r' | b'\n');
    let quoted: usize = canonical.bytes().map(|b| usize::from(is_quoted(b))).sum();
    if quoted > canonical.len() / BASE64_SHORTER_FROM {
        return base64_text(canonical.as_bytes());
    }
    if quoted == 0 && has_plain_lines(canonical.as_bytes()) {
        return EncodedText { encoding: "quoted-printable", bytes: canonical.into_owned().into_bytes() };
    }
    // As bytes, not as a string: lettre mends the line breaks of a string in quadratic time.
    match Body::new_with_encoding(
        canonical.into_owned().into_bytes(),
        ContentTransferEncoding::QuotedPrintable,
    ) {
        Ok(body) => EncodedText { encoding: "quoted-printable", bytes: body.into_vec() },
        Err(bytes) => base64_text(&bytes),
    }
}

/// Whether no line is too long for quoted-printable or ends with white space, which would be quoted.
fn has_plain_lines(bytes: &[u8]) -> bool {
    let is_plain =
        |line: &[u8]| line.len() <= QUOTED_LINE_CHARS && !matches!(line.last(), Some(b' ' | b'\t'));
    let mut start = 0;
    for line_feed in memchr_iter(b'\n', bytes) {
        if !is_plain(&bytes[start..line_feed - 1]) {
            return false;
        }
        start = line_feed + 1;
    }
    is_plain(&bytes[start..])
}

fn base64_text(bytes: &[u8]) -> EncodedText {
    let mut encoded = Vec::new();
    push_base64(&mut encoded, bytes);
    EncodedText { encoding: "base64", bytes: encoded }
}

/// The text with CRLF line breaks; `None` where that would change more than uniform bare LFs.
fn canonical(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let (mut bare, mut pairs) = (0_usize, 0_usize);
    for at in memchr3_iter(b'\r', b'\n', 0, bytes) {
        match bytes[at] {
            b'\n' if at > 0 && bytes[at - 1] == b'\r' => pairs += 1,
            b'\n' => bare += 1,
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
            _ => return None,
        }
    }
    match (bare, pairs) {
        (0, _) => Some(Cow::Borrowed(text)),
        (_, 0) => {
            let mut canonical = String::with_capacity(text.len() + bare);
            let mut start = 0;
            for line_feed in memchr_iter(b'\n', bytes) {
                canonical.push_str(&text[start..line_feed]);
                canonical.push_str("\r\n");
                start = line_feed + 1;
            }
            canonical.push_str(&text[start..]);
            Some(Cow::Owned(canonical))
        }
        _ => None,
    }
}

/// Appends base64 in lines of 76, the last one without its CRLF. The room is made once, so that 20 MiB are written in
/// one pass.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let chars = bytes.len().div_ceil(3) * 4;
    let breaks = chars.saturating_sub(1) / BASE64_LINE_CHARS;
    let mut at = out.len();
    out.resize(at + chars + 2 * breaks, b'\n');
    for (index, chunk) in bytes.chunks(BASE64_CHUNK_BYTES).enumerate() {
        let line = chunk.len().div_ceil(3) * 4;
        if index > 0 {
            out[at] = b'\r';
            at += 2;
        }
        STANDARD.encode_slice(chunk, &mut out[at..at + line]).expect("the room was measured for this line");
        at += line;
    }
}

/// Ends quoted-printable at the end of a letter, where a CRLF must follow that is not part of the text: a soft line
/// break takes it away (RFC 2045 6.7 rule 5).
pub(super) fn end_quoted(encoded: &mut Vec<u8>) {
    if encoded.is_empty() || encoded.ends_with(b"\r\n") {
        return;
    }
    let line_start = encoded.iter().rposition(|&b| b == b'\n').map_or(0, |lf| lf + 1);
    if encoded.len() - line_start >= QUOTED_LINE_CHARS {
        let last = if encoded[encoded.len() - 3] == b'=' { 3 } else { 1 };
        let at = encoded.len() - last;
        encoded.splice(at..at, *b"=\r\n");
    }
    encoded.extend_from_slice(b"=\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, encoding, encoded) in [
            ("", "quoted-printable", ""),
            ("Hello", "quoted-printable", "Hello"),
            ("a\nb\n", "quoted-printable", "a\r\nb\r\n"),
            ("a \r\nb", "quoted-printable", "a=20\r\nb"),
            ("a\rb", "base64", "YQ1i"),
            ("a\n\r\nb", "base64", "YQoNCmI="),
            ("a\r\nb\n", "base64", "YQ0KYgo="),
            ("a\0", "base64", "YQA="),
            ("a\r", "base64", "YQ0="),
            ("при\nвет", "base64", "0L/RgNC4DQrQstC10YI="),
            ("caf\u{e9} in a long line of text", "quoted-printable", "caf=C3=A9 in a long line of text"),
        ] {
            let got = encode_text(text);
            assert_eq!(
                (got.encoding, String::from_utf8_lossy(&got.bytes).as_ref()),
                (encoding, encoded),
                "{text:?}"
            );
        }
    }

    /// With and without the short cut for texts that nothing must be quoted of, the same comes out.
    #[test]
    fn plain_texts_are_what_the_library_makes_of_them() {
        let long = |length: usize| "x".repeat(length);
        for text in [
            "a",
            "a\r\nb\r\n",
            "\r\n",
            "a\tb c\r\n.\r\nFrom x\r\n",
            &long(75),
            &long(76),
            &format!("{}\r\nb", long(76)),
        ] {
            assert!(has_plain_lines(text.as_bytes()), "{text:?}");
            let body =
                Body::new_with_encoding(text.as_bytes().to_vec(), ContentTransferEncoding::QuotedPrintable);
            assert_eq!(String::from_utf8(body.expect("ASCII").into_vec()).unwrap(), text);
            assert_eq!(encode_text(text).bytes, text.as_bytes());
        }
        for text in ["a ", "a \r\nb", "\t\r\n", &long(77), &format!("{}\r\n", long(77))] {
            assert!(!has_plain_lines(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn base64_lines() {
        for (length, end) in [(0, ""), (57, ""), (58, "\r\nAA=="), (114, ""), (115, "\r\nAA==")] {
            let mut out = b"x: ".to_vec();
            push_base64(&mut out, &vec![0; length]);
            let text = String::from_utf8(out).expect("ASCII");
            assert!(
                text.split("\r\n").all(|line| line.len() <= 79 && !line.contains(['\r', '\n'])),
                "{text}"
            );
            assert!(text.ends_with(end), "{length}: {text}");
        }
    }

    #[test]
    fn the_end_of_quoted_printable() {
        let full = "x".repeat(76);
        let broken = format!("{}=\r\nx=\r\n", "x".repeat(75));
        for (encoded, ended) in
            [("", ""), ("a", "a=\r\n"), ("a\r\n", "a\r\n"), (full.as_str(), broken.as_str())]
        {
            let mut bytes = encoded.as_bytes().to_vec();
            end_quoted(&mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes), ended);
        }
    }
}
