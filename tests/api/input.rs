//! Bad input through the API (CASES 30, 31, 32, 36): each fault is refused by the name of its field, never INTERNAL,
//! and a bad request tells all its faults at once.

use postroom::api::proto::message::Content;
use postroom::api::proto::{Account, Attachment, Composed, Header, Message, Security, SendMessageRequest};
use tonic::{Code, Status};

use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, letter, plain_account, reason, with_login};

const FROM: &str = "shop@example.com";
/// Line breaks, the end of a C string, an escape sequence, DEL and a C1 control.
const CONTROLS: [&str; 6] = ["a\rb", "a\nb: c", "a\0b", "a\x1b[31mb", "a\x7fb", "a\u{85}b"];

async fn with_account() -> Postroom {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    postroom
}

async fn send(postroom: &Postroom, message: Message) -> Result<Message, Status> {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        validate_only: true,
        ..SendMessageRequest::default()
    };
    Ok(postroom.send().send_message(request).await?.into_inner().message.expect("set"))
}

/// The letter with what a test changes of its content.
fn with(change: impl FnOnce(&mut Composed)) -> Message {
    let mut composed =
        Composed { subject: "Hello".to_owned(), text: "It travels.\n".to_owned(), ..Composed::default() };
    change(&mut composed);
    Message { content: Some(Content::Composed(composed)), ..letter(FROM, &["ann@example.org"]) }
}

fn attachment(change: impl FnOnce(&mut Attachment)) -> Message {
    let mut attachment = Attachment { filename: "a.txt".to_owned(), ..Attachment::default() };
    change(&mut attachment);
    with(|composed| composed.attachments = vec![Attachment::default(), attachment])
}

fn header(name: &str, value: &str) -> Message {
    with(|composed| composed.headers = vec![Header { name: name.to_owned(), value: value.to_owned() }])
}

fn raw(bytes: &[u8]) -> Message {
    Message { content: Some(Content::Raw(bytes.to_vec().into())), ..Message::default() }
}

