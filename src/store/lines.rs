//! How the entries of a chunk stand in one text column: a line an entry.

use time::{Duration, OffsetDateTime};

use super::StoreError;
use crate::domain::log::{Entry, EntryKind};

/// Times of the first and the last entry; `None` where there is none.
pub(super) fn bounds(entries: &[Entry]) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let first = entries.iter().map(|entry| entry.time).min()?;
    let last = entries.iter().map(|entry| entry.time).max()?;
    Some((first, last))
}

const fn kind_letter(kind: EntryKind) -> char {
    match kind {
        EntryKind::Error => 'E',
        EntryKind::Client => 'C',
        EntryKind::Server => 'S',
        EntryKind::Connection => 'N',
        EntryKind::Data => 'D',
        EntryKind::Audit => 'A',
    }
}

/// A chunk has at most so many entries, and is full when its texts have so many bytes: so that a reader can be given a
/// few chunks at once whatever they hold.
const MAX_ENTRIES: usize = 256;
const FULL_BYTES: usize = 16 * 1024;

/// The entries cut into chunks.
pub(super) fn pieces(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut pieces = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        bytes += entry.text.len();
        if bytes >= FULL_BYTES || number + 1 - first == MAX_ENTRIES {
            pieces.push(&entries[first..=number]);
            (first, bytes) = (number + 1, 0);
        }
    }
    if first < entries.len() {
        pieces.push(&entries[first..]);
    }
    pieces
}

/// One line an entry: microseconds since the first, letter of the kind, text. Entries have no line feeds of their own;
/// what slipped through becomes a space, so that a hostile text cannot make an entry.
pub(super) fn encode(entries: &[Entry], first: OffsetDateTime) -> String {
    let mut lines = String::with_capacity(entries.iter().map(|entry| entry.text.len() + 12).sum());
    for entry in entries {
        let microseconds = microseconds(entry.time) - microseconds(first);
        lines.push_str(&microseconds.to_string());
        lines.push(' ');
        lines.push(kind_letter(entry.kind));
        lines.push(' ');
        lines.extend(entry.text.chars().map(|c| if matches!(c, '\n' | '\0') { ' ' } else { c }));
        lines.push('\n');
    }
    lines
}

/// As the database keeps times: cut at the microsecond, so that an entry's time is that of its chunk's columns.
fn microseconds(time: OffsetDateTime) -> i128 {
    time.unix_timestamp_nanos().div_euclid(1_000)
}

/// The entries of stored lines.
pub(super) fn decode(lines: &str, first: OffsetDateTime) -> Result<Vec<Entry>, StoreError> {
    let entry = |line: &str| {
        let (microseconds, rest) = line.split_once(' ')?;
        let (letter, text) = rest.split_once(' ')?;
        let kind = match letter {
            "E" => EntryKind::Error,
            "C" => EntryKind::Client,
            "S" => EntryKind::Server,
            "N" => EntryKind::Connection,
            "D" => EntryKind::Data,
            "A" => EntryKind::Audit,
            _ => return None,
        };
        let time = first + Duration::microseconds(microseconds.parse().ok()?);
        Some(Entry { time, kind, text: text.to_owned() })
    };
    lines.split_terminator('\n').map(|line| entry(line).ok_or(StoreError::Corrupt("transcript"))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, OffsetDateTime};

    use super::{Entry, EntryKind, FULL_BYTES, MAX_ENTRIES, bounds, decode, encode, pieces};

    proptest! {
        #[test]
        fn chunks_come_back_as_they_were(texts in prop::collection::vec(("[^\n\0]{0,40}", 0_i64..10_000_000), 1..20)) {
            let kinds = [
                EntryKind::Error,
                EntryKind::Client,
                EntryKind::Server,
                EntryKind::Connection,
                EntryKind::Data,
                EntryKind::Audit,
            ];
            let entries: Vec<Entry> = texts
                .into_iter()
                .zip(kinds.into_iter().cycle())
                .map(|((text, offset), kind)| Entry {
                    time: OffsetDateTime::UNIX_EPOCH + Duration::microseconds(offset),
                    kind,
                    text,
                })
                .collect();
            let (first, _) = bounds(&entries).expect("at least one");
            prop_assert_eq!(decode(&encode(&entries, first), first).expect("readable"), entries);
        }
    }

    #[test]
    fn what_is_too_much_for_one_chunk_becomes_several() {
        let entries = |sizes: &[usize]| -> Vec<Entry> {
            let entry = |size: &usize| Entry {
                time: OffsetDateTime::UNIX_EPOCH,
                kind: EntryKind::Server,
                text: "x".repeat(*size),
            };
            sizes.iter().map(entry).collect()
        };
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            pieces(&entries(sizes)).into_iter().map(<[Entry]>::len).collect()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[1; MAX_ENTRIES]), [MAX_ENTRIES]);
        assert_eq!(lengths(&[1; MAX_ENTRIES + 1]), [MAX_ENTRIES, 1]);
        assert_eq!(lengths(&[FULL_BYTES, 1, FULL_BYTES - 1, 1]), [1, 2, 1]);
    }
}
