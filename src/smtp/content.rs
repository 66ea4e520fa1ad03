//! The letter's way onto the wire: canonical line ends checked, dots doubled (RFC 5321 4.5.2). Pure.

use memchr::memmem;

/// The end of the content (RFC 5321 4.1.1.4).
const DOT: &[u8] = b".\r\n";
const LINE_END: &[u8] = b"\r\n";

/// Why a content cannot go onto the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the letter has a bare {what} at byte {offset}")]
pub(super) struct BareLineEnd {
    what: &'static str,
    offset: usize,
}

/// A content whose every CR is followed by LF and every LF preceded by CR. Only such a one is ever sent: what one
/// server takes for a line end and the next does not, smuggles letters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    bytes: &'a [u8],
}

impl<'a> Content<'a> {
    /// Checks the line ends.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, BareLineEnd> {
        let mut line_feed = None;
        for at in memchr::memchr2_iter(b'\r', b'\n', bytes) {
            if bytes[at] == b'\r' {
                if bytes.get(at + 1) != Some(&b'\n') {
                    return Err(BareLineEnd { what: "CR", offset: at });
                }
                line_feed = Some(at + 1);
            } else if line_feed != Some(at) {
                return Err(BareLineEnd { what: "LF", offset: at });
            }
        }
        Ok(Self { bytes })
    }

    /// Bytes of the letter as SIZE counts them (RFC 1870 5): with its last line end, without doubled dots.
    pub(super) fn size(self) -> usize {
        self.bytes.len() + if self.ends_with_line() { 0 } else { LINE_END.len() }
    }

    /// The parts to write, in order. The last one carries the dot.
    pub(super) fn blocks(self, block_bytes: usize) -> Blocks<'a> {
        Blocks { content: self, at: 0, block_bytes: block_bytes.max(1), done: false }
    }

    fn ends_with_line(self) -> bool {
        self.bytes.is_empty() || self.bytes.ends_with(LINE_END)
    }
}

/// Cuts a content into blocks for the wire.
pub(super) struct Blocks<'a> {
    content: Content<'a>,
    at: usize,
    block_bytes: usize,
    done: bool,
}

impl Blocks<'_> {
    /// Writes the next block into `out`, after what is there; `false` when there is none left.
    pub(super) fn next_into(&mut self, out: &mut Vec<u8>) -> bool {
        if self.done {
            return false;
        }
        let bytes = self.content.bytes;
        let end = bytes.len().min(self.at.saturating_add(self.block_bytes));
        stuff(bytes, self.at, end, out);
        self.at = end;
        if end == bytes.len() {
            if !self.content.ends_with_line() {
                out.extend_from_slice(LINE_END);
            }
            out.extend_from_slice(DOT);
            self.done = true;
        }
        true
    }

    /// Whether the block written last carried the dot.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

/// Copies `bytes[start..end]` and doubles each dot that begins a line.
fn stuff(bytes: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
    let part = &bytes[start..end];
    out.reserve(part.len() + LINE_END.len() + DOT.len() + 16);
    let begins_line = start == 0 || bytes[start - 1] == b'\n';
    if begins_line && part.first() == Some(&b'.') {
        out.push(b'.');
    }
    let mut copied = 0;
    for line_feed in memmem::find_iter(part, b"\n.") {
        out.extend_from_slice(&part[copied..=line_feed]);
        out.push(b'.');
        copied = line_feed + 1;
    }
    out.extend_from_slice(&part[copied..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Content;

    fn wire(bytes: &[u8], block_bytes: usize) -> Vec<u8> {
        let mut blocks = Content::new(bytes).expect("canonical").blocks(block_bytes);
        let mut out = Vec::new();
        while blocks.next_into(&mut out) {}
        assert!(blocks.is_done());
        out
    }

    #[test]
    fn what_goes_onto_the_wire() {
        for (content, expected) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..a\r\n.b\r\n", b"...a\r\n..b\r\n.\r\n"),
            (b"a.\r\n.\r\n.\r\n", b"a.\r\n..\r\n..\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
        ] {
            for block_bytes in [1, 2, 3, 64 * 1024] {
                let wire = wire(content, block_bytes);
                assert_eq!(wire, expected, "{}", String::from_utf8_lossy(content));
            }
        }
    }

    #[test]
    fn bare_line_ends_never_leave() {
        for (content, error) in [
            (&b"a\nb\r\n"[..], "the letter has a bare LF at byte 1"),
            (b"a\rb\r\n", "the letter has a bare CR at byte 1"),
            (b"a\r", "the letter has a bare CR at byte 1"),
            (b"\r\n\n", "the letter has a bare LF at byte 2"),
            (b"\r\r\n", "the letter has a bare CR at byte 0"),
        ] {
            assert_eq!(Content::new(content).map(|_| ()).map_err(|e| e.to_string()), Err(error.to_owned()));
        }
    }

    /// What a server does with the content (RFC 5321 4.5.2).
    fn received(wire: &[u8]) -> Vec<u8> {
        let mut letter = Vec::new();
        for line in wire.split_inclusive(|byte| *byte == b'\n') {
            if line == b".\r\n" {
                return letter;
            }
            letter.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        panic!("no dot");
    }

    proptest! {
        #[test]
        fn a_server_gets_the_same_lines(
            lines in proptest::collection::vec("[.a\\x00\\x80-\\xff]{0,6}", 0..12),
            block_bytes in 1_usize..20,
        ) {
            let content: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
            let wire = wire(content.as_bytes(), block_bytes);
            prop_assert_eq!(received(&wire), content.as_bytes());
            prop_assert!(Content::new(&wire).is_ok());
        }
    }
}
