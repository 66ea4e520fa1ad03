//! Reads replies out of a stream of bytes (RFC 5321 4.2), whatever a server sends: bounded in memory, never failing on a character set.
//! What a reply means is decided elsewhere.

use std::borrow::Cow;

use super::printable;
use super::redact::{Redactor, Told};
use crate::domain::reply::Reply;

/// What is kept of a line, in bytes; RFC 5321 4.5.3.1.5 allows 512, real servers send more.
const MAX_LINE_BYTES: usize = 2 * 1024;
/// What is kept of the lines of a reply, in bytes.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// What each line counts beside its bytes: a server may send thousands of empty ones.
const LINE_COST_BYTES: usize = 64;
/// What is stored of a reply's text, in bytes; it is stored once for each of up to 1,000 recipients.
const MAX_TEXT_BYTES: usize = 4 * 1024;
/// What is read of one reply, in bytes; a server that sends more is not answering.
const MAX_READ_BYTES: usize = 1024 * 1024;

/// One line as it came, without its line end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// At most 2 KiB.
    pub(super) bytes: Vec<u8>,
    /// Whether there was more.
    pub(super) cut: bool,
}

/// One whole reply, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawReply {
    /// 100 to 999.
    pub(super) code: u16,
    /// Its lines, codes included; those beyond 64 KiB are dropped.
    pub(super) lines: Vec<Line>,
}

/// Why bytes are no reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nonsense {
    /// Its last line does not begin with a code, or with another code than the line before.
    Line,
    /// More than 1 MiB without an end.
    Endless,
}

/// Puts a reply together from bytes as they arrive.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    line: Line,
    lines: Vec<Line>,
    code: Option<u16>,
    kept: usize,
    read: usize,
}

impl Assembler {
    /// Takes bytes up to the end of the reply. Answers how many it took, and the reply once it is whole.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Result<RawReply, Nonsense>>) {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let Some(length) = memchr::memchr(b'\n', rest) else {
                self.keep(rest);
                taken = bytes.len();
                break;
            };
            self.keep(&rest[..length]);
            self.read += 1;
            taken += length + 1;
            if let Some(end) = self.end_line() {
                return (taken, Some(end));
            }
        }
        let end = (self.read > MAX_READ_BYTES).then_some(Err(Nonsense::Endless));
        (taken, end)
    }

    /// What has arrived so far of a reply that did not end; the last line may have come in part.
    pub(super) fn into_lines(mut self) -> Vec<Line> {
        if !self.line.bytes.is_empty() {
            self.line.cut = true;
            self.lines.push(self.line);
        }
        self.lines
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.read += bytes.len();
        let room = MAX_LINE_BYTES - self.line.bytes.len();
        self.line.cut |= bytes.len() > room;
        self.line.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self) -> Option<Result<RawReply, Nonsense>> {
        let mut line = std::mem::take(&mut self.line);
        // CR LF by the standard, a bare LF from some servers; more than one CR from broken ones.
        while line.bytes.last() == Some(&b'\r') {
            line.bytes.pop();
        }
        let Some((code, last)) = code_of(&line.bytes) else {
            self.lines.push(line);
            return Some(Err(Nonsense::Line));
        };
        if self.code.is_some_and(|before| before != code) {
            self.lines.push(line);
            return Some(Err(Nonsense::Line));
        }
        self.code = Some(code);
        // The last line is always kept: it is the one people quote.
        let cost = line.bytes.len() + LINE_COST_BYTES;
        if last || self.kept + cost <= MAX_KEPT_BYTES {
            self.kept += cost;
            self.lines.push(line);
        }
        last.then(|| Ok(RawReply { code, lines: std::mem::take(&mut self.lines) }))
    }
}

/// The code of a line, and whether the line is the last of its reply. A bare code is a whole line (RFC 5321 4.2.1).
fn code_of(line: &[u8]) -> Option<(u16, bool)> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit)
        || digits[0] == b'0'
        || rest.first().is_some_and(u8::is_ascii_digit)
    {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    Some((code, rest.first() != Some(&b'-')))
}

