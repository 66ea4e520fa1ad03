//! Properties of all letters: random parts arrive as they were given, random input never panics.

use mail_parser::MimeHeaders;
use proptest::prelude::*;
use time::OffsetDateTime;

use super::{MESSAGE_ID, assert_canonical, decoded, empty, field_names, mailbox, parsed};
use crate::domain::address::Mailbox;
use crate::mime::compose::{Attachment, Composed, compose};
use crate::mime::raw::normalise;

/// Text without control characters and without space at its ends, of ASCII, marks and every script.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{1,60}",
        "([a-z]{1,12} ){1,30}x",
        "[\\PC]{1,80}",
        "[а-яё🎉\"\\\\=?_,;:<>@ ]{1,300}",
        "[a-z]{100,2000}",
    ]
    .prop_map(|text| text.replace(char::is_control, "").trim().to_owned())
    .prop_filter("something is left", |text| !text.is_empty())
}

/// White space folded as readers of structured fields do.
fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_arrive(subject in words(), name in words(), value in words()) {
        let from = mailbox("ann@example.com");
        let name: String = name.chars().take(256).collect();
        let to = [Mailbox { name: Some(name.trim().to_owned()), ..from.clone() }, from.clone()];
        let headers = [("Comments".to_owned(), value.clone())];
        let letter = Composed { to: &to, subject: &subject, headers: &headers, ..empty(&from) };
        let content = compose(&letter).expect("a letter");
        assert_canonical(&content.bytes);
        prop_assert!(content.bytes.is_ascii());
        let message = parsed(&content.bytes);
        prop_assert_eq!(message.subject(), Some(subject.as_str()));
        prop_assert_eq!(message.header("Comments").and_then(|h| h.as_text()), Some(value.as_str()));
        let got = message.to().and_then(|to| to.as_list()).expect("To");
        prop_assert_eq!(got.len(), 2);
        let expected = crate::mime::words::decode(to[0].name.as_deref().unwrap_or_default());
        prop_assert_eq!(folded(got[0].name().unwrap_or_default()), folded(&expected));
        prop_assert_eq!(got[0].address(), Some("ann@example.com"));
    }

    #[test]
    fn bodies_arrive(text in "(\\PC|[\r\n\0 .=\t]|From |\\.\r\n|\r\n){0,300}", html in "(\\PC|[\r\n ]){1,100}") {
        let from = mailbox("ann@example.com");
        for html in ["", html.as_str()] {
            let content = compose(&Composed { text: &text, html, ..empty(&from) }).expect("a letter");
            assert_canonical(&content.bytes);
            let message = parsed(&content.bytes);
            if text.is_empty() && !html.is_empty() {
                continue;
            }
            let part = message.parts.iter().find(|part| part.is_content_type("text", "plain")).expect("text");
            let got = decoded(&message, part);
            if got != text.as_bytes() {
                // Only where every line break was a bare LF.
                prop_assert!(!text.contains('\r') && !text.contains('\0'));
                prop_assert_eq!(got, text.replace('\n', "\r\n").into_bytes());
            }
        }
    }

    #[test]
    fn attachments_arrive(
        filename in words(),
        content in proptest::collection::vec(any::<u8>(), 0..500),
        kind in prop_oneof![Just(""), Just("text/plain"), Just("image/png"), Just("multipart/mixed; boundary=a"), Just("application/pdf; name=\"x\"")],
        content_id in prop_oneof![Just(""), Just("logo@example.com")],
    ) {
        let from = mailbox("ann@example.com");
        let filename: String = filename.chars().take(255).collect();
        let filename = filename.trim();
        let files = [
            Attachment { filename, content_type: kind, content: &content, content_id },
            Attachment { filename: "last", content_type: "", content: b"end", content_id: "" },
        ];
        let letter = Composed { text: "t", html: "<p>", attachments: &files, ..empty(&from) };
        let bytes = compose(&letter).expect("a letter").bytes;
        assert_canonical(&bytes);
        prop_assert!(bytes.is_ascii());
        let message = parsed(&bytes);
        let named = |name: &str| message.parts.iter().find(|part| part.content_disposition().and_then(|d| d.attribute("filename")) == Some(name));
        let part = named(filename).expect("the file");
        prop_assert_eq!(decoded(&message, part), content);
        prop_assert_eq!(part.content_id().unwrap_or_default(), content_id);
        prop_assert_eq!(decoded(&message, named("last").expect("the last file")), b"end");
    }

    #[test]
    fn nothing_gets_out_of_its_field(text in "(\\PC|[\r\n\t\0\u{85}]|\r\nBcc: eve@example.com\r\n|:|;|\"){0,60}") {
        let from = Mailbox { name: Some(text.clone()), ..mailbox("ann@example.com") };
        let headers = [("X-Test".to_owned(), text.clone())];
        let files = [Attachment { filename: &text, content_type: &text, content: b"", content_id: &text }];
        let own = mailbox("ann@example.com");
        for letter in [
            empty(&from),
            Composed { subject: &text, ..empty(&own) },
            Composed { headers: &headers, ..empty(&own) },
            Composed { attachments: &files, html: "<p>", ..empty(&own) },
        ] {
            let Ok(content) = compose(&letter) else { continue };
            assert_canonical(&content.bytes);
            prop_assert!(!field_names(&content.bytes).iter().any(|name| name == "bcc"));
        }
        if text.contains(char::is_control) {
            prop_assert!(compose(&empty(&from)).is_err());
        }
    }

    #[test]
    fn raw_never_panics(text in "(From: a@b.cd\r\n|Bcc:|[:\r\n \t<>\"(),;@=?]|\\PC|\r\n\r\n){0,60}", tail in proptest::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [text.as_bytes(), &tail].concat();
        if let Ok(raw) = normalise(&bytes, OffsetDateTime::UNIX_EPOCH, MESSAGE_ID) {
            assert_canonical(&raw.content.bytes);
            let header_end = raw.content.bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line");
            let header = String::from_utf8_lossy(&raw.content.bytes[..header_end]).to_ascii_lowercase();
            prop_assert!(!header.lines().any(|line| line.starts_with("bcc:")));
            // Once canonical, always canonical.
            let again = normalise(&raw.content.bytes, OffsetDateTime::UNIX_EPOCH, MESSAGE_ID).expect("the same");
            prop_assert_eq!(again.content.bytes, raw.content.bytes);
        }
    }
}
