//! Bad and strange values for a field, by its type, and what no value of its type is.

use prost_reflect::{FieldDescriptor, Kind};

use super::wire::{self, BYTES, VARINT};

/// What is sent for a field.
pub(super) struct Value {
    /// For people, where it goes wrong.
    pub(super) what: String,
    /// The records of the field.
    pub(super) records: Vec<u8>,
    pub(super) nature: Nature,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Of the field's type; whether it counts is for the field to say.
    Typed,
    /// A text with control characters, which no field but a letter's body may hold.
    Control,
    /// Text that is no UTF-8: always refused, by the name of the field.
    NoText,
    /// Not protobuf, or not that of the field's type: refused, or left out of account.
    Malformed,
}

/// Texts with control characters: line breaks, the end of a C string, escape sequences, DEL and C1 controls.
const CONTROLS: [&str; 16] = [
    "a\r\nb",
    "a\rb",
    "a\nb",
    "a\0b",
    "a\x1b[31mb",
    "a\x7fb",
    "a\u{85}b",
    "a\u{9b}b",
    "a\tb",
    "a\x08b",
    "\r\nX-Evil: 1",
    "a\r\nX-Evil: 1\r\n\r\nbody",
    "ann@example.org\r\nRCPT TO:<evil@example.com>",
    "Ann\r\nX-Evil: 1 <ann@example.org>",
    "a\r\n.\r\nMAIL FROM:<evil@example.com>",
    "sites/shop\r\n/accounts/1",
];

/// Texts that are strange in other ways.
const STRANGE: [&str; 62] = [
    "",
    " ",
    "   ",
    "\u{2028}",
    "a\u{2029}b",
    "\u{202e}moc.elpmaxe",
    "\u{2066}a\u{2069}",
    "\u{feff}a",
    "a\u{200b}b\u{200d}",
    "e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}\u{309}\u{30a}",
    "\u{10ffff}",
    "\u{fffd}",
    "👨‍👩‍👧‍👦",
    "%0d%0aX-Evil:%201",
    "\\r\\nX-Evil: 1",
    "..",
    "../../etc/passwd",
    "'; drop table messages; --",
    "\" or \"\"=\"",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "%s%s%n",
    "true",
    "null",
    "NaN",
    "-1",
    "0",
    "007",
    "1e309",
    "99999999999999999999999999",
    "{\"a\":[1,2]}",
    "sites/other",
    "sites/-",
    "sites/SHOP",
    "sites/shop/",
    "sites//accounts/1",
    "sites/shop/accounts/007",
    "sites/shop/accounts/-1",
    "sites/shop/accounts/9223372036854775808",
    "sites/shop/accounts/9223372036854775807",
    "sites/other/accounts/1",
    "sites/shop/senders/1",
    "sites/shop/logs/check-admin-01",
    "sites/shop/logs/audit",
    "sites/shop/settings",
    "sites/shop/messages/01890C5E-7A3C-7C3E-9D2B-0F1E2D3C4B5A",
    "sites/shop/messages/{01890c5e-7a3c-7c3e-9d2b-0f1e2d3c4b5a}",
    "sites/shop/messages/00000000-0000-0000-0000-000000000000",
    "ann@[192.0.2.1]",
    "ann@@example.org",
    "@example.org",
    "ann@",
    "\"a b\"@example.org",
    "ann(comment)@example.org",
    "<@relay.example,@other.example:ann@example.org>",
    "=?utf-8?q?a=0D=0AX-Evil:_1?= <ann@example.org>",
    "ann@xn--.example",
    "ann@еxample.org",
    "ann@example.org, bob@example.org",
    "Name <ann@example.org",
    "\"unclosed <ann@example.org>",
];

