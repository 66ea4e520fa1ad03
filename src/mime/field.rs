//! Header fields on the wire: folded (RFC 5322 2.2.3), names and free text as encoded words (RFC 2047), file names by
//! RFC 2231. Callers have refused control characters before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::domain::address::Mailbox;
use crate::mime::words;

/// Where a line is folded, in characters (RFC 5322 2.1.1).
const LINE_CHARS: usize = 78;
/// Longest line that holds an encoded word (RFC 2047 2).
const WORD_LINE_CHARS: usize = 76;
/// Longest encoded word (RFC 2047 2).
const WORD_CHARS: usize = 75;
/// `=?utf-8?B?` and `?=`.
const WORD_FRAME_CHARS: usize = 12;
/// The shortest encoded word worth starting on a line: one character of four bytes in quoted form.
const WORD_LEAST_CHARS: usize = WORD_FRAME_CHARS + 12;
/// Longest run without a space that is left as it is; longer ones cannot be folded safely below 998.
const MAX_PLAIN_CHARS: usize = 900;
/// Longest display name written as a quoted string, which is not folded.
const MAX_QUOTED_NAME_CHARS: usize = 60;
/// Bytes of one encoded word in a parameter: 52 characters, so that `name="` fits before it.
const PARAMETER_WORD_BYTES: usize = 39;
/// Characters of one piece of a long file name (RFC 2231 3), so that its line stays within 78.
const PIECE_CHARS: usize = 54;

/// One header field being written.
pub(super) struct Field<'a> {
    out: &'a mut Vec<u8>,
    column: usize,
    empty: bool,
}

impl<'a> Field<'a> {
    /// Starts `name:`.
    pub(super) fn new(out: &'a mut Vec<u8>, name: &str) -> Self {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        Self { out, column: name.len() + 1, empty: true }
    }

    /// Writes a piece that must stay in one line, after one space, on a new line where it does not fit. The first piece
    /// stays on the line of the name, since some programs take a field that begins with a fold for an empty one.
    pub(super) fn token(&mut self, text: &str) {
        if !self.empty && self.column + 1 + text.len() > LINE_CHARS {
            self.fold();
        }
        self.out.push(b' ');
        self.out.extend_from_slice(text.as_bytes());
        self.column += 1 + text.len();
        self.empty = false;
    }

    fn fold(&mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.column = 0;
    }

    /// Writes free text that arrives as it was given.
    pub(super) fn text(&mut self, text: &str) {
        if stays_plain(text) {
            text.split(' ').for_each(|word| self.token(word));
        } else {
            self.words(text);
        }
    }

    /// Writes text as encoded words.
    fn words(&mut self, text: &str) {
        let as_base64 = prefers_base64(text);
        let mut rest = text;
        while !rest.is_empty() {
            if self.column + 1 + WORD_LEAST_CHARS > WORD_LINE_CHARS {
                self.fold();
            }
            let room = (WORD_LINE_CHARS - self.column - 1).min(WORD_CHARS) - WORD_FRAME_CHARS;
            let taken = fitting(rest, room, as_base64);
            let (chunk, behind) = rest.split_at(taken);
            let word = if as_base64 {
                format!("=?utf-8?B?{}?=", STANDARD.encode(chunk))
            } else {
                let mut word = String::from("=?utf-8?Q?");
                chunk.bytes().for_each(|b| push_quoted(&mut word, b));
                word.push_str("?=");
                word
            };
            self.token(&word);
            rest = behind;
        }
    }

    /// Writes mailboxes, separated by commas and folded between them.
    pub(super) fn mailboxes(&mut self, mailboxes: &[Mailbox]) {
        for (index, mailbox) in mailboxes.iter().enumerate() {
            let comma = if index + 1 < mailboxes.len() { "," } else { "" };
            match mailbox.name.as_deref().map(words::decode).filter(|name| !name.trim().is_empty()) {
                None => self.token(&format!("{}{comma}", mailbox.address)),
                Some(name) => {
                    self.display_name(&name);
                    self.token(&format!("<{}>{comma}", mailbox.address));
                }
            }
        }
    }

