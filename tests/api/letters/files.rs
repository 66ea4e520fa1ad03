//! Composed letters with files, from none to 20 MiB; their bytes are made from a seed, not stored.

use super::{Attachment, Composed, Letter, composed, noise, strings};

const MIB: usize = 1 << 20;

fn file(filename: &str, content_type: &str, content: impl Into<Vec<u8>>) -> Attachment {
    Attachment {
        filename: filename.to_owned(),
        content_type: content_type.to_owned(),
        content: content.into(),
        content_id: String::new(),
    }
}

fn with(name: &'static str, attachments: Vec<Attachment>) -> Letter {
    composed(
        name,
        Composed {
            from: "Портал <portal@example.com>".to_owned(),
            to: strings(&["bob@example.org"]),
            subject: format!("Files: {name}"),
            text: "See the files.\r\n".to_owned(),
            attachments,
            ..Composed::default()
        },
    )
}

pub(super) fn letters() -> Vec<Letter> {
    let forwarded = "Received: from a by b; Sat, 21 Nov 2026 19:06:00 +0000\r\nFrom: Carl <carl@example.net>\r\n\
        Subject: =?utf-8?B?0JTQsA==?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n\
        --in\r\n\r\n.\r\n--in\r\nContent-Type: text/html\r\n\r\n<p>\r\n--in--\r\n";
    let mut eight_bit = with(
        "forwarded message in 8 bits",
        vec![file("alt.eml", "message/rfc822", "From: c@example.net\r\nSubject: x\r\n\r\nпривет\r\n")],
    );
    // It may not be encoded under its own type, so it comes as a file.
    "application/octet-stream".clone_into(&mut eight_bit.parts[1].content_type);
    vec![
        with("an empty one", vec![file("empty.bin", "application/octet-stream", "")]),
        with("no name and no type", vec![file("", "", "1")]),
        with("binary of all values", vec![file("all.bin", "", (0..=255).collect::<Vec<u8>>())]),
        with(
            "text files keep their line ends",
            vec![
                file("unix.txt", "text/plain", "a\nb\n"),
                file("dos.csv", "text/csv; header=present", "имя;сумма\r\nАнна;1\r\n"),
                file("mac.txt", "text/plain; charset=us-ascii", "a\rb\r"),
                file("old.txt", "text/plain; charset=windows-1251", b"\xcf\xf0\xe8\n\x00"),
            ],
        ),
        with(
            "names in many scripts",
            vec![
                file(
                    "Договор поставки № 17 от 21 ноября 2026 года (подписанный экземпляр).pdf",
                    "application/pdf",
                    "1",
                ),
                file(
                    "Factură și plată.xlsx",
                    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
                    "2",
                ),
                file("发票.pdf", "application/pdf", "3"),
                file("فاتورة.pdf", "application/pdf", "4"),
                file("🎉.gif", "image/gif", "5"),
                file("a \"b\" \\ c; d='e' 100%.txt", "application/x-odd", "6"),
                file(&"long-name-".repeat(25), "application/x-odd", "7"),
            ],
        ),
        with("forwarded message", vec![file("letter.eml", "message/rfc822", forwarded)]),
        eight_bit,
        with(
            "calendar invite as a file",
            vec![file(
                "invite.ics",
                "text/calendar; method=REQUEST; charset=utf-8",
                "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Встреча\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
            )],
        ),
        with(
            "40 small ones",
            (0..40)
                .map(|n| file(&format!("scan-{n:02}.jpg"), "image/jpeg", noise(n, 1_000 + 57 * 7)))
                .collect(),
        ),
        with("1 MiB", vec![file("photo.jpg", "image/jpeg", noise(11, MIB))]),
        with(
            "18 MiB, just below the default limit",
            vec![
                file("a.zip", "application/zip", noise(12, 10 * MIB)),
                file("b.zip", "application/zip", noise(13, 8 * MIB)),
            ],
        ),
        with("20 MiB", vec![file("video.mp4", "video/mp4", noise(14, 20 * MIB))]),
    ]
}