async fn expect_fields(postroom: &Postroom, message: Message, fields: &[&str]) {
    let shown = format!("{message:?}");
    let shown = shown.chars().take(400).collect::<String>();
    let refused = send(postroom, message).await.expect_err(&shown);
    let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    assert_eq!(reason(&refused), expected, "{refused:?} {shown}");
    assert_eq!(bad_fields(&refused), fields, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_refused_in_each_field_of_a_letter() {
    let postroom = with_account().await;
    for bad in CONTROLS {
        let bad = || bad.to_owned();
        let mailbox = || format!("{} <ann@example.org>", bad());
        for (message, field) in [
            (Message { from_address: format!("{} <{FROM}>", bad()), ..with(|_| ()) }, "message.from_address"),
            (
                Message { from_address: format!("{}@example.com", bad()), ..with(|_| ()) },
                "message.from_address",
            ),
            (Message { to: vec![mailbox()], ..with(|_| ()) }, "message.to[0]"),
            (Message { cc: vec!["a@b.example".to_owned(), mailbox()], ..with(|_| ()) }, "message.cc[1]"),
            (Message { bcc: vec![mailbox()], ..with(|_| ()) }, "message.bcc[0]"),
            (Message { account: format!("{SITE}/accounts/{}", bad()), ..with(|_| ()) }, "message.account"),
            (with(|composed| composed.reply_to = vec![mailbox()]), "message.composed.reply_to[0]"),
            (with(|composed| composed.subject = bad()), "message.composed.subject"),
            (attachment(|a| a.filename = bad()), "message.composed.attachments[1].filename"),
            (attachment(|a| a.content_type = bad()), "message.composed.attachments[1].content_type"),
            (
                attachment(|a| a.content_type = format!("text/plain; name=\"{}\"", bad())),
                "message.composed.attachments[1].content_type",
            ),
            (attachment(|a| a.content_id = bad()), "message.composed.attachments[1].content_id"),
            (header(&bad(), "x"), "message.composed.headers[0].name"),
            (header("X-Shop", &bad()), "message.composed.headers[0].value"),
        ] {
            expect_fields(&postroom, message, &[field]).await;
        }
    }
    // What encoded words hide becomes a space; nothing of it reaches a header.
    let hidden = "=?utf-8?q?a=00=0D=0Ab?= <ann@example.org>".to_owned();
    let message = Message { bcc: vec![hidden.clone()], to: vec![hidden], ..with(|_| ()) };
    let stored = postroom.send_and_wait(message).await;
    assert_eq!(stored.to, ["a   b <ann@example.org>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_refused_in_each_field_of_an_account() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    for bad in CONTROLS.into_iter().chain(["ends with a line\r\n"]) {
        let account = || plain_account(&server, FROM);
        for (wrong, field) in [
            (Account { sender_name: bad.to_owned(), ..account() }, "account.sender_name"),
            (Account { sender_email: format!("{bad}@example.com"), ..account() }, "account.sender_email"),
            (Account { host: format!("{bad}.example.com"), ..account() }, "account.host"),
            (Account { host: format!("smtp.example.com{bad}"), ..account() }, "account.host"),
            (with_login(account(), bad, "x"), "account.password.username"),
            (with_login(account(), "x", bad), "account.password.password"),
        ] {
            let refused = postroom.try_account(wrong).await.expect_err(field);
            assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
            assert_eq!(bad_fields(&refused), [field], "{bad:?}");
        }
    }
    assert_eq!(server.journal().connections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_of_an_account_are_told_at_once() {
    let postroom = Postroom::start().await;
    let wrong = Account {
        sender_name: "x".repeat(257),
        sender_email: "nobody".to_owned(),
        host: String::new(),
        port: 65_536,
        security: Security::None.into(),
        ..Account::default()
    };
    let wrong = with_login(wrong, &"u".repeat(321), &"p".repeat(1_025));
    let refused = postroom.try_account(wrong).await.expect_err("six faults");
    let expected = [
        "account.sender_name",
        "account.sender_email",
        "account.host",
        "account.port",
        "account.password.username",
        "account.password.password",
    ];
    assert_eq!(bad_fields(&refused), expected);
    for (wrong, field) in [
        (Account { security: 4, ..Account::default() }, "account.security"),
        (Account { security: -1, ..Account::default() }, "account.security"),
        (with_login(Account::default(), "shop", ""), "account.password.password"),
        (Account { host: "a b".to_owned(), ..Account::default() }, "account.host"),
        (Account { host: "-a.example".to_owned(), ..Account::default() }, "account.host"),
        (
            Account { host: format!("{}example", "abcdefgh.".repeat(30)), ..Account::default() },
            "account.host",
        ),
        (Account { port: u32::MAX, ..Account::default() }, "account.port"),
    ] {
        let host = if field == "account.host" { wrong.host.clone() } else { "127.0.0.1".to_owned() };
        let refused = postroom
            .try_account(Account { sender_email: FROM.to_owned(), host, ..wrong })
            .await
            .expect_err(field);
        assert_eq!(bad_fields(&refused), [field]);
    }
    let mut accounts = postroom.accounts();
    let request =
        postroom::api::proto::CreateAccountRequest { parent: SITE.to_owned(), ..Default::default() };
    assert_eq!(bad_fields(&accounts.create_account(request).await.expect_err("none")), ["account"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_addresses_are_refused_wherever_they_stand() {
    let postroom = with_account().await;
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long = format!("a@{}example.org", "abcdefg.".repeat(31));
    for bad in [
        "",
        " ",
        "ann",
        "@example.org",
        "ann@",
        "ann@[192.0.2.1]",
        "ann@[IPv6:::1]",
        "a b@example.org",
        "a..b@example.org",
        "ann@exa mple.org",
        "ann@example..org",
        "ann@example.org>",
        "Ann <ann@example.org",
        "ann@example.org, bob@example.org",
        "ann@-example.org",
        &long_local,
        &long,
    ] {
        for (message, field) in [
            (Message { to: vec![bad.to_owned()], ..with(|_| ()) }, "message.to[0]"),
            (Message { cc: vec![bad.to_owned()], ..with(|_| ()) }, "message.cc[0]"),
            (Message { bcc: vec![bad.to_owned()], ..with(|_| ()) }, "message.bcc[0]"),
            (Message { from_address: bad.to_owned(), ..with(|_| ()) }, "message.from_address"),
            (with(|composed| composed.reply_to = vec![bad.to_owned()]), "message.composed.reply_to[0]"),
        ] {
            expect_fields(&postroom, message, &[field]).await;
        }
        let account =
            Account { sender_email: bad.to_owned(), host: "127.0.0.1".to_owned(), ..Account::default() };
        let refused = postroom.try_account(account).await.expect_err(bad);
        assert_eq!(bad_fields(&refused), ["account.sender_email"], "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_ours_cannot_be_repeated() {
    let postroom = with_account().await;
    for name in [
        "From",
        "sender",
        "TO",
        "Cc",
        "Bcc",
        "Date",
        "Message-ID",
        "Subject",
        "Reply-To",
        "MIME-Version",
        "Content-Type",
        "content-transfer-encoding",
        "Content-X",
        "Received",
        "Return-Path",
        "DKIM-Signature",
        "Resent-To",
        "",
        "X Y",
        "X:",
        "Ключ",
    ] {
        expect_fields(&postroom, header(name, "x"), &["message.composed.headers[0].name"]).await;
    }
    for value in ["", "  ", &"x".repeat(10_001)] {
        expect_fields(&postroom, header("X-Shop", value), &["message.composed.headers[0].value"]).await;
    }
    for (name, value) in
        [("List-Unsubscribe", "<https://example.com/u>"), ("X-Shop", "Жёлтый"), ("In-Reply-To", "<a@b>")]
    {
        send(&postroom, header(name, value)).await.expect(name);
    }
    let many = (0..101).map(|_| Header { name: "X-A".to_owned(), value: "x".to_owned() }).collect();
    expect_fields(&postroom, with(|composed| composed.headers = many), &["message.composed.headers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_has_one_to_a_thousand_recipients() {
    let postroom = with_account().await;
    let many = |count| (0..count).map(|number| format!("r{number}@example.org")).collect::<Vec<_>>();
    expect_fields(&postroom, Message { to: Vec::new(), ..with(|_| ()) }, &["message.to"]).await;
    let over = Message { to: many(500), cc: many(500), bcc: many(1), ..with(|_| ()) };
    expect_fields(&postroom, over, &["message.to"]).await;
    let enough =
        send(&postroom, Message { to: many(1_000), ..with(|_| ()) }).await.expect("1,000 are allowed");
    assert_eq!(enough.recipients.len(), 1_000);
    let twice = Message { to: many(2), cc: vec!["R1@example.org".to_owned()], ..with(|_| ()) };
    assert_eq!(send(&postroom, twice).await.expect("each once").recipients.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_a_letter_is_told_at_once() {
    let postroom = with_account().await;
    let mut message = with(|composed| {
        composed.reply_to = vec!["nobody".to_owned()];
        composed.subject = "two\nlines".to_owned();
        composed.headers = vec![Header { name: "Bcc".to_owned(), value: "x@y.example".to_owned() }];
        composed.attachments = vec![Attachment { filename: "a\nb".to_owned(), ..Attachment::default() }];
    });
    message.from_address = "nobody".to_owned();
    message.to = vec!["ann@example.org".to_owned(), "nobody".to_owned()];
    message.account = "accounts/1".to_owned();
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: "a\nb".to_owned(),
        wait: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
        validate_only: false,
    };
    let refused = postroom.send().send_message(request).await.expect_err("nine faults");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    let expected = [
        "message.account",
        "message.composed.attachments[0].filename",
        "message.composed.headers[0].name",
        "message.composed.reply_to[0]",
        "message.composed.subject",
        "message.from_address",
        "message.to[1]",
        "request_id",
        "wait",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_parts_are_no_fault_but_an_absent_content_is() {
    let postroom = with_account().await;
    for message in [
        with(|composed| *composed = Composed::default()),
        with(|composed| composed.attachments = vec![Attachment::default()]),
        with(|composed| composed.html = "<p>x</p>".to_owned()),
    ] {
        send(&postroom, message).await.expect("empty, but a letter");
    }
    expect_fields(&postroom, Message { content: None, ..with(|_| ()) }, &["message.content"]).await;
    let nothing = Message::default();
    expect_fields(&postroom, nothing, &["message.content", "message.to"]).await;
    let request = SendMessageRequest { parent: SITE.to_owned(), ..SendMessageRequest::default() };
    let refused = postroom.send().send_message(request).await.expect_err("no message");
    assert_eq!(bad_fields(&refused), ["message"]);
    for bytes in
        [&b""[..], b"no header", b"From: nobody\r\n\r\n", b"From: a@b.example\0\r\n\r\nx", b"\xff\xfe"]
    {
        expect_raw_refused(&postroom, bytes).await;
    }
    let other = Message {
        from_address: "other@example.com".to_owned(),
        ..raw(b"From: shop@example.com\r\nTo: ann@example.org\r\n\r\nx")
    };
    expect_fields(&postroom, other, &["message.from_address"]).await;
}

async fn expect_raw_refused(postroom: &Postroom, bytes: &[u8]) {
    let refused = send(postroom, raw(bytes)).await.expect_err("no letter");
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{bytes:?}");
    let fields = bad_fields(&refused);
    assert!(
        !fields.is_empty() && fields.iter().all(|f| f == "message.raw" || f == "message.to"),
        "{fields:?}"
    );
}