    fn display_name(&mut self, name: &str) {
        if name.len() > MAX_QUOTED_NAME_CHARS || !stays_plain(name) {
            self.words(name);
        } else if name.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_atom_byte)) {
            self.text(name);
        } else {
            self.token(&quoted_string(name));
        }
    }

    /// Writes `; key=value`, quoted where needed (at most 500 bytes), other than ASCII in encoded words. Encoded words are not allowed in parameters, but
    /// they are what old programs read; new ones read the file name in Content-Disposition (RFC 2231).
    pub(super) fn parameter(&mut self, key: &str, value: &str) {
        self.out.push(b';');
        self.column += 1;
        if value.is_ascii() {
            self.token(&format!(
                "{key}={}",
                if is_token(value) { value.to_owned() } else { quoted_string(value) }
            ));
        } else {
            let mut start = true;
            for chunk in pieces(value, PARAMETER_WORD_BYTES) {
                let opening = if start { format!("{key}=\"") } else { String::new() };
                self.token(&format!("{opening}=?utf-8?B?{}?=", STANDARD.encode(chunk)));
                start = false;
            }
            self.out.push(b'"');
            self.column += 1;
        }
    }

    /// Writes `; key*=utf-8''value` (RFC 2231), in numbered pieces where it is long; plain ASCII as `; key="value"`.
    pub(super) fn extended_parameter(&mut self, key: &str, value: &str) {
        if value.is_ascii() && !value.contains("=?") {
            self.parameter(key, value);
            return;
        }
        let mut encoded: Vec<String> = vec![String::new()];
        for c in value.chars() {
            let mut buffer = [0; 4];
            let mut piece = String::with_capacity(12);
            for &byte in c.encode_utf8(&mut buffer).as_bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    piece.push(char::from(byte));
                } else {
                    push_hex(&mut piece, '%', byte);
                }
            }
            match encoded.last_mut() {
                Some(last) if last.len() + piece.len() <= PIECE_CHARS => last.push_str(&piece),
                _ => encoded.push(piece),
            }
        }
        let single = encoded.len() == 1;
        for (index, piece) in encoded.iter().enumerate() {
            self.out.push(b';');
            self.column += 1;
            let number = if single { String::new() } else { format!("*{index}") };
            let charset = if index == 0 { "utf-8''" } else { "" };
            self.token(&format!("{key}{number}*={charset}{piece}"));
        }
    }

    /// Ends the field.
    pub(super) fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Whether a text may stand in a header as it is: printable ASCII that no reader takes for an encoded word and that
/// can be folded.
fn stays_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !text.contains("=?")
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.contains("  ")
        && text.split(' ').all(|word| word.len() <= MAX_PLAIN_CHARS)
}

fn prefers_base64(text: &str) -> bool {
    let quoted: usize = text.bytes().map(quoted_chars).sum();
    quoted > text.len().div_ceil(3) * 4
}

/// How many bytes of a text, at a character's border and at least one character, make an encoded text of `room`.
fn fitting(text: &str, room: usize, as_base64: bool) -> usize {
    let mut end = 0;
    let mut used = 0;
    for c in text.chars() {
        let next = end + c.len_utf8();
        if as_base64 {
            used = next.div_ceil(3) * 4;
        } else {
            used += text.as_bytes()[end..next].iter().map(|&b| quoted_chars(b)).sum::<usize>();
        }
        if used > room && end > 0 {
            break;
        }
        end = next;
    }
    end
}

/// A text in pieces of at most `bytes`, cut between characters.
fn pieces(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(bytes);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Bytes that stand for themselves in the Q encoding of a display name (RFC 2047 5.3).
fn is_plain_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!*+-/".contains(&byte)
}

fn quoted_chars(byte: u8) -> usize {
    if byte == b' ' || is_plain_in_word(byte) { 1 } else { 3 }
}

fn push_quoted(word: &mut String, byte: u8) {
    match byte {
        b' ' => word.push('_'),
        _ if is_plain_in_word(byte) => word.push(char::from(byte)),
        _ => push_hex(word, '=', byte),
    }
}

fn push_hex(out: &mut String, mark: char, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(mark);
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// `atext` of RFC 5322 3.2.3.
fn is_atom_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// A `token` of RFC 2045 5.1.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

fn quoted_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
