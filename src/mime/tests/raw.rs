//! Raw messages: what is kept, mended, added, taken away and refused.

use time::OffsetDateTime;

use super::{MESSAGE_ID, assert_canonical, field_names};
use crate::mime::raw::{Raw, normalise};

fn normalised(text: &[u8]) -> Raw {
    let raw = normalise(text, OffsetDateTime::UNIX_EPOCH, MESSAGE_ID).expect("a message");
    assert_canonical(&raw.content.bytes);
    raw
}

fn refused(text: &[u8]) -> Vec<String> {
    let violations = normalise(text, OffsetDateTime::UNIX_EPOCH, MESSAGE_ID).expect_err("not a message");
    assert!(violations.iter().all(|v| v.field == "raw"));
    violations.into_iter().map(|v| v.description).collect()
}

#[test]
fn a_complete_message_keeps_every_byte() {
    let text = b"DKIM-Signature: v=1; h=from:to;\r\n\tb=abc\r\nFrom:  Ann <ann@example.com>\r\n\
        to: bob@example.org\r\nDATE: Sat, 21 Nov 2026 19:06:00 +0100\r\nMessage-Id:\r\n <1@example.com>\r\n\
        \r\n.\r\n\xff\xfe  \r\n\r\n";
    let raw = normalised(text);
    assert_eq!(raw.content.bytes, text);
    assert_eq!(raw.content.message_id, "<1@example.com>");
    assert!(raw.content.eight_bit && !raw.content.utf8_headers);
    assert_eq!(raw.from.name.as_deref(), Some("Ann"));
    assert_eq!(raw.to.len(), 1);
}

#[test]
fn what_is_missing_is_added_and_bcc_is_gone() {
    let raw = normalised(
        b"From: ann@example.com\nBcc: eve@example.com,\n\tmallory@example.com\nSubject: hi\nresent-bcc : x@example.com\n\
          BCC: trent@example.com\n\nbody",
    );
    assert_eq!(
        String::from_utf8_lossy(&raw.content.bytes),
        format!(
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: {MESSAGE_ID}\r\nFrom: ann@example.com\r\n\
             Subject: hi\r\n\r\nbody\r\n"
        )
    );
    assert_eq!(raw.content.message_id, MESSAGE_ID);
    let bcc: Vec<String> = raw.bcc.iter().map(|m| m.address.to_string()).collect();
    assert_eq!(bcc, ["eve@example.com", "mallory@example.com", "trent@example.com"]);
}

#[test]
fn line_ends_become_crlf() {
    for (text, body) in [
        (&b"From: a@b.cd\n\nx\ny"[..], "x\r\ny\r\n"),
        (b"From: a@b.cd\r\rx\ry\r", "x\r\ny\r\n"),
        (b"From: a@b.cd\r\n\r\n\r\nx\n\n", "\r\nx\r\n\r\n"),
        (b"From: a@b.cd\r\n\r\n", ""),
        (b"From: a@b.cd\r\n", ""),
        (b"From: a@b.cd", ""),
    ] {
        let raw = normalised(text);
        let bytes = String::from_utf8(raw.content.bytes).expect("UTF-8");
        assert!(bytes.ends_with(&format!("From: a@b.cd\r\n\r\n{body}")), "{text:?}: {bytes:?}");
    }
}

#[test]
fn mailboxes_in_every_form() {
    for (list, expected) in [
        ("ann@example.com", "-:ann@example.com"),
        ("Ann Lee <ann@example.com>", "Ann Lee:ann@example.com"),
        ("\"Lee, Ann\" <ann@example.com>", "Lee, Ann:ann@example.com"),
        ("\"A \\\"B\\\"\" <ann@example.com>", "A \"B\":ann@example.com"),
        ("ann@example.com (Ann)", "Ann:ann@example.com"),
        ("=?koi8-r?B?4c7OwQ==?= <ann@example.com>", "Анна:ann@example.com"),
        ("=?windows-1251?Q?=C0=ED=ED=E0?= <ann@example.com>", "Анна:ann@example.com"),
        ("=?iso-2022-jp?B?GyRCOzNFRBsoQg==?= <y@example.jp>", "山田:y@example.jp"),
        ("=?gb18030?B?1cXOsA==?= <z@example.cn>", "张伟:z@example.cn"),
        ("=?utf-8?Q?A=0D=0AB?= <ann@example.com>", "A B:ann@example.com"),
        ("Анна <ann@example.com>", "Анна:ann@example.com"),
        ("a@b.cd,\r\n\tC <c@d.ef>,\r\n e@f.gh", "-:a@b.cd C:c@d.ef -:e@f.gh"),
        ("undisclosed-recipients:;", ""),
        ("Friends: a@b.cd, C <c@d.ef>;, e@f.gh", "-:a@b.cd C:c@d.ef -:e@f.gh"),
        ("<ann@пример.рф>", "-:ann@xn--e1afmkfd.xn--p1ai"),
        ("<\"x, eve@example.net\"@b.cd>", "-:\"x, eve@example.net\"@b.cd"),
        // What looks like an address but is none.
        ("\"eve@example.net\" <c@d.ef>", "eve@example.net:c@d.ef"),
        ("\"x, eve@example.net\" <c@d.ef>", "x, eve@example.net:c@d.ef"),
        ("c@d.ef (x, eve@example.net)", "x, eve@example.net:c@d.ef"),
        ("=?utf-8?Q?=3Ceve=40example.net=3E=2C?= <c@d.ef>", "<eve@example.net>,:c@d.ef"),
        ("\"\\\" <eve@example.net>, \\\"\" <c@d.ef>", "\" <eve@example.net>, \":c@d.ef"),
    ] {
        let raw = normalised(format!("From: x@example.com\r\nTo: {list}\r\n\r\n").as_bytes());
        let got: Vec<String> =
            raw.to.iter().map(|m| format!("{}:{}", m.name.as_deref().unwrap_or("-"), m.address)).collect();
        assert_eq!(got.join(" "), expected, "{list}");
    }
}