/// Everything that is tried for a field.
pub(super) fn of(field: &FieldDescriptor) -> Vec<Value> {
    let number = field.number();
    let typed = |what: String, records: Vec<u8>| Value { what, records, nature: Nature::Typed };
    let varint = |value: u64| typed(format!("{value:#x}"), wire::number(number, value));
    let mut values: Vec<Value> = match field.kind() {
        Kind::String => texts(number),
        Kind::Bytes => [0, 1, 2, 1_000, 1_048_576]
            .map(|length| vec![b'a'; length])
            .into_iter()
            .chain((0..=255).step_by(15).map(|byte| vec![byte; 3]))
            .map(|content| typed(shown(&content), wire::bytes(number, &content)))
            .collect(),
        Kind::Bool => [0, 1, 2, 255, u64::MAX].map(varint).into(),
        // Negative numbers of 32 bits go over the wire in 64.
        Kind::Enum(_) | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => [
            0,
            1,
            2,
            3,
            4,
            5,
            7,
            12,
            31,
            64,
            99,
            100,
            101,
            999,
            1_000,
            1_001,
            65_535,
            65_536,
            1_000_001,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
            u64::MAX - 1,
            0xffff_ffff_8000_0000,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
        ]
        .map(varint)
        .into(),
        Kind::Message(message) if message.full_name() == "google.protobuf.FieldMask" => masks(number),
        Kind::Message(message)
            if ["google.protobuf.Timestamp", "google.protobuf.Duration"].contains(&message.full_name()) =>
        {
            times(number)
        }
        // What is in it is walked by itself.
        Kind::Message(_) => vec![typed("an empty message".to_owned(), wire::bytes(number, b""))],
        other => panic!("no values for {other:?} yet"),
    };
    values.extend(malformed(number, &field.kind()));
    values
}

/// So many of them, for a field that is not the caller's.
pub(super) fn some_of(field: &FieldDescriptor, count: usize) -> Vec<Value> {
    let all = of(field);
    let step = (all.len() / count).max(1);
    all.into_iter().step_by(step).collect()
}

/// What is almost the right text: with line ends and other controls before and behind it.
pub(super) fn around(field: &FieldDescriptor, right: Option<&[u8]>) -> Vec<Value> {
    let (Kind::String, Some(right)) = (field.kind(), right) else { return Vec::new() };
    let value = |content: Vec<u8>| Value {
        what: shown(&content),
        records: wire::bytes(field.number(), &content),
        nature: Nature::Control,
    };
    let behind = ["\r\n", "\n", "\r", "\0", "\x7f", "\u{85}", "\r\nX-Evil: 1"];
    let behind = behind.map(|control| value([right, control.as_bytes()].concat()));
    let before = ["\r\n", "\n", "\x1b"].map(|control| value([control.as_bytes(), right].concat()));
    behind.into_iter().chain(before).collect()
}

/// A value for people: not all of a long one.
fn shown(content: &[u8]) -> String {
    let start: String = content.escape_ascii().take(60).map(char::from).collect();
    format!("{start:?} ({} bytes)", content.len())
}

fn texts(number: u32) -> Vec<Value> {
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long_address = format!("a@{}example.org", "abcdefg.".repeat(31));
    let long_site = format!("sites/{}", "a".repeat(64));
    let longs =
        ["a".repeat(10_000), "a".repeat(1_000_000), "é".repeat(257), long_local, long_address, long_site];
    let value = |nature| {
        move |text: &str| Value {
            what: shown(text.as_bytes()),
            records: wire::bytes(number, text.as_bytes()),
            nature,
        }
    };
    let no_text: [&[u8]; 5] =
        [b"a\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ann@example.org\xfe"];
    let mut values: Vec<Value> = CONTROLS.into_iter().map(value(Nature::Control)).collect();
    values.extend(STRANGE.into_iter().map(value(Nature::Typed)));
    values.extend(longs.iter().map(|text| value(Nature::Typed)(text)));
    values.extend(no_text.map(|bytes| Value {
        what: shown(bytes),
        records: wire::bytes(number, bytes),
        nature: Nature::NoText,
    }));
    values
}

