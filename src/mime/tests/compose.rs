//! Composed letters: their form, what arrives, what is refused.

use mail_parser::MimeHeaders;

use super::{assert_canonical, decoded, empty, field_names, header, mailbox, parsed};
use crate::domain::address::Mailbox;
use crate::domain::error::Violation;
use crate::mime::compose::{Attachment, Composed, compose};

fn file<'a>(
    filename: &'a str,
    content_type: &'a str,
    content: &'a [u8],
    content_id: &'a str,
) -> Attachment<'a> {
    Attachment { filename, content_type, content, content_id }
}

fn bytes(letter: &Composed<'_>) -> Vec<u8> {
    let content = compose(letter).expect("a letter");
    assert_canonical(&content.bytes);
    assert!(content.bytes.is_ascii());
    content.bytes
}

#[test]
fn a_plain_letter_to_the_byte() {
    let from = mailbox("Анна <ann@example.com>");
    let to = [mailbox("Lee, Bob <bob@example.org>"), mailbox("carl@example.net")];
    let headers = [("X-Order".to_owned(), "17".to_owned())];
    let letter = Composed { to: &to, subject: "Café", text: "Hi,\nbye", headers: &headers, ..empty(&from) };
    assert_eq!(
        String::from_utf8(bytes(&letter)).expect("ASCII"),
        "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\
         From: =?utf-8?B?0JDQvdC90LA=?= <ann@example.com>\r\n\
         To: \"Lee, Bob\" <bob@example.org>, carl@example.net\r\n\
         Subject: =?utf-8?B?Q2Fmw6k=?=\r\n\
         Message-ID: <0192f0c1-7d1a-7000-8000-0123456789ab@example.com>\r\n\
         X-Order: 17\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\
         \r\n\
         Hi,\r\n\
         bye=\r\n"
    );
}

#[test]
fn the_tree_has_only_the_levels_it_needs() {
    let from = mailbox("ann@example.com");
    let picture = || file("a.png", "image/png", b"png", "logo@x");
    let pdf = || file("a.pdf", "application/pdf", b"pdf", "");
    for (text, html, files, tree) in [
        ("", "", vec![], "text/plain"),
        ("a", "", vec![], "text/plain"),
        ("", "<p>", vec![], "text/html"),
        ("a", "<p>", vec![], "multipart/alternative text/plain text/html"),
        ("a", "", vec![pdf()], "multipart/mixed text/plain application/pdf"),
        ("", "", vec![pdf()], "multipart/mixed text/plain application/pdf"),
        ("", "<p>", vec![picture()], "multipart/related text/html image/png"),
        ("a", "", vec![picture()], "multipart/mixed text/plain image/png"),
        (
            "a",
            "<p>",
            vec![pdf(), picture(), pdf()],
            "multipart/mixed multipart/alternative text/plain multipart/related text/html image/png \
             application/pdf application/pdf",
        ),
    ] {
        let bytes = bytes(&Composed { text, html, attachments: &files, ..empty(&from) });
        let message = parsed(&bytes);
        let types: Vec<String> = message
            .parts
            .iter()
            .filter_map(|part| part.content_type())
            .map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()))
            .collect();
        assert_eq!(types.join(" "), tree);
    }
}

#[test]
fn bodies_arrive_byte_for_byte() {
    let long = "x".repeat(100_000);
    let dots = ".\r\n..\r\n.\r\n";
    let from = mailbox("ann@example.com");
    for text in [
        "a",
        "a\r\n",
        "a\r\n\r\n",
        " a \r\n\tb\t",
        "a\rb",
        "\r",
        "\n\r",
        "a\0b",
        dots,
        &long,
        "From me\r\n",
        "=3D=\r\n",
        "\u{feff}a",
        "\u{1f600}",
        "a\nb\r\nc",
        "\u{1}\u{7f}\u{85}",
        &"x".repeat(76),
        &"x=".repeat(76),
        &" ".repeat(200),
    ] {
        for html in ["", "<p>"] {
            let bytes = bytes(&Composed { text, html, ..empty(&from) });
            let message = parsed(&bytes);
            let part = message.parts.iter().find(|part| part.is_content_type("text", "plain")).expect("text");
            assert_eq!(String::from_utf8(decoded(&message, part)).expect("UTF-8"), text, "{html:?}");
        }
    }
}

