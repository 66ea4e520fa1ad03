//! Where messages begin and end in what comes in: each prefix and each message is handed over by itself.

use bytes::Bytes;

/// Flag and length before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// What stands in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) is_compressed: bool,
    /// Bytes of the message on the wire.
    pub(super) length: usize,
}

/// A piece of what comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole prefix. One of no bytes is a whole message.
    Prefix(Prefix, Bytes),
    /// A part of a message that goes on.
    Part(Bytes),
    /// What completes a message.
    Last(Bytes),
}

/// Cuts what comes in.
#[derive(Default)]
pub(super) struct Frames {
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    /// What the message at hand still lacks.
    left: usize,
}

impl Frames {
    /// The next piece; what is left over is the beginning of a prefix, and kept.
    pub(super) fn cut(&mut self, data: &mut Bytes) -> Option<Piece> {
        if data.is_empty() {
            return None;
        }
        if self.left > 0 {
            let piece = data.split_to(data.len().min(self.left));
            self.left -= piece.len();
            return Some(if self.left == 0 { Piece::Last(piece) } else { Piece::Part(piece) });
        }
        let read = data.split_to(data.len().min(PREFIX_BYTES - self.prefix_read));
        self.prefix[self.prefix_read..self.prefix_read + read.len()].copy_from_slice(&read);
        self.prefix_read += read.len();
        if self.prefix_read < PREFIX_BYTES {
            return None;
        }
        self.prefix_read = 0;
        let [flag, length @ ..] = self.prefix;
        self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let prefix = Prefix { is_compressed: flag != 0, length: self.left };
        Some(Piece::Prefix(prefix, Bytes::copy_from_slice(&self.prefix)))
    }

    /// Whether a message has begun that is not complete.
    pub(super) fn is_within(&self) -> bool {
        self.left > 0
    }

    /// The beginning of a prefix that does not come to its end.
    pub(super) fn torn(&mut self) -> Option<Bytes> {
        let read = std::mem::take(&mut self.prefix_read);
        (read > 0).then(|| Bytes::copy_from_slice(&self.prefix[..read]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).expect("a length").to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, b'x');
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let sizes = [0, 1, 1_000, 65_536, 7];
        let all: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
        for size in [1, 2, 5, 6, 1_000, 70_000, all.len()] {
            let mut frames = Frames::default();
            let (mut seen, mut bytes, mut whole) = (Vec::new(), Vec::new(), 0);
            for chunk in all.chunks(size) {
                let mut data = Bytes::copy_from_slice(chunk);
                while let Some(piece) = frames.cut(&mut data) {
                    match piece {
                        Piece::Prefix(Prefix { is_compressed, length }, piece) => {
                            assert!(!is_compressed);
                            seen.push(length);
                            bytes.extend_from_slice(&piece);
                            whole += usize::from(length == 0);
                        }
                        Piece::Part(piece) => bytes.extend_from_slice(&piece),
                        Piece::Last(piece) => {
                            whole += 1;
                            bytes.extend_from_slice(&piece);
                        }
                    }
                }
                assert!(data.is_empty());
            }
            assert_eq!((seen.as_slice(), whole), (&sizes[..], sizes.len()), "cut at {size}");
            assert!(bytes == all && !frames.is_within() && frames.torn().is_none(), "cut at {size}");
        }
    }

    #[test]
    fn a_torn_prefix_is_told() {
        let mut frames = Frames::default();
        assert_eq!(frames.cut(&mut Bytes::from_static(&[1, 0, 0])), None);
        assert_eq!(frames.torn(), Some(Bytes::from_static(&[1, 0, 0])));
        let prefix = frames.cut(&mut Bytes::from_static(&[1, 0, 0, 0, 9]));
        assert!(matches!(prefix, Some(Piece::Prefix(Prefix { is_compressed: true, length: 9 }, _))));
        assert!(frames.is_within());
    }
}
