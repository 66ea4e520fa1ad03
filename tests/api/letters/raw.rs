//! Raw messages as mail programs make them: nested, signed, reports, lists, with and without Bcc.

use super::{Letter, Part, RawText};

/// From, Date and Message-ID of most of them.
const START: &str = "From: Ann Lee <ann@example.com>\r\nTo: Bob <bob@example.org>\r\n\
    Date: Sat, 21 Nov 2026 20:06:00 +0100\r\nMessage-ID: <raw@example.com>\r\nMIME-Version: 1.0\r\n";

/// A letter to Bob whose header begins as usual.
fn to_bob(name: &'static str, subject: &'static str, header: &str, body: &[u8], parts: Vec<Part>) -> Letter {
    let header = format!("{START}Subject: {subject}\r\n{header}");
    RawText {
        name,
        header: &header,
        bcc: "",
        body,
        recipients: &["bob@example.org"],
        hidden: &[],
        subject,
        parts,
    }
    .letter()
}

fn plain(text: &str) -> Part {
    Part::new("text/plain", text)
}

pub(super) fn letters() -> Vec<Letter> {
    [nested(), signed(), reports(), repaired(), addressed(), lines()].into_iter().flatten().collect()
}

fn nested() -> Vec<Letter> {
    let inner = "From: Carl <carl@example.net>\r\nTo: ann@example.com\r\nSubject: old\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/alternative; boundary=b2\r\n\r\n--b2\r\n\r\nold text\r\n--b2\r\n\
        Content-Type: text/html\r\n\r\n<p>old</p>\r\n--b2--";
    let forwarded = format!(
        "--b1\r\n\r\nsee below\r\n--b1\r\nContent-Type: message/rfc822\r\nContent-Disposition: inline\r\n\r\n{inner}\r\n--b1--\r\n"
    );
    vec![
        to_bob(
            "nested multiparts",
            "Report",
            "Content-Type: multipart/mixed; boundary=\"m 1\"\r\n",
            b"Preamble\r\n--m 1\r\nContent-Type: multipart/related; boundary=r1\r\n\r\n--r1\r\n\
              Content-Type: multipart/alternative; boundary=a1\r\n\r\n--a1\r\nContent-Type: text/plain\r\n\r\ntext\r\n--a1\r\n\
              Content-Type: text/html\r\n\r\n<img src=cid:p>\r\n--a1--\r\n--r1\r\nContent-Type: image/gif\r\n\
              Content-Transfer-Encoding: base64\r\nContent-ID: <p>\r\n\r\nR0lGODlh\r\n--r1--\r\n--m 1\r\n\
              Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\
              Content-Disposition: attachment;\r\n\tfilename*0*=utf-8''%D0%9E%D1%82;\r\n\tfilename*1*=%D1%87%D1%91%D1%82;\r\n\
              \tfilename*2=\".pdf\"\r\n\r\nJVBERi0=\r\n--m 1--\r\nEpilogue\r\n",
            vec![
                plain("text"),
                Part::new("text/html", "<img src=cid:p>"),
                Part { content_id: "p".to_owned(), ..Part::new("image/gif", "GIF89a") },
                Part::new("application/pdf", "%PDF-").named("Отчёт.pdf"),
            ],
        ),
        to_bob(
            "forwarded message inside",
            "Fwd: old",
            "Content-Type: multipart/mixed; boundary=b1\r\n",
            forwarded.as_bytes(),
            vec![plain("see below"), Part::new("message/rfc822", inner)],
        ),
        to_bob(
            "calendar invite as an alternative",
            "Invitation",
            "Content-Type: multipart/alternative; boundary=c1\r\n",
            "--c1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nВстреча\r\n--c1\r\n\
             Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:Встреча\r\nEND:VCALENDAR\r\n\r\n--c1--\r\n"
                .as_bytes(),
            vec![
                plain("Встреча"),
                Part::new(
                    "text/calendar",
                    "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:Встреча\r\nEND:VCALENDAR\r\n",
                ),
            ],
        ),
    ]
}

fn signed() -> Vec<Letter> {
    vec![
        to_bob(
            "DKIM signature, odd spaces kept",
            "signed",
            "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.com; s=k1;\r\n h=From:To:Subject;\r\n\
             \tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n\tb=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n\
             ARC-Seal:   i=1;  a=rsa-sha256;\tcv=none\r\nx-Odd-Case:   kept  \r\n",
            b"  two spaces  \r\n\t\r\n\r\n\r\n",
            vec![plain("  two spaces  \r\n\t\r\n\r\n\r\n")],
        ),
        to_bob(
            "S/MIME, signature apart",
            "signed",
            "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=s1\r\n",
            b"This is an S/MIME signed message\r\n\r\n--s1\r\nContent-Type: text/plain\r\n\r\nsigned text \r\n--s1\r\n\
              Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\
              Content-Disposition: attachment; filename=smime.p7s\r\n\r\nMIIBAA==\r\n--s1--\r\n",
            vec![
                plain("signed text "),
                Part::new("application/pkcs7-signature", b"\x30\x82\x01\x00").named("smime.p7s"),
            ],
        ),
        to_bob(
            "PGP in the text",
            "clear-signed",
            "",
            b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n- -- \r\ntext\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\n\
              iHUEARYK\r\n=abcd\r\n-----END PGP SIGNATURE-----\r\n",
            vec![plain(
                "-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n- -- \r\ntext\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\n\
                 iHUEARYK\r\n=abcd\r\n-----END PGP SIGNATURE-----\r\n",
            )],
        ),
    ]
}