fn times(number: u32) -> Vec<Value> {
    let seconds = [0, 1, -1, 61, 604_800, 4_102_444_800, 253_402_300_799, 253_402_300_800, -62_135_596_801];
    let seconds = seconds.into_iter().chain([315_576_000_001, i64::MAX, i64::MIN]);
    let nanos = [0, 1, -1, 999_999_999, 1_000_000_000, i32::MAX, i32::MIN];
    let all = seconds.flat_map(|seconds| nanos.map(|nanos| (seconds, nanos)));
    all.filter(|(seconds, nanos)| seconds.unsigned_abs() % 2 == 0 || *nanos < 2)
        .map(|(seconds, nanos)| {
            let nanos_on_wire = i64::from(nanos).cast_unsigned();
            let content = [wire::number(1, seconds.cast_unsigned()), wire::number(2, nanos_on_wire)].concat();
            Value {
                what: format!("{seconds} s {nanos} ns"),
                records: wire::bytes(number, &content),
                nature: Nature::Typed,
            }
        })
        .collect()
}

fn masks(number: u32) -> Vec<Value> {
    let mut paths: Vec<Vec<String>> = STRANGE.iter().map(|path| vec![(*path).to_owned()]).collect();
    for list in
        [&["*"][..], &["name"], &["active", "active"], &["create_time"], &["check.state"], &["limits."]]
    {
        paths.push(list.iter().map(|path| (*path).to_owned()).collect());
    }
    paths.push(vec!["unknown".to_owned(); 10_000]);
    paths.push(vec!["a".repeat(100_000)]);
    let typed = paths.into_iter().map(|list| (list, Nature::Typed));
    let control = CONTROLS.into_iter().map(|path| (vec![path.to_owned()], Nature::Control));
    typed
        .chain(control)
        .map(|(list, nature)| {
            let content: Vec<u8> = list.iter().flat_map(|path| wire::bytes(1, path.as_bytes())).collect();
            Value { what: shown(&content), records: wire::bytes(number, &content), nature }
        })
        .collect()
}

/// What is no value of the field's type, or no protobuf at all.
fn malformed(number: u32, kind: &Kind) -> Vec<Value> {
    let right = if matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_)) { BYTES } else { VARINT };
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for wire_type in 0..8_u8 {
        if wire_type == right {
            continue;
        }
        // Texts have enough other values; a choice of two has not.
        let contents: &[&[u8]] = if matches!(kind, Kind::String) {
            &[b"\x03abc"]
        } else {
            &[b"", b"\x01", b"\x03abc", b"12345678"]
        };
        for content in contents {
            let records = [&wire::tag(number, wire_type), *content].concat();
            all.push((format!("wire type {wire_type}, {}", shown(content)), records));
        }
    }
    let tag = wire::tag(number, right);
    for content in [
        &b""[..],
        b"\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        b"\xff\xff\xff\xff\x0f",
    ] {
        all.push((format!("broken by {}", shown(content)), [&tag, content].concat()));
    }
    let empty = if right == BYTES { wire::bytes(number, b"") } else { wire::number(number, 0) };
    all.push(("a thousand times".to_owned(), empty.repeat(1_000)));
    for unknown in [15, 1_000, 19_000, 536_870_911] {
        all.push((format!("unknown field {unknown}"), [empty.clone(), wire::bytes(unknown, b"x")].concat()));
    }
    all.push(("field 0".to_owned(), [empty.clone(), b"\x00\x00".to_vec()].concat()));
    let deep = (0..1_000).fold(Vec::new(), |inner, _| {
        // What is small stays small: beyond a kilobyte it is deep enough.
        if inner.len() > 1_000 { inner } else { wire::bytes(number, &inner) }
    });
    all.push(("itself, again and again".to_owned(), deep));
    let groups = wire::tag(1_000, 3).repeat(500);
    all.push(("groups without end".to_owned(), [empty, groups].concat()));
    all.into_iter().map(|(what, records)| Value { what, records, nature: Nature::Malformed }).collect()
}
