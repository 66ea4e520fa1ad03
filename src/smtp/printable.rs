//! Turns a server's bytes into text that can be stored and shown: no control character, no mark that reorders a line.

/// The bytes as text on one line: what is no UTF-8 replaced, control and reordering characters escaped.
pub(crate) fn from_bytes(bytes: &[u8]) -> String {
    escape(String::from_utf8_lossy(bytes).into_owned())
}

/// Escapes what must not reach a terminal or a browser as it is: `\r`, `\x1b`, `\u{202e}`.
pub(crate) fn escape(text: String) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(must_be_escaped) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii_control() => {
                escaped.extend(std::ascii::escape_default(byte).map(char::from));
            }
            _ if must_be_escaped(c) => escaped.extend(c.escape_unicode()),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Control characters, line separators, marks of writing direction, invisible joiners and tag characters.
fn must_be_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::from_bytes;

    #[test]
    fn what_is_shown_instead() {
        for (bytes, shown) in [
            (&b"250 ok"[..], "250 ok"),
            ("Grüße, мир".as_bytes(), "Grüße, мир"),
            (b"a\x1b[31mred\x00\x07", "a\\x1b[31mred\\x00\\x07"),
            (b"Gr\xfc\xdfe", "Gr\u{fffd}\u{fffd}e"),
            (b"tab\there\rand\nthere\x7f", "tab\\there\\rand\\nthere\\x7f"),
            (
                "evil\u{202e}txt\u{2066}\u{200b}\u{feff}".as_bytes(),
                "evil\\u{202e}txt\\u{2066}\\u{200b}\\u{feff}",
            ),
            ("c1\u{9b}31m".as_bytes(), "c1\\u{9b}31m"),
        ] {
            assert_eq!(from_bytes(bytes), shown);
        }
    }
}