#[test]
fn utf8_in_the_header() {
    let raw = normalised("From: x@example.com\r\nSubject: Привет\r\n\r\nbody".as_bytes());
    assert!(raw.content.utf8_headers && !raw.content.eight_bit);
    assert_eq!(refused(b"From: x@example.com\r\nSubject: \xf0\xd2\r\n\r\n").len(), 1);
}

#[test]
fn what_is_refused() {
    let long = format!("From: a@b.cd\r\n\r\n{}\r\n", "x".repeat(999));
    let huge = format!("From: a@b.cd\r\n{}\r\n", "X-A: y\r\n".repeat(140_000));
    for (text, why) in [
        ("", "has no From"),
        ("Subject: x\r\n\r\n", "has no From"),
        ("\r\nFrom: a@b.cd\r\n\r\n", "has no From"),
        ("From: a@b.cd\r\nno field\r\n\r\n", "line 2 of the header is no header field"),
        (
            "From ann Sat Nov 21 19:06:00 2026\r\nFrom: a@b.cd\r\n\r\n",
            "line 1 of the header is no header field",
        ),
        (" x\r\nFrom: a@b.cd\r\n\r\n", "begins with a continuation line"),
        ("From: a@b.cd\r\nX: \0\r\n\r\n", "line 2 of the header has a NUL"),
        ("From: a@b.cd, c@d.ef\r\n\r\n", "must have one From with one mailbox"),
        ("From: a@b.cd\r\nFrom: c@d.ef\r\n\r\n", "must have one From with one mailbox"),
        ("From: \r\n\r\n", "must have one From with one mailbox"),
        ("From: Ann\r\n\r\n", "From: address 1 must have the form local@domain"),
        ("From: a@b.cd\r\nTo: b@c.de, nobody\r\n\r\n", "To: address 2 must have the form local@domain"),
        (
            "From: a@b.cd\r\nTo: <a@b.cd b@c.de>\r\n\r\n",
            "To: address 1 the part before @ is not a valid local part",
        ),
        // Valid by RFC 5322, but mail-parser reads a quoted local part only inside <>: better refused than misread.
        ("From: a@b.cd\r\nTo: \"x y\"@b.cd\r\n\r\n", "To: address 1 must have the form local@domain"),
        (
            "From: a@b.cd\r\nTo: =?utf-8?Q?eve=40example.net?=\r\n\r\n",
            "To: address 1 must have the form local@domain",
        ),
        ("From: a@b.cd\r\nTo: Lee, Ann <a@b.cd>\r\n\r\n", "To: address 1 must have the form local@domain"),
        (
            "From: a@b.cd\r\nTo: <eve@example.net> <c@d.ef>\r\n\r\n",
            "To: address 1 the part before @ is not a valid local part",
        ),
        ("From: a@b.cd\r\nMessage-ID:\r\n\r\n", "has a Message-ID that is not valid"),
        (&long, "line 3 is longer than 998 bytes"),
        (&huge, "has a header section of more than 1 MiB"),
    ] {
        let got = refused(text.as_bytes());
        assert!(got.iter().any(|description| description == why), "{why}: {got:?}");
    }
}

#[test]
fn bcc_hides_in_no_form() {
    let raw = normalised(
        b"From: a@b.cd\r\nBcc: e1@b.cd\r\nbcc:\r\n e2@b.cd\r\nBCC\t: e3@b.cd\r\nSubject: x\r\n \r\nBcc: e4@b.cd\r\n\
          Bcc: \r\n\r\nBcc: in the body\r\n",
    );
    assert!(!field_names(&raw.content.bytes).iter().any(|name| name.contains("bcc")));
    assert_eq!(raw.bcc.len(), 4);
    let text = String::from_utf8(raw.content.bytes).expect("ASCII");
    assert!(!text.contains("@b.cd\r\n ") && !text.contains("e1@") && text.ends_with("Bcc: in the body\r\n"));
}
