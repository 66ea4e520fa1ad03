//! Protobuf as bytes: records of a message are found, replaced and written by hand, so that also what no library writes can
//! be sent.

/// Wire types.
pub(super) const VARINT: u8 = 0;
pub(super) const BYTES: u8 = 2;

/// A way into a message: the number of a field, and which of its records where there are several.
pub(super) type Step = (u32, usize);

/// A number as a varint.
pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The tag of a record.
pub(super) fn tag(number: u32, wire_type: u8) -> Vec<u8> {
    varint(u64::from(number) << 3 | u64::from(wire_type))
}

/// A record of a number.
pub(super) fn number(field: u32, value: u64) -> Vec<u8> {
    [tag(field, VARINT), varint(value)].concat()
}

/// A record of a string, of bytes or of a message.
pub(super) fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    [tag(field, BYTES), varint(value.len() as u64), value.to_vec()].concat()
}

/// A record of a message that is right: its field, and all its bytes.
struct Record<'a> {
    field: u32,
    all: &'a [u8],
    /// Of a string, of bytes or of a message.
    content: &'a [u8],
}

fn read_varint(bytes: &[u8]) -> (u64, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("a varint ends");
    let number = bytes[..=end].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    (number, &bytes[end + 1..])
}

fn records(mut message: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    while !message.is_empty() {
        let (tag, behind) = read_varint(message);
        let (content, rest) = match u8::try_from(tag & 7).expect("three bits") {
            VARINT => (&behind[..0], read_varint(behind).1),
            BYTES => {
                let (length, content) = read_varint(behind);
                content.split_at(usize::try_from(length).expect("a length"))
            }
            other => panic!("no request has the wire type {other}"),
        };
        let all = &message[..message.len() - rest.len()];
        records.push(Record { field: u32::try_from(tag >> 3).expect("a field"), all, content });
        message = rest;
    }
    records
}

/// Whether the message has what the way leads to.
pub(super) fn has(message: &[u8], way: &[Step]) -> bool {
    let Some(((field, index), rest)) = way.split_first() else { return true };
    let records = records(message);
    let found = records.iter().filter(|record| record.field == *field).nth(*index);
    found.is_some_and(|record| rest.is_empty() || has(record.content, rest))
}

/// What the field holds that the way leads to, if it is there.
pub(super) fn content<'a>(message: &'a [u8], way: &[Step]) -> Option<&'a [u8]> {
    let ((field, index), rest) = way.split_first()?;
    let found = records(message).into_iter().filter(|record| record.field == *field).nth(*index)?;
    if rest.is_empty() { Some(found.content) } else { content(found.content, rest) }
}

/// How many records a field has.
pub(super) fn count(message: &[u8], way: &[Step]) -> usize {
    let Some(((field, index), rest)) = way.split_first() else { return 0 };
    let records = records(message);
    let mut found = records.iter().filter(|record| record.field == *field);
    if rest.is_empty() { found.count() } else { found.nth(*index).map_or(0, |r| count(r.content, rest)) }
}

/// What happens to the records that a field has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    /// They go.
    Dropped,
    /// They stay in front of the new ones.
    Kept,
}

/// The message with these bytes for the last field of the way; messages on the way are made where they are not there.
pub(super) fn with(message: &[u8], way: &[Step], old: Old, new: &[u8]) -> Vec<u8> {
    let ((field, index), rest) = way.split_first().expect("a way");
    let mut written = Vec::with_capacity(message.len() + new.len());
    let mut seen = 0;
    let mut done = false;
    for record in records(message) {
        let own = record.field == *field;
        if own && !rest.is_empty() && seen == *index {
            written.extend(bytes(*field, &with(record.content, rest, old, new)));
            done = true;
        } else if !own || !rest.is_empty() || old == Old::Kept {
            written.extend_from_slice(record.all);
        }
        seen += usize::from(own);
    }
    if rest.is_empty() {
        written.extend_from_slice(new);
    } else if !done {
        written.extend(bytes(*field, &with(&[], rest, old, new)));
    }
    written
}
