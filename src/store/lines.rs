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
    }
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

    use super::{Entry, EntryKind, bounds, decode, encode};

    proptest! {
        #[test]
        fn chunks_come_back_as_they_were(texts in prop::collection::vec(("[^\n\0]{0,40}", 0_i64..10_000_000), 1..20)) {
            let kinds = [EntryKind::Error, EntryKind::Client, EntryKind::Server, EntryKind::Connection, EntryKind::Data];
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
}