#[test]
fn attachments_arrive_byte_for_byte() {
    let from = mailbox("ann@example.com");
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let forwarded = b"From: bob@example.org\r\nSubject: hi\r\n\r\n.\r\nbye";
    for (name, content_type, content, sent_type) in [
        ("a.bin", "", &binary[..], "application/octet-stream"),
        ("empty.txt", "text/plain", b"", "text/plain"),
        ("a.csv", "text/csv", "имя\nАнна\r".as_bytes(), "text/csv"),
        ("old.txt", "text/plain; charset=koi8-r", b"\xf0\xd2\n", "text/plain"),
        ("letter.eml", "message/rfc822", forwarded, "message/rfc822"),
        ("bare.eml", "message/rfc822", b"From: bob@example.org\n\nbye\n", "application/octet-stream"),
        ("eight.eml", "message/rfc822", b"From: b@example.org\r\n\r\n\xff\r\n", "application/octet-stream"),
        (
            "parts.bin",
            "multipart/mixed; boundary=x",
            b"--x\r\n\r\na\r\n--x--\r\n",
            "application/octet-stream",
        ),
        ("Отчёт за год.pdf", "application/pdf", b"%PDF", "application/pdf"),
        ("a\"b\\c;d.txt", "application/x", b"1", "application/x"),
        ("=?utf-8?q?x?=.txt", "application/x", b"1", "application/x"),
    ] {
        let files = [file(name, content_type, content, ""), file("z", "a/b", b"last", "")];
        let bytes = bytes(&Composed { text: "t", attachments: &files, ..empty(&from) });
        let message = parsed(&bytes);
        let part = message.attachment(0).expect(name);
        assert_eq!(decoded(&message, part), content, "{name}");
        assert_eq!(part.attachment_name(), Some(name));
        let got = part.content_type().expect("a type");
        assert_eq!(format!("{}/{}", got.ctype(), got.subtype().unwrap_or_default()), sent_type, "{name}");
        let last = message.attachment(1).expect("the last one");
        assert_eq!(decoded(&message, last), b"last", "{name}");
    }
}

#[test]
fn long_lists_and_texts_are_folded() {
    let from = mailbox("ann@example.com");
    let to: Vec<Mailbox> =
        (0..1_000).map(|n| mailbox(&format!("Получатель {n} <person{n}@example.com>"))).collect();
    let subject = "Тема письма ".repeat(416);
    let references = "<0123456789012345678901234567890123456789@example.com> ".repeat(100);
    let headers =
        [("References".to_owned(), references.trim().to_owned()), ("Comments".to_owned(), "y".repeat(9_000))];
    let letter = Composed { to: &to, subject: subject.trim(), headers: &headers, ..empty(&from) };
    let bytes = bytes(&letter);
    assert!(header(&bytes).lines().all(|line| line.len() <= 78), "{}", header(&bytes));
    let message = parsed(&bytes);
    assert_eq!(message.subject(), Some(subject.trim()));
    let got = message.to().expect("To").as_list().expect("a list");
    let expected: Vec<_> = to.iter().map(|m| (m.name.as_deref(), m.address.to_string())).collect();
    let got: Vec<_> = got.iter().map(|a| (a.name(), a.address().unwrap_or_default().to_owned())).collect();
    assert_eq!(got, expected);
    assert!(message.header("Comments").and_then(|h| h.as_text()) == Some(headers[1].1.as_str()));
    assert_eq!(message.header("Subject").and_then(|h| h.as_text()), Some(subject.trim()));
    assert_eq!(message.references().as_text_list().map(<[_]>::len), Some(100));
}