impl RawReply {
    /// Its lines without code and separator, as they came; for what the session itself must understand.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| line.split().1)
    }

    /// As it is stored and shown: printable, secrets masked, enhanced status code apart (RFC 2034).
    pub(super) fn to_reply(&self, redactor: &Redactor) -> Reply {
        let enhanced_code =
            self.texts().next().and_then(|text| enhanced_code(self.code, text)).unwrap_or_default();
        let mut shown = String::new();
        for (number, masked) in masked(&self.lines, redactor).iter().enumerate() {
            if number > 0 {
                shown.push('\n');
            }
            let mut text = masked.as_ref();
            if !enhanced_code.is_empty()
                && let Some(rest) = text.strip_prefix(enhanced_code.as_bytes())
            {
                text = rest.trim_ascii_start();
            }
            shown.push_str(&printable::from_bytes(text));
            if shown.len() > MAX_TEXT_BYTES {
                shown.truncate(shown.floor_char_boundary(MAX_TEXT_BYTES));
                shown.push('…');
                break;
            }
        }
        Reply { code: self.code, enhanced_code: enhanced_code.to_owned(), text: shown }
    }
}

impl Line {
    /// The code with the separator, and the text. Some servers leave the separator out; what is no reply is all text.
    fn split(&self) -> (&[u8], &[u8]) {
        let code = match (code_of(&self.bytes), self.bytes.get(3)) {
            (Some(_), Some(b' ' | b'-' | b'\t')) => 4,
            (Some(_), _) => 3,
            (None, _) => 0,
        };
        self.bytes.split_at(code)
    }

    fn told(&self) -> Told<'_> {
        let text = self.split().1;
        let code = code_of(&self.bytes).and_then(|(code, _)| enhanced_code(code, text)).unwrap_or_default();
        let behind = &text[code.len()..];
        let start = if code.is_empty() { 0 } else { text.len() - behind.trim_ascii_start().len() };
        Told { text, start, cut: self.cut }
    }
}

/// The texts of the lines of one reply, secrets masked.
fn masked<'a>(lines: &'a [Line], redactor: &Redactor) -> Vec<Cow<'a, [u8]>> {
    let told: Vec<Told<'a>> = lines.iter().map(Line::told).collect();
    redactor.mask_lines(&told)
}

/// The lines of one reply as they are shown: printable, secrets masked.
pub(super) fn shown(lines: &[Line], redactor: &Redactor) -> Vec<String> {
    let show = |(line, text): (&Line, Cow<'_, [u8]>)| {
        let more = if line.cut { "…" } else { "" };
        let code = printable::from_bytes(line.split().0);
        format!("{code}{}{more}", printable::from_bytes(&text))
    };
    lines.iter().zip(masked(lines, redactor)).map(show).collect()
}

