//! Every letter of `letters` on its whole way: `SendMessage`, Postroom, a real Postfix with a login after STARTTLS or in
//! TLS from the start, and the last server, where it is compared with what was handed in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use postroom::api::proto::message::{Content, State};
use postroom::api::proto::{
    Account, Attachment, Composed, CreateAccountRequest, Header, Message, Security, SendMessageRequest,
    recipient,
};
use postroom::domain::address::Mailbox;
use postroom::mime::raw::normalise;
use time::OffsetDateTime;
use tonic::Code;

use crate::catcher::Catcher;
use crate::letters::{self, Kind, Letter};
use crate::postfix::Postfix;
use crate::support::{self, Options, Postroom, SITE, reason, variable, with_login};

const USER: &str = "shop";
const PASSWORD: &str = "correct horse";
const SHOP: &str = "shop@example.com";
/// A letter is here in milliseconds; 28 MiB on a busy machine take seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// The accounts at Postfix for this address: by STARTTLS and in TLS from the start.
fn accounts(postfix: &Postfix, sender_email: &str, password: &str) -> [Account; 2] {
    [(postfix.submission, Security::Starttls), (postfix.implicit_tls, Security::ImplicitTls)].map(
        |(address, security)| {
            let account = Account {
                sender_email: sender_email.to_owned(),
                host: "localhost".to_owned(),
                port: address.port().into(),
                security: security.into(),
                ..Account::default()
            };
            with_login(account, USER, password)
        },
    )
}

async fn start(postfix: &Postfix) -> Postroom {
    let ca_file: Option<PathBuf> = Some(postfix.ca_file.clone());
    Postroom::start_with(Options { ca_file, ..Options::default() }).await
}

/// The address in its From.
fn sender(letter: &Letter) -> String {
    let from = match &letter.kind {
        Kind::Composed(composed) => {
            return Mailbox::parse(&composed.from).expect("a mailbox").address.to_string();
        }
        Kind::Raw(raw) => {
            normalise(&raw.bytes, OffsetDateTime::UNIX_EPOCH, "<x@example.com>").expect("a letter").from
        }
    };
    from.address.to_string()
}

/// The letter as a caller hands it in.
fn message(letter: &Letter, account: &str) -> Message {
    let account = account.to_owned();
    let composed = match &letter.kind {
        Kind::Composed(composed) => composed,
        Kind::Raw(raw) => {
            return Message {
                content: Some(Content::Raw(raw.bytes.clone().into())),
                account,
                ..Message::default()
            };
        }
    };
    let letters::Composed { from, to, cc, bcc, reply_to, subject, text, html, attachments, headers } =
        composed;
    let attachment = |file: &letters::Attachment| Attachment {
        filename: file.filename.clone(),
        content_type: file.content_type.clone(),
        content: file.content.clone().into(),
        content_id: file.content_id.clone(),
    };
    let header = |(name, value): &(String, String)| Header { name: name.clone(), value: value.clone() };
    Message {
        from_address: from.clone(),
        to: to.clone(),
        cc: cc.clone(),
        bcc: bcc.clone(),
        content: Some(Content::Composed(Composed {
            reply_to: reply_to.clone(),
            subject: subject.clone(),
            text: text.clone(),
            html: html.clone(),
            attachments: attachments.iter().map(attachment).collect(),
            headers: headers.iter().map(header).collect(),
        })),
        account,
        ..Message::default()
    }
}

/// An address as it stands in an envelope.
fn ascii(address: &str) -> String {
    postroom::domain::address::Address::parse(address).expect(address).to_string()
}

/// Takes what arrives until every recipient has the letter; each arrival is compared with it.
fn receive(letter: &Letter, sender: &str, catcher: &Catcher) {
    let mut expected: Vec<String> = letter.recipients.iter().map(|address| ascii(address)).collect();
    expected.sort();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let caught = catcher.next(LIMIT);
        assert_eq!(caught.from, sender, "{}", letter.name);
        letters::check(letter, &caught.bytes);
        got.extend(caught.recipients);
    }
    got.sort();
    assert_eq!(got, expected, "{}", letter.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_letter_arrives_as_it_was_handed_in() {
    let catcher = Catcher::start();
    let postfix = Postfix::start(catcher.address(), USER, PASSWORD);
    let postroom = start(&postfix).await;
    let mut by_sender = HashMap::new();
    let letters = letters::all();
    assert_eq!(letters.len(), 70);
    assert!(letters.iter().any(|letter| letter.parts.iter().any(|part| part.bytes.len() >= 20 << 20)));
    for letter in &letters {
        let sender = sender(letter);
        if !by_sender.contains_key(&sender) {
            let mut names = Vec::new();
            for account in accounts(&postfix, &sender, PASSWORD) {
                names.push(postroom.create_account(account).await.name);
            }
            by_sender.insert(sender.clone(), names);
        }
        for account in &by_sender[&sender] {
            let request = SendMessageRequest {
                parent: SITE.to_owned(),
                message: Some(message(letter, account)),
                wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                ..SendMessageRequest::default()
            };
            let sent = postroom.send().send_message(request).await;
            let sent = sent.unwrap_or_else(|status| panic!("{}: {status:?}", letter.name)).into_inner();
            let sent = sent.message.expect("set");
            assert_eq!(sent.state(), State::Sent, "{}: {sent:?}\n{}", letter.name, postfix.log());
            assert_eq!(sent.account, *account);
            let hidden = sent.recipients.iter().filter(|one| one.kind() == recipient::Kind::Bcc).count();
            assert_eq!(hidden, letter.bcc.len(), "{}", letter.name);
            receive(letter, &sender, &catcher);
        }
    }
    let log = postfix.log();
    assert!(log.matches("sasl_method=PLAIN, sasl_username=shop").count() >= 2 * letters.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_no_letter_without_the_right_login() {
    let catcher = Catcher::start();
    let postfix = Postfix::start(catcher.address(), USER, PASSWORD);
    let postroom = start(&postfix).await;
    for account in accounts(&postfix, SHOP, "wrong") {
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account.clone()),
            ..CreateAccountRequest::default()
        };
        let refused = postroom.accounts().create_account(request).await.expect_err("a failed check");
        assert_eq!(reason(&refused), (Code::FailedPrecondition, "CHECK_FAILED".to_owned()));
        assert_eq!(variable(&refused, "step"), "AUTH", "{refused:?}\n{}", postfix.log());

        // Without a login it is the recipient that is refused, of which the check only warns.
        let account = postroom.create_account(Account { auth: None, ..account }).await.name;
        let message = Message { account, ..support::letter(SHOP, &["ann@example.org"]) };
        let failed = postroom.send_and_wait(message).await;
        assert_eq!(failed.state(), State::Failed, "{failed:?}");
        assert_eq!(failed.recipients[0].state(), recipient::State::Refused);
    }
}
