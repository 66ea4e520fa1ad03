//! The caller misbehaves: where each line of CASES 30 to 40 is tested, and those that are tested nowhere else.
//!
//! | line | tests |
//! |---|---|
//! | 30 | `walk` (every string of every request), `input::control_characters_are_refused_in_each_field_of_a_letter`, `.._of_an_account` |
//! | 31 | `input::bad_addresses_are_refused_wherever_they_stand`; `walk` |
//! | 32 | `input::headers_of_ours_cannot_be_repeated` |
//! | 33 | `real_letters::every_letter_arrives_as_it_was_handed_in` (`letters::composed`: `odd_bytes`), [`the_largest_envelope_and_subject_arrive`] |
//! | 34 | `real_letters::every_letter_arrives_as_it_was_handed_in` (`letters::raw`: `repaired`), `input::empty_parts_are_no_fault_but_an_absent_content_is` |
//! | 35 | `sizes` |
//! | 36 | `input`, `filters`, `times::times_that_cannot_be_are_refused_and_others_answered`; `walk` |
//! | 37 | [`a_hundred_callers_with_one_request_id_make_one_letter`]; accounts: `accounts`; senders: `senders` |
//! | 38 | `checks`, and the table of `smtp::egress` |
//! | 39 | `access` |
//! | 40 | [`page_tokens_count_for_the_call_they_were_made_for`]; resume tokens: `watching`, `events` (`tokens_count_for_the_call_they_were_made_for`), [`no_stream_takes_the_token_of_another`] |

use std::collections::BTreeSet;

use mail_parser::MessageParser;
use postroom::api::proto::message::{Content, State};
use postroom::api::proto::sender::Source;
use postroom::api::proto::{
    Account, Composed, CreateSenderRequest, ListAccountsRequest, ListLogEntriesRequest, ListLogsRequest,
    ListMessagesRequest, ListSendersRequest, ListSitesRequest, Message, SendMessageRequest, Sender,
    TailLogEntriesRequest, WatchEventsRequest, tail_log_entries_request, watch_events_request,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, account_at, bad_fields, letter, patiently, plain_account, reason};

const FROM: &str = "shop@example.com";
/// Callers at once.
const CALLERS: usize = 100;
/// Most recipients of a letter.
const RECIPIENTS: usize = 1_000;
/// Longest line of a letter in bytes (RFC 5322 2.1.1).
const MAX_LINE: usize = 998;

async fn with_account() -> (Postroom, Server) {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    (postroom, server)
}

