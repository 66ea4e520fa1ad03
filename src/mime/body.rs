//! Bodies in 7 bits: quoted-printable where people read, base64 for the rest.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Body;
use lettre::message::header::ContentTransferEncoding;

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
    let quoted =
        canonical.bytes().filter(|&b| !matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n') || b == b'=');
    if quoted.count() > canonical.len() / BASE64_SHORTER_FROM {
        return base64_text(canonical.as_bytes());
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

fn base64_text(bytes: &[u8]) -> EncodedText {
    let mut encoded = Vec::new();
    push_base64(&mut encoded, bytes);
    EncodedText { encoding: "base64", bytes: encoded }
}

/// The text with CRLF line breaks; `None` where that would change more than uniform bare LFs.
fn canonical(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let (mut bare, mut pairs, mut previous) = (0_usize, 0_usize, 0_u8);
    for &byte in bytes {
        match (previous, byte) {
            (b'\r', b'\n') => pairs += 1,
            (b'\r', _) | (_, 0) => return None,
            (_, b'\n') => bare += 1,
            _ => {}
        }
        previous = byte;
    }
    match (bare, pairs) {
        _ if previous == b'\r' => None,
        (0, _) => Some(Cow::Borrowed(text)),
        (_, 0) => Some(Cow::Owned(text.replace('\n', "\r\n"))),
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
    use super::{encode_text, end_quoted, push_base64};

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
