//! Raw messages in other charsets than UTF-8, in the header and in the body.

use super::{Letter, Part, RawText};

/// Header lines of a letter of one text part.
fn header(from: &str, subject: &str, charset: &str, encoding: &str) -> String {
    format!(
        "From: {from}\r\nTo: bob@example.org\r\nSubject: {subject}\r\n\
         Date: Sat, 21 Nov 2026 19:06:00 +0000\r\nMessage-ID: <{charset}.{encoding}@example.com>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    )
}

fn letter(name: &'static str, header: &str, subject: &str, body: &[u8], bytes: &[u8], text: &str) -> Letter {
    RawText {
        name,
        header,
        bcc: "",
        body,
        recipients: &["bob@example.org"],
        hidden: &[],
        subject,
        parts: vec![Part::new("text/plain", bytes).reads(text)],
    }
    .letter()
}

pub(super) fn letters() -> Vec<Letter> {
    let koi8 = b"\xe4\xcf\xc2\xd2\xd9\xca \xc4\xc5\xce\xd8!\r\n\xf3\xde\xa3\xd4 17 \xd7\xcf \xd7\xcc\xcf\xd6\xc5\xce\xc9\xc9.\r\n";
    let cp1251 = b"\xc4\xee\xe3\xee\xe2\xee\xf0 \xef\xee\xe4\xef\xe8\xf1\xe0\xed.\r\n";
    let jis = b"\x1b$B$*@$OC$K$J$C$F$*$j$^$9!#\x1b(B\r\n\x1b$B@A5a=q$r$*Aw$j$7$^$9!#\x1b(B\r\n";
    let gb = b"\xc4\xfa\xba\xc3\xa3\xac\r\n\xb7\xa2\xc6\xb1\xd2\xd1\xbf\xaa\xbe\xdf\xa1\xa3\r\n";
    let latin2 = b"Dobr\xfd den,\r\nzpr\xe1va v p\xf8\xedloze.\r\n";
    vec![
        letter(
            "KOI8-R in 8 bits",
            &header("=?koi8-r?B?6dfBzg==?= <ivan@example.com>", "=?koi8-r?B?896j1A==?=", "koi8-r", "8bit"),
            "Счёт",
            koi8,
            koi8,
            "Добрый день!\r\nСчёт 17 во вложении.\r\n",
        ),
        letter(
            "windows-1251 in base64",
            &header(
                "=?windows-1251?B?yOLg7Q==?= <ivan@example.com>",
                "=?windows-1251?B?xO7j7uLu8A==?=",
                "windows-1251",
                "base64",
            ),
            "Договор",
            b"xO7j7uLu8CDv7uTv6PHg7S4NCg==\r\n",
            cp1251,
            "Договор подписан.\r\n",
        ),
        letter(
            "ISO-2022-JP in 7 bits",
            &header(
                "=?iso-2022-jp?B?GyRCOzNFREJATzobKEI=?= <yamada@example.com>",
                "=?iso-2022-jp?B?GyRCQEE1YT1xGyhC?=",
                "iso-2022-jp",
                "7bit",
            ),
            "請求書",
            jis,
            jis,
            "お世話になっております。\r\n請求書をお送りします。\r\n",
        ),
        letter(
            "GB18030 in base64",
            &header(
                "=?gb18030?B?1cXOsA==?= <zhang@example.com>",
                "=?gb18030?B?t6LGsQ==?=",
                "gb18030",
                "base64",
            ),
            "发票",
            b"xPq6w6OsDQq3osax0tG/qr7foaMNCg==\r\n",
            gb,
            "您好，\r\n发票已开具。\r\n",
        ),
        letter(
            "ISO-8859-2 in quoted-printable",
            &header(
                "=?iso-8859-2?B?UPhlbXlzbCBEdm/44Ws=?= <premysl@example.com>",
                "=?iso-8859-2?Q?Zpr=E1va?=",
                "iso-8859-2",
                "quoted-printable",
            ),
            "Zpráva",
            b"Dobr=FD den,\r\nzpr=E1va v p=F8=\r\n=EDloze.\r\n",
            latin2,
            "Dobrý den,\r\nzpráva v příloze.\r\n",
        ),
        letter(
            "UTF-8 in 8 bits",
            &header("ivan@example.com", "=?utf-8?B?0KHRh9GR0YI=?=", "utf-8", "8bit"),
            "Счёт",
            "Добрый день — счёт.\r\n".as_bytes(),
            "Добрый день — счёт.\r\n".as_bytes(),
            "Добрый день — счёт.\r\n",
        ),
        letter(
            "UTF-8 in the header",
            &header("Иван Петров <ivan@example.com>", "Счёт № 17", "utf-8", "8bit"),
            "Счёт № 17",
            "счёт\r\n".as_bytes(),
            "счёт\r\n".as_bytes(),
            "счёт\r\n",
        ),
    ]
}