/// An enhanced status code (RFC 3463) at the beginning of a text, of the same class as the reply code.
fn enhanced_code(code: u16, text: &[u8]) -> Option<&str> {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let word = std::str::from_utf8(&text[..end]).ok()?;
    let mut parts = word.split('.');
    let class = parts.next()?;
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let well_formed = matches!(class, "2" | "4" | "5")
        && class.parse() == Ok(code / 100)
        && parts.next().is_some_and(is_number)
        && parts.next().is_some_and(is_number)
        && parts.next().is_none();
    well_formed.then_some(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Assembler, MAX_KEPT_BYTES, MAX_LINE_BYTES, MAX_READ_BYTES, Nonsense, RawReply};
    use crate::domain::account::Auth;
    use crate::domain::reply::Reply;
    use crate::smtp::redact::Redactor;

    fn read(bytes: &[u8]) -> Option<Result<RawReply, Nonsense>> {
        Assembler::default().feed(bytes).1
    }

    fn shown(bytes: &[u8]) -> Reply {
        read(bytes).expect("whole").expect("a reply").to_reply(&Redactor::new(&Auth::None))
    }

    #[test]
    fn replies_as_they_come() {
        for (bytes, code, enhanced, text) in [
            (&b"250 2.0.0 Ok: queued as 1\r\n"[..], 250, "2.0.0", "Ok: queued as 1"),
            (b"250\r\n", 250, "", ""),
            (b"250\n", 250, "", ""),
            (b"250 ok\n", 250, "", "ok"),
            (b"250 \r\r\n", 250, "", ""),
            (b"250-first\r\n250-\r\n250 last\r\n", 250, "", "first\n\nlast"),
            (b"550-5.1.1 No such\r\n550 5.1.1 user\r\n", 550, "5.1.1", "No such\nuser"),
            (b"550 2.1.1 other class\r\n", 550, "", "2.1.1 other class"),
            (b"550 5.1.1000 too long\r\n", 550, "", "5.1.1000 too long"),
            (b"250 Gr\xfc\xdfe\r\n", 250, "", "Gr\u{fffd}\u{fffd}e"),
            (b"250 a\x1b[0m\0b\rc\r\n", 250, "", "a\\x1b[0m\\x00b\\rc"),
            (b"999 what\r\n", 999, "", "what"),
            (b"250\ttab\r\n", 250, "", "tab"),
            (b"250ok\r\n", 250, "", "ok"),
        ] {
            let reply = shown(bytes);
            assert_eq!(
                (reply.code, reply.enhanced_code.as_str(), reply.text.as_str()),
                (code, enhanced, text),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn what_is_no_reply() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"2500 ok\r\n",
            b"050 ok\r\n",
            b"\x15\x03\x01\n",
            b" 250 ok\n",
            b"250-one\r\n550 two\r\n",
        ] {
            assert!(matches!(read(bytes), Some(Err(Nonsense::Line))), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_not_yet_a_reply() {
        for bytes in [&b""[..], b"2", b"250 ok", b"250 ok\r", b"250-ok\r\n", b"250-ok\r\n250"] {
            assert_eq!(read(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn only_its_own_bytes_are_taken() {
        let (taken, reply) = Assembler::default().feed(b"250 ok\r\n354 go\r\n");
        assert_eq!(taken, 8);
        assert_eq!(reply.expect("whole").expect("a reply").code, 250);
    }

    #[test]
    fn an_endless_line_is_kept_within_its_limit() {
        let mut assembler = Assembler::default();
        let mut fed = 0;
        let end = loop {
            fed += 4096;
            if let (_, Some(end)) = assembler.feed(&[b'2'; 4096]) {
                break end;
            }
            assert!(assembler.line.bytes.capacity() <= 2 * MAX_LINE_BYTES);
        };
        assert_eq!(end, Err(Nonsense::Endless));
        assert!(fed <= MAX_READ_BYTES + 4096);
    }

    #[test]
    fn ten_thousand_lines_are_kept_within_their_limit() {
        let mut assembler = Assembler::default();
        for _ in 0..10_000 {
            assert_eq!(
                assembler.feed(b"250-SOMETHING LONG TO FILL THE MEMORY WITH, LINE BY LINE\r\n").1,
                None
            );
        }
        let reply = assembler.feed(b"250 done\r\n").1.expect("whole").expect("a reply");
        let kept: usize = reply.lines.iter().map(|line| line.bytes.len()).sum();
        assert!(kept <= MAX_KEPT_BYTES + MAX_LINE_BYTES, "{kept}");
        assert!(reply.lines.len() < 1000, "{}", reply.lines.len());
        assert!(reply.to_reply(&Redactor::new(&Auth::None)).text.len() < 5000);
        assert_eq!(reply.lines.last().map(|line| line.bytes.as_slice()), Some(&b"250 done"[..]));
    }

    proptest! {
        /// However the bytes are cut into reads, the reply is the same.
        #[test]
        fn cuts_do_not_matter(cut in 0_usize..60, other in 0_usize..60) {
            let bytes = b"250-mail.example.com\r\n250-SIZE 1000\n250-Gr\xfc\xdfe\r\n250 8BITMIME\r\n";
            let (a, b) = (cut.min(other).min(bytes.len()), cut.max(other).min(bytes.len()));
            let mut assembler = Assembler::default();
            let mut whole = None;
            for part in [&bytes[..a], &bytes[a..b], &bytes[b..]] {
                if let (_, Some(end)) = assembler.feed(part) {
                    whole = Some(end);
                }
            }
            prop_assert_eq!(whole, read(bytes));
        }

        /// Any bytes at all: no panic, bounded, and what is shown is printable.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let (taken, end) = Assembler::default().feed(&bytes);
            prop_assert!(taken <= bytes.len());
            if let Some(Ok(reply)) = end {
                let reply = reply.to_reply(&Redactor::new(&Auth::None));
                prop_assert!(reply.text.chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }
}