fn reports() -> Vec<Letter> {
    vec![
        to_bob(
            "read receipt",
            "Read: Invoice",
            "Content-Type: multipart/report; report-type=disposition-notification; boundary=n1\r\nAuto-Submitted: auto-replied\r\n",
            b"--n1\r\n\r\nIt was displayed.\r\n--n1\r\nContent-Type: message/disposition-notification\r\n\r\n\
              Final-Recipient: rfc822;ann@example.com\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--n1--\r\n",
            vec![
                plain("It was displayed."),
                Part::new(
                    "message/disposition-notification",
                    "Final-Recipient: rfc822;ann@example.com\r\n\
                     Disposition: manual-action/MDN-sent-manually; displayed\r\n",
                ),
            ],
        ),
        to_bob(
            "post of a mailing list",
            "[list] Re: plans",
            "Sender: list-bounces@lists.example.com\r\nList-Id: <list.lists.example.com>\r\n\
             List-Unsubscribe: <mailto:list-leave@lists.example.com>,\r\n <https://lists.example.com/leave/0123456789>\r\n\
             List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nReferences: <1@example.com>\r\n\t<2@example.com>\r\n \
             <3@example.com>\r\nPrecedence: list\r\nContent-Type: text/plain; format=flowed; delsp=yes\r\n",
            b"flowed \r\ntext\r\n-- \r\nann\r\n",
            vec![plain("flowed \r\ntext\r\n-- \r\nann\r\n")],
        ),
    ]
}

fn repaired() -> Vec<Letter> {
    let body = "line one\r\n.\r\n\r\nline two\r\n";
    let letter = |name: &'static str, bcc: &str, hidden: &[&str], line_end: &str| {
        RawText {
            name,
            header: &format!("From: ann@example.com\r\nTo: bob@example.org\r\nSubject: {name}\r\n"),
            bcc,
            body: body.as_bytes(),
            recipients: &[&["bob@example.org"], hidden].concat(),
            hidden,
            subject: name,
            parts: vec![plain(body)],
        }
        .letter_with(line_end)
    };
    let eve = "eve@hidden.example.net";
    let frank = "frank@hidden.example.net";
    vec![
        letter("without Date and Message-ID", "", &[], "\r\n"),
        letter("bare LF", "", &[], "\n"),
        letter("bare CR", "", &[], "\r"),
        letter("Bcc", "Bcc: Eve <eve@hidden.example.net>\r\n", &[eve], "\r\n"),
        letter(
            "Bcc, folded and twice",
            "BCC: Eve\r\n <eve@hidden.example.net>,\r\n\tfrank@hidden.example.net\r\nbcc :\r\n\
             Resent-Bcc: x@hidden.example.net\r\n",
            &[eve, frank],
            "\r\n",
        ),
        letter(
            "Bcc with bare LF",
            "Bcc: =?utf-8?B?0JXQstCw?=\r\n <eve@hidden.example.net>\r\n",
            &[eve],
            "\n",
        ),
    ]
}

fn addressed() -> Vec<Letter> {
    let end = "Date: Sat, 21 Nov 2026 20:06:00 +0100\r\nMessage-ID: <raw@example.com>\r\nSubject: people\r\n";
    let team: Vec<String> =
        (0..150).map(|n| format!("\"Person, {n}\" <person{n}@team.example.org>")).collect();
    let many = format!("From: ann@example.com\r\nTo: {}\r\n{end}", team.join(",\r\n\t"));
    let addresses: Vec<String> = (0..150).map(|n| format!("person{n}@team.example.org")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let groups = format!(
        "From: =?utf-8?Q?Anna_=C8=98tefan?= (Sales) <ann@example.com>\r\nTo: Team: bob@example.org, Carl\r\n <carl@example.org>;\r\n\
         Cc: dora@example.org (Dora), Nobody:;\r\n{end}"
    );
    let letter = |name, header: &str, recipients: &[&str]| {
        let parts = vec![plain("x\r\n")];
        RawText { name, header, bcc: "", body: b"x\r\n", recipients, hidden: &[], subject: "people", parts }
            .letter()
    };
    vec![
        letter("150 recipients", &many, &addresses),
        letter("groups and comments", &groups, &["bob@example.org", "carl@example.org", "dora@example.org"]),
    ]
}

fn lines() -> Vec<Letter> {
    let longest = format!("{}\r\n{}\r\n", "x".repeat(998), ".".repeat(998));
    let dots = ".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n";
    let header = format!("X-Longest: {}\r\n", "y".repeat(987));
    vec![
        to_bob("lines of 998", "long", &header, longest.as_bytes(), vec![plain(&longest)]),
        to_bob("dots", "dots", "", dots.as_bytes(), vec![plain(dots)]),
        to_bob("no body", "nothing", "", b"", vec![plain("")]),
    ]
}