fn request(message: Message, request_id: &str) -> SendMessageRequest {
    SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: request_id.to_owned(),
        ..SendMessageRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_with_one_request_id_make_one_letter() {
    let (postroom, server) = with_account().await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = postroom.send();
        callers.spawn(async move {
            loop {
                let request = request(letter(FROM, &["ann@example.org"]), "once");
                match client.clone().send_message(request).await {
                    // A hundred at once may be more than a busy store takes: they come again, as callers do.
                    Err(status) if status.code() == Code::Unavailable => {}
                    answer => return answer.expect("taken").into_inner().message.expect("set"),
                }
            }
        });
    }
    let mut answers = BTreeSet::new();
    for message in callers.join_all().await {
        // What changes while it is sent is no part of the answer.
        let Message { name, message_id, account, size, create_time, .. } = message;
        answers.insert((name, message_id, account, size, create_time.map(|time| (time.seconds, time.nanos))));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let request_list = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
    let stored = postroom.send().list_messages(request_list).await.expect("letters").into_inner().messages;
    assert_eq!(stored.len(), 1);
    let journal = server.wait_until(|journal| !journal.letters.is_empty()).await;
    assert_eq!(journal.letters.len(), 1);
    for other in
        [letter(FROM, &["bob@example.org"]), Message { mailing: true, ..letter(FROM, &["ann@example.org"]) }]
    {
        let answer =
            patiently(async || postroom.send().send_message(request(other.clone(), "once")).await).await;
        let refused = answer.expect_err("other content");
        assert_eq!(reason(&refused), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_envelope_and_subject_arrive() {
    let (postroom, server) = with_account().await;
    for subject in ["x".repeat(5_000), "Ж".repeat(5_000), ["many words"; 455].join(" ")] {
        let before = server.journal().letters.len();
        let addresses: BTreeSet<String> = (0..RECIPIENTS).map(|n| format!("r{n}@example.org")).collect();
        let composed = Composed { subject: subject.clone(), text: "x\r\n".to_owned(), ..Composed::default() };
        let message = Message {
            to: addresses.iter().map(|address| format!("Somebody of some name <{address}>")).collect(),
            content: Some(Content::Composed(composed)),
            ..letter(FROM, &[])
        };
        let sent = postroom.send_and_wait(message).await;
        assert_eq!(sent.state(), State::Sent, "{sent:?}");
        let journal = server.journal();
        let letters = &journal.letters[before..];
        let named = letters.iter().flat_map(|letter| &letter.recipients);
        let named: Vec<String> =
            named.map(|recipient| recipient.trim_matches(['<', '>']).to_owned()).collect();
        assert_eq!(named.len(), RECIPIENTS);
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), addresses);
        for letter in letters {
            let longest = letter.content.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            assert!(longest <= Some(MAX_LINE + 1), "{longest:?}");
            let parsed = MessageParser::default().parse(&letter.content).expect("a letter");
            assert_eq!(parsed.subject(), Some(subject.as_str()));
        }
    }
}

/// The next token of a list with one thing a page, and what the list says to a token.
struct Lists<'a>(&'a Postroom);

const LISTS: [&str; 7] =
    ["sites", "accounts", "accounts of a user", "senders", "messages", "logs", "entries"];

impl Lists<'_> {
    async fn page(&self, list: &str, page_token: &str) -> Result<String, Status> {
        let (parent, page_token, page_size) = (SITE.to_owned(), page_token.to_owned(), 1);
        let Self(postroom) = self;
        Ok(match list {
            "sites" => {
                let request = ListSitesRequest { page_size, page_token };
                postroom.settings().list_sites(request).await?.into_inner().next_page_token
            }
            "accounts" => {
                let request = ListAccountsRequest { parent, page_size, page_token, ..Default::default() };
                postroom.accounts().list_accounts(request).await?.into_inner().next_page_token
            }
            "accounts of a user" => {
                let active = Some(false);
                let request =
                    ListAccountsRequest { parent, page_size, page_token, active, ..Default::default() };
                postroom.accounts().list_accounts(request).await?.into_inner().next_page_token
            }
            "senders" => {
                let request = ListSendersRequest { parent, page_size, page_token, user: "ann".to_owned() };
                postroom.accounts().list_senders(request).await?.into_inner().next_page_token
            }
            "messages" => {
                let request = ListMessagesRequest { parent, page_size, page_token, ..Default::default() };
                postroom.send().list_messages(request).await?.into_inner().next_page_token
            }
            "logs" => {
                let request = ListLogsRequest { parent, page_size, page_token, ..Default::default() };
                postroom.logs().list_logs(request).await?.into_inner().next_page_token
            }
            "entries" => {
                let name = format!("{SITE}/logs/check-admin-0");
                let request = ListLogEntriesRequest { name, page_size, page_token, ..Default::default() };
                postroom.logs().list_log_entries(request).await?.into_inner().next_page_token
            }
            other => panic!("{other}"),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_tokens_count_for_the_call_they_were_made_for() {
    let (postroom, server) = with_account().await;
    postroom.create_site("other").await;
    for _ in 0..2 {
        let account = Account { active: Some(false), ..account_at(server.port(), FROM) };
        postroom.create_account(account).await;
        postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    }
    for number in 0..2 {
        let sender_email = format!("ann{number}@example.com");
        let (user, source) = ("ann".to_owned(), Source::Mailbox.into());
        let sender = Some(Sender { sender_email, user, source, ..Sender::default() });
        let request = CreateSenderRequest { parent: SITE.to_owned(), sender, request_id: String::new() };
        postroom.accounts().create_sender(request).await.expect("a sender");
    }
    let lists = Lists(&postroom);
    let mut tokens = Vec::new();
    for list in LISTS {
        let token = lists.page(list, "").await.expect(list);
        assert_ne!(token, "", "{list} has a second page");
        tokens.push(token);
    }
    for (own, list) in LISTS.into_iter().enumerate() {
        lists.page(list, &tokens[own]).await.expect(list);
        let token = &tokens[own];
        let flipped = if token.ends_with('A') { 'B' } else { 'A' };
        let forged = [
            format!("{}{flipped}", &token[..token.len() - 1]),
            format!("{token}A"),
            token[1..].to_owned(),
            "x".to_owned(),
            "ü".to_owned(),
            "A".repeat(2_000),
        ];
        let others = tokens.iter().enumerate().filter(|(other, _)| *other != own).map(|(_, token)| token);
        for token in others.chain(&forged) {
            let refused = lists.page(list, token).await.expect_err(list);
            assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{list}");
            assert_eq!(bad_fields(&refused), ["page_token"], "{list} {token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_takes_the_token_of_another() {
    let (postroom, _server) = with_account().await;
    postroom.create_site("other").await;
    let parent = || SITE.to_owned();
    let tail = async |token: Option<String>| {
        let start = token.map(tail_log_entries_request::Start::ResumeToken);
        let request = TailLogEntriesRequest { parent: parent(), start, ..TailLogEntriesRequest::default() };
        let mut stream = postroom.logs().tail_log_entries(request).await?.into_inner();
        Ok::<_, Status>(stream.message().await?.expect("a response").resume_token)
    };
    let watch = async |token: Option<String>| {
        let start = token.map(watch_events_request::Start::ResumeToken);
        let request = WatchEventsRequest { parent: parent(), start, ..WatchEventsRequest::default() };
        let mut stream = postroom.send().watch_events(request).await?.into_inner();
        Ok::<_, Status>(stream.message().await?.expect("a response").resume_token)
    };
    let page = Lists(&postroom).page("sites", "").await.expect("sites");
    let (of_tail, of_watch) = (tail(None).await.expect("a token"), watch(None).await.expect("a token"));
    tail(Some(of_tail.clone())).await.expect("its own");
    watch(Some(of_watch.clone())).await.expect("its own");
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned());
    for token in [of_watch, page.clone()] {
        assert_eq!(reason(&tail(Some(token)).await.expect_err("of another")), expired);
    }
    for token in [of_tail, page] {
        assert_eq!(reason(&watch(Some(token)).await.expect_err("of another")), expired);
    }
}