#[test]
fn without_visible_recipients() {
    let from = mailbox("ann@example.com");
    assert!(header(&bytes(&empty(&from))).contains("\r\nTo: undisclosed-recipients:;\r\n"));
}

#[test]
fn an_address_outside_ascii_needs_smtputf8() {
    let from = mailbox("Анна <анна@пример.рф>");
    let content = compose(&empty(&from)).expect("a letter");
    assert!(content.utf8_headers && !content.eight_bit);
    assert!(header(&content.bytes).contains("<анна@xn--e1afmkfd.xn--p1ai>"));
}

#[test]
fn what_is_refused_is_named() {
    let from = mailbox("ann@example.com");
    let bad = Mailbox { name: Some("Ann\r\nBcc: eve@example.com".to_owned()), ..from.clone() };
    let good = from.clone();
    let long = "n".repeat(256);
    let files = [
        file("ok", "", b"", "id1"),
        file("a\nb", "text", b"", "x y"),
        file(&long, "a/b\r\nX: y", b"", "<id1>"),
    ];
    let headers: Vec<(String, String)> = [
        ("X-Good", "fine"),
        ("Bcc", "eve@example.com"),
        ("content-type", "text/html"),
        ("Resent-To", "x@example.com"),
        ("DKIM-Signature", "v=1"),
        ("X Y", "a"),
        ("X:Y", "a"),
        ("", "a"),
        ("X-A", "a\r\nBcc: eve@example.com"),
        ("X-B", "a\u{85}"),
        ("X-C", ""),
        ("Xé", "a"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let letter = Composed {
        to: &[good, bad.clone()],
        cc: std::slice::from_ref(&bad),
        reply_to: std::slice::from_ref(&bad),
        subject: "a\0",
        attachments: &files,
        headers: &headers,
        ..empty(&bad)
    };
    let violations = compose(&letter).expect_err("all of it is bad");
    let fields: Vec<&str> = violations.iter().map(|Violation { field, .. }| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "from_address",
            "to[1]",
            "cc[0]",
            "composed.reply_to[0]",
            "composed.subject",
            "composed.attachments[1].filename",
            "composed.attachments[1].content_type",
            "composed.attachments[1].content_id",
            "composed.attachments[2].filename",
            "composed.attachments[2].content_type",
            "composed.attachments[2].content_id",
            "composed.headers[1].name",
            "composed.headers[2].name",
            "composed.headers[3].name",
            "composed.headers[4].name",
            "composed.headers[5].name",
            "composed.headers[6].name",
            "composed.headers[7].name",
            "composed.headers[8].value",
            "composed.headers[9].value",
            "composed.headers[10].value",
            "composed.headers[11].name",
        ]
    );
}

#[test]
fn limits() {
    let from = mailbox("ann@example.com");
    let subject = "ы".repeat(10_001);
    let many = vec![("X-A".to_owned(), "a".to_owned()); 101];
    let long = [("X-A".to_owned(), "a".repeat(10_001)), ("X".repeat(77), "a".to_owned())];
    for (letter, expected) in [
        (Composed { subject: &subject, ..empty(&from) }, vec!["composed.subject"]),
        (Composed { headers: &many, ..empty(&from) }, vec!["composed.headers"]),
        (
            Composed { headers: &long, ..empty(&from) },
            vec!["composed.headers[0].value", "composed.headers[1].name"],
        ),
    ] {
        let violations = compose(&letter).expect_err("over a limit");
        let fields: Vec<_> = violations.into_iter().map(|v| v.field).collect();
        assert_eq!(fields, expected);
    }
}

#[test]
fn fields_stand_once_and_in_order() {
    let from = mailbox("ann@example.com");
    let list = [mailbox("bob@example.org")];
    let letter = Composed { to: &list, cc: &list, reply_to: &list, subject: "s", text: "t", ..empty(&from) };
    assert_eq!(
        field_names(&bytes(&letter)),
        [
            "date",
            "from",
            "reply-to",
            "to",
            "cc",
            "subject",
            "message-id",
            "mime-version",
            "content-type",
            "content-transfer-encoding"
        ]
    );
}
