//! Composed letters without large files: scripts, lists, long lines, odd bytes, newsletters.

use super::{Attachment, Composed, Letter, composed, noise, strings};

const SHOP: &str = "Shop <shop@example.com>";

fn letter(to: &str, subject: &str, text: &str) -> Composed {
    Composed {
        from: SHOP.to_owned(),
        to: strings(&[to]),
        subject: subject.to_owned(),
        text: text.to_owned(),
        ..Composed::default()
    }
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(super) fn letters() -> Vec<Letter> {
    [plain(), scripts(), recipients(), odd_bytes(), headings()].into_iter().flatten().collect()
}

fn plain() -> Vec<Letter> {
    let order = "Thank you for your order 1017.\r\n\r\nWe will send it on Monday.\r\n";
    vec![
        composed("plain text", letter("bob@example.org", "Your order 1017", order)),
        composed("text without a last line end", letter("bob@example.org", "Short", "ok")),
        composed("neither text nor HTML", letter("bob@example.org", "Empty", "")),
        composed("no subject", letter("bob@example.org", "", "x\r\n")),
        composed(
            "HTML only",
            Composed {
                html: "<!doctype html>\r\n<p>Your order &amp; more</p>\r\n".to_owned(),
                ..letter("bob@example.org", "HTML", "")
            },
        ),
        composed(
            "text and HTML",
            Composed {
                html: "<table width=\"100%\"><tr><td style=\"color:#333\">Order</td></tr></table>".to_owned(),
                ..letter("bob@example.org", "Both", order)
            },
        ),
        composed("newsletter with pictures and one-click unsubscribe", newsletter()),
    ]
}

fn newsletter() -> Composed {
    let picture = |name: &str, kind: &str, seed| Attachment {
        filename: name.to_owned(),
        content_type: kind.to_owned(),
        content: noise(seed, 7_000),
        content_id: format!("{name}@news.example.com"),
    };
    let row = "<tr><td style=\"padding:0 24px;font:16px/1.5 Arial\">Скидка 20% &mdash; caf\u{e9}</td></tr>";
    Composed {
        html: format!(
            "<html><body><img src=\"cid:head.png@news.example.com\"><table>{}</table>\
             <img src=\"cid:photo.jpg@news.example.com\"><img src=\"cid:dot.gif@news.example.com\"></body></html>",
            row.repeat(200)
        ),
        attachments: vec![
            picture("head.png", "image/png", 1),
            picture("photo.jpg", "image/jpeg", 2),
            picture("dot.gif", "image/gif", 3),
            Attachment {
                filename: "prices.pdf".to_owned(),
                content_type: "application/pdf".to_owned(),
                content: noise(4, 30_000),
                content_id: String::new(),
            },
        ],
        headers: headers(&[
            (
                "List-Unsubscribe",
                "<https://news.example.com/u/0123456789abcdef0123456789abcdef>, <mailto:leave@news.example.com?subject=leave>",
            ),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ("List-ID", "Shop news <news.example.com>"),
            ("Precedence", "bulk"),
            ("Feedback-ID", "17:news:shop"),
        ]),
        ..letter("Боб <bob@example.org>", "Новости магазина: скидки до 20 %", "Скидка 20 %\nНе для всех.\n")
    }
}

fn scripts() -> Vec<Letter> {
    let in_script = |name: &str, subject: &str, text: &str| Composed {
        from: format!("{name} <shop@example.com>"),
        reply_to: vec![format!("{name} <office@example.com>")],
        html: format!("<p>{text}</p>"),
        ..letter(&format!("{name} <bob@example.org>"), subject, text)
    };
    vec![
        composed(
            "Cyrillic",
            in_script(
                "Интернет-магазин «Ромашка»",
                "Ваш заказ № 1017 принят",
                "Здравствуйте!\nСпасибо за заказ.",
            ),
        ),
        composed(
            "Romanian",
            in_script("Ștefan Țuțuianu", "Factură și plată", "Bună ziua,\r\nvă mulțumim.\r\n"),
        ),
        composed("Chinese", in_script("张伟（销售部）", "您的订单已发货", "您好，\r\n订单已发货。\r\n")),
        composed("Arabic", in_script("محمد العلي", "تأكيد الطلب", "مرحبا،\r\nشكرا لطلبك.\r\n")),
        composed("emoji", in_script("Party 🎉 Team", "🎂👩‍👩‍👧‍👦🇷🇴 Happy birthday", "🎈\r\n👍🏽\r\n")),
        composed("internationalised domain", letter("info@пример.рф", "IDN", "x\r\n")),
    ]
}

fn recipients() -> Vec<Letter> {
    let team: Vec<String> =
        (0..120).map(|n| format!("Сотрудник номер {n} <person{n}@team.example.org>")).collect();
    let bare: Vec<String> = (0..300).map(|n| format!("member-of-the-list-{n}@lists.example.org")).collect();
    vec![
        composed("120 named recipients", Composed { to: team, ..letter("", "Meeting", "at 10\r\n") }),
        composed("300 bare recipients", Composed { to: bare, ..letter("", "Meeting", "at 11\r\n") }),
        composed(
            "To, Cc and Bcc",
            Composed {
                cc: strings(&["Carl <carl@example.org>", "dora@example.org"]),
                bcc: strings(&["Eve <eve@hidden.example.net>", "frank@hidden.example.net"]),
                ..letter("bob@example.org", "Copies", "to many\r\n")
            },
        ),
        composed(
            "Bcc only",
            Composed {
                to: Vec::new(),
                bcc: strings(&["eve@hidden.example.net"]),
                ..letter("", "Hidden", "x\r\n")
            },
        ),
        composed(
            "names that need quotes",
            Composed {
                from: "\"Lee, Ann (Sales) \\\"A\\\" <x>\" <ann@example.com>".to_owned(),
                cc: strings(&["\"O'Neil; Bob: @home\" <bob@example.net>", "\"a\\\\b\" <c@example.net>"]),
                reply_to: strings(&["J. R. R. Tolkien <jrr@example.com>", "x@example.com"]),
                ..letter("\"=?utf-8?Q\" <bob@example.org>", "Quotes", "x\r\n")
            },
        ),
    ]
}

fn odd_bytes() -> Vec<Letter> {
    let long = format!("{}\r\nend\r\n", "0123456789".repeat(10_000));
    vec![
        composed("dots", letter("bob@example.org", ".", ".\r\n..\r\n.x\r\n\r\n.\r\n")),
        composed("a line of 100 kB", letter("bob@example.org", "Long", &long)),
        composed(
            "long HTML line of Cyrillic",
            Composed {
                html: format!("<p>{}</p>", "Ж".repeat(60_000)),
                ..letter("bob@example.org", "Long", "")
            },
        ),
        composed("lone CR, NUL, escape", letter("bob@example.org", "Odd", "a\rb\0c\u{1b}[31m\u{7f}\r\n")),
        composed("mixed line ends", letter("bob@example.org", "Mixed", "a\nb\r\nc\rd\n\r")),
        composed("only bare LF", letter("bob@example.org", "Unix", "a\n\nb\n \nc")),
        composed(
            "From at a line start, spaces and tabs at line ends",
            letter("bob@example.org", "Mbox", "From me\r\n>From you\r\n-- \r\n\t\r\n   \r\nx=\r\n=3D\r\n"),
        ),
        composed(
            "looks like MIME",
            letter(
                "bob@example.org",
                "Parts",
                "--=_1_x\r\nContent-Type: text/html\r\n\r\n<b>\r\n--=_1_x--\r\n",
            ),
        ),
    ]
}

fn headings() -> Vec<Letter> {
    let references: Vec<String> =
        (0..80).map(|n| format!("<2026{n:08}.ABCDEF0123456789@mail.example.org>")).collect();
    vec![
        composed(
            "answer in a long thread",
            Composed {
                headers: headers(&[
                    ("In-Reply-To", &references[79]),
                    ("References", &references.join(" ")),
                    ("Thread-Topic", "Ответ: договор"),
                ]),
                ..letter("bob@example.org", "Re: Договор", "> да\r\nнет\r\n")
            },
        ),
        composed(
            "read receipt asked for",
            Composed {
                headers: headers(&[
                    ("Disposition-Notification-To", "<shop@example.com>"),
                    ("X-Priority", "1 (Highest)"),
                    ("Importance", "high"),
                ]),
                ..letter("bob@example.org", "Please confirm", "x\r\n")
            },
        ),
        composed(
            "answer of a machine",
            Composed {
                headers: headers(&[("Auto-Submitted", "auto-replied"), ("X-Auto-Response-Suppress", "All")]),
                ..letter("bob@example.org", "Out of office", "Back on Monday.\r\n")
            },
        ),
        composed(
            "subject of 5,000 characters",
            letter("bob@example.org", "Очень длинная тема ".repeat(264).trim(), "x"),
        ),
        composed("subject without a space", letter("bob@example.org", &"x".repeat(3_000), "x")),
        composed(
            "subject that looks encoded",
            letter("bob@example.org", "=?utf-8?Q?not_really?= ?=  two  spaces", "x"),
        ),
    ]
}
