//! Senders from outside: a code is mailed, read out of the letter, and opens From; nobody else's does, and no other code.

use std::collections::BTreeSet;

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::sender::Source;
use postroom::api::proto::{
    Account, ConfirmSenderRequest, CreateSenderRequest, DeleteSenderRequest, ListSendersRequest, Message,
    Origin, SendMessageRequest, Sender, Settings,
};
use postroom::domain::access::{Role, Scope};
use postroom::domain::site::SiteId;
use sqlx::Connection as _;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Authorised, Postroom, SITE, bad_fields, letter, plain_account, reason, variable};

const ADDRESS: &str = "shop@example.com";

type Client = AccountsServiceClient<Authorised>;

/// A server with an account of the administrator for [`ADDRESS`], at an SMTP server that takes everything.
async fn start() -> (Server, Postroom) {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, ADDRESS)).await;
    (server, postroom)
}

/// A client with a key of the site that has this role alone.
async fn client_of(postroom: &Postroom, role: Role) -> Client {
    let scope = Scope::Site(SiteId::parse("shop").expect("a site"));
    AccountsServiceClient::new(postroom.channel(&postroom.make_key(scope, &[role]).await))
}

pub(crate) fn of_user(user: &str) -> Sender {
    Sender { sender_email: ADDRESS.to_owned(), user: user.to_owned(), ..Sender::default() }
}

async fn create(client: &mut Client, sender: Sender, request_id: &str) -> Result<Sender, Status> {
    let request = CreateSenderRequest {
        parent: SITE.to_owned(),
        sender: Some(sender),
        request_id: request_id.to_owned(),
    };
    Ok(client.create_sender(request).await?.into_inner().sender.expect("set"))
}

async fn confirm(client: &mut Client, name: &str, code: &str) -> Result<Sender, Status> {
    let request = ConfirmSenderRequest { name: name.to_owned(), code: code.to_owned() };
    Ok(client.confirm_sender(request).await?.into_inner().sender.expect("set"))
}

async fn list(client: &mut Client, user: &str) -> Vec<Sender> {
    let request = ListSendersRequest {
        parent: SITE.to_owned(),
        user: user.to_owned(),
        ..ListSendersRequest::default()
    };
    client.list_senders(request).await.expect("a page").into_inner().senders
}

async fn delete(client: &mut Client, name: &str) -> Result<(), Status> {
    client.delete_sender(DeleteSenderRequest { name: name.to_owned() }).await.map(|_| ())
}

/// The code in the letter of this number, from 1.
pub(crate) async fn code(server: &Server, number: usize) -> String {
    let journal = server.wait_until(|journal| journal.letters.len() >= number).await;
    let letter = String::from_utf8(journal.letters[number - 1].content.clone()).expect("ASCII");
    let mut codes = letter
        .lines()
        .map(str::trim)
        .filter(|line| line.len() == 6 && line.bytes().all(|byte| byte.is_ascii_digit()));
    let code = codes.next().expect("a code").to_owned();
    assert_eq!(codes.next(), None, "{letter}");
    code
}

/// Another code than this one.
fn other(code: &str) -> String {
    let number: u32 = code.parse().expect("a number");
    format!("{:06}", (number + 1) % 1_000_000)
}

/// Sends on behalf of this user.
async fn send(postroom: &Postroom, user: &str) -> Result<Message, Status> {
    let message = Message { user: user.to_owned(), ..letter(ADDRESS, &["ann@example.org"]) };
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        ..SendMessageRequest::default()
    };
    Ok(postroom.send().send_message(request).await?.into_inner().message.expect("set"))
}

/// Lets so much time go by for the codes.
async fn step(postroom: &Postroom, interval: &str) {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    sqlx::query(
        "update sender_codes
         set create_time = create_time - $1::text::interval,
             expire_time = expire_time - $1::text::interval",
    )
    .bind(interval)
    .execute(&mut database)
    .await
    .expect("moved");
    database.close().await.expect("closed");
}

fn precondition(status: &Status) -> String {
    let (code, reason) = reason(status);
    assert_eq!(code, Code::FailedPrecondition, "{status:?}");
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_opens_from_for_its_user_alone() {
    let (server, postroom) = start().await;
    let mut client = client_of(&postroom, Role::Sender).await;
    assert_eq!(precondition(&send(&postroom, "ann").await.expect_err("unconfirmed")), "SENDER_NOT_CONFIRMED");

    let asked = create(&mut client, Sender { sender_name: "Ann".to_owned(), ..of_user("ann") }, "").await;
    let asked = asked.expect("asked");
    assert_eq!(asked.name, format!("{SITE}/senders/1"));
    assert_eq!((asked.sender_name.as_str(), asked.sender_email.as_str()), ("Ann", ADDRESS));
    assert_eq!((asked.source(), asked.confirmed, asked.deletable), (Source::Code, false, true));
    assert!(asked.create_time.is_some());
    let code = code(&server, 1).await;
    let mailed = server.journal().letters[0].clone();
    assert!(mailed.recipients[0].starts_with(&format!("<{ADDRESS}>")), "{mailed:?}");
    let text = String::from_utf8(mailed.content).expect("ASCII");
    assert!(text.contains("Auto-Submitted: auto-generated") && text.contains("shop"), "{text}");
    assert!(!text.split("\r\n\r\n").next().expect("a head").contains(&code), "not where previews show it");
    assert_eq!(precondition(&send(&postroom, "ann").await.expect_err("unconfirmed")), "SENDER_NOT_CONFIRMED");

    // Another user's sender of the same address needs a code of his own.
    step(&postroom, "61 s").await;
    let bob = create(&mut client, of_user("bob"), "").await.expect("asked");
    self::code(&server, 2).await;
    let refused = confirm(&mut client, &bob.name, &code).await.expect_err("another's code");
    assert_eq!(precondition(&refused), "CODE_WRONG");

    let confirmed = confirm(&mut client, &asked.name, &code).await.expect("confirmed");
    assert_eq!(confirmed, Sender { confirmed: true, ..asked.clone() });
    send(&postroom, "ann").await.expect("taken");
    assert_eq!(precondition(&send(&postroom, "bob").await.expect_err("not his")), "SENDER_NOT_CONFIRMED");

    // A code is good once; a confirmed sender is answered as it is, without another letter.
    let refused = confirm(&mut client, &asked.name, &code).await.expect_err("used");
    assert_eq!(precondition(&refused), "CODE_EXPIRED");
    let again = Sender { sender_name: "Other".to_owned(), shared: true, ..of_user("ann") };
    assert_eq!(create(&mut client, again, "").await.expect("there"), confirmed);

    delete(&mut client, &asked.name).await.expect("deleted");
    assert_eq!(reason(&delete(&mut client, &asked.name).await.expect_err("gone")).0, Code::NotFound);
    assert_eq!(precondition(&send(&postroom, "ann").await.expect_err("deleted")), "SENDER_NOT_CONFIRMED");
    // Its codes still count for the address.
    let refused = create(&mut client, of_user("ann"), "").await.expect_err("within a minute");
    assert_eq!(reason(&refused).1, "RATE_LIMITED");
    server.wait_until(|journal| journal.letters.len() >= 3).await;
    assert_eq!(server.journal().letters.len(), 3, "two codes and one letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tries_one_hour_and_the_newest_code() {
    let (server, postroom) = start().await;
    let mut client = postroom.accounts();
    let name = create(&mut client, of_user("ann"), "").await.expect("asked").name;
    let first = code(&server, 1).await;

    // Many at once are no more than five.
    let mut tries = JoinSet::new();
    for _ in 0..20 {
        let (mut client, name, wrong) = (client.clone(), name.clone(), other(&first));
        tries.spawn(async move { confirm(&mut client, &name, &wrong).await.expect_err("wrong") });
    }
    let refused = tries.join_all().await;
    let wrong: BTreeSet<String> = refused
        .iter()
        .filter(|status| precondition(status) == "CODE_WRONG")
        .map(|status| variable(status, "tries_left"))
        .collect();
    assert_eq!(wrong, ["0", "1", "2", "3", "4"].map(str::to_owned).into());
    assert_eq!(refused.iter().filter(|status| precondition(status) == "CODE_EXPIRED").count(), 15);
    let refused = confirm(&mut client, &name, &first).await.expect_err("tried too often");
    assert_eq!(precondition(&refused), "CODE_EXPIRED");

    // Not within a minute, for nobody.
    for user in ["ann", "bob"] {
        let refused = create(&mut client, of_user(user), "").await.expect_err("too soon");
        assert_eq!(reason(&refused), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()));
        let details = refused.get_error_details();
        let wait = details.retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
        assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
    }
    assert!(list(&mut client, "bob").await.iter().all(|sender| sender.name.is_empty()), "nothing was saved");

    // The same sender gets another code, and its name; the older one no longer counts.
    step(&postroom, "61 s").await;
    let again = Sender { sender_name: "Ann".to_owned(), ..of_user("ann") };
    let again = create(&mut client, again, "").await.expect("asked");
    assert_eq!((again.name.as_str(), again.sender_name.as_str()), (name.as_str(), "Ann"));
    let second = code(&server, 2).await;
    if first != second {
        let refused = confirm(&mut client, &name, &first).await.expect_err("an older one");
        assert_eq!(precondition(&refused), "CODE_EXPIRED");
    }

    // An hour is over.
    step(&postroom, "1 hour").await;
    let refused = confirm(&mut client, &name, &second).await.expect_err("too late");
    assert_eq!(precondition(&refused), "CODE_EXPIRED");

    // The fifth try may be the right one.
    create(&mut client, of_user("ann"), "").await.expect("asked");
    let third = code(&server, 3).await;
    for left in ["4", "3", "2", "1"] {
        let wrong = [other(&third), other(&other(&third))].into_iter().find(|c| *c != first && *c != second);
        let refused = confirm(&mut client, &name, &wrong.unwrap_or_default()).await.expect_err("wrong");
        assert_eq!(
            (precondition(&refused).as_str(), variable(&refused, "tries_left").as_str()),
            ("CODE_WRONG", left)
        );
    }
    assert!(confirm(&mut client, &name, &third).await.expect("confirmed").confirmed);

    // Ten a day.
    for number in 4..=10 {
        step(&postroom, "61 s").await;
        create(&mut client, of_user("bob"), "").await.expect("asked");
        code(&server, number).await;
    }
    step(&postroom, "61 s").await;
    let refused = create(&mut client, of_user("bob"), "").await.expect_err("the eleventh");
    assert_eq!(reason(&refused).1, "RATE_LIMITED");
    let wait = refused.get_error_details().retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(wait.as_secs() > 20 * 3_600, "{wait:?}");
    step(&postroom, "1 day").await;
    create(&mut client, of_user("bob"), "").await.expect("a day later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_from_another() {
    let (server, postroom) = start().await;
    let mut client = postroom.accounts();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        calls.spawn(async move { create(&mut client, of_user("ann"), "r-1").await.expect("the same") });
    }
    let names: BTreeSet<String> = calls.join_all().await.into_iter().map(|sender| sender.name).collect();
    assert_eq!(names.len(), 1);
    let refused = create(&mut client, of_user("bob"), "r-1").await.expect_err("other content");
    assert_eq!(reason(&refused), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    // A later call for the same sender is remembered beside the first.
    step(&postroom, "61 s").await;
    for _ in 0..2 {
        create(&mut client, of_user("ann"), "r-2").await.expect("asked");
    }
    create(&mut client, of_user("ann"), "r-1").await.expect("the first");
    code(&server, 2).await;
    assert_eq!(server.journal().letters.len(), 2, "one for each request");

    for (sender, field) in [
        (Sender { sender_email: "no address".to_owned(), ..of_user("ann") }, "sender.sender_email"),
        (Sender { sender_email: format!("Ann <{ADDRESS}>"), ..of_user("ann") }, "sender.sender_email"),
        (Sender { sender_name: "a\nb".to_owned(), ..of_user("ann") }, "sender.sender_name"),
        (of_user(&"u".repeat(129)), "sender.user"),
        (Sender { source: 99, ..of_user("ann") }, "sender.source"),
    ] {
        assert_eq!(bad_fields(&create(&mut client, sender, "").await.expect_err(field)), [field]);
    }
    let refused = confirm(&mut client, &format!("{SITE}/senders/1"), "12a456").await.expect_err("no code");
    assert_eq!(bad_fields(&refused), ["code"]);
    let nowhere = Sender { sender_email: "other@example.com".to_owned(), ..of_user("ann") };
    let refused = create(&mut client, nowhere, "").await.expect_err("no account");
    assert_eq!(precondition(&refused), "NO_MATCHING_ACCOUNT");
    postroom.change_settings(Settings { enabled: Some(false), ..Settings::default() }).await;
    let refused = create(&mut client, of_user("ann"), "").await.expect_err("switched off");
    assert_eq!(precondition(&refused), "SITE_DISABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_vouches_for_a_mailbox() {
    let (server, postroom) = start().await;
    let mut sender = client_of(&postroom, Role::Sender).await;
    let mut operator = client_of(&postroom, Role::Operator).await;
    let mailbox = Sender { source: Source::Mailbox.into(), ..of_user("ann") };
    let refused = create(&mut sender, mailbox.clone(), "").await.expect_err("not his to say");
    assert_eq!(reason(&refused), (Code::PermissionDenied, "PERMISSION_DENIED".to_owned()));

    let made = create(&mut operator, mailbox, "").await.expect("made");
    assert_eq!((made.source(), made.confirmed, made.deletable), (Source::Mailbox, true, true));
    send(&postroom, "ann").await.expect("taken");
    assert!(!list(&mut sender, "ann").await[0].deletable);
    let refused = delete(&mut sender, &made.name).await.expect_err("not his to delete");
    assert_eq!(reason(&refused).1, "PERMISSION_DENIED");
    delete(&mut operator, &made.name).await.expect("deleted");
    server.wait_until(|journal| !journal.letters.is_empty()).await;
    assert_eq!(server.journal().letters.len(), 1, "no code was mailed");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_is_told_his_own_addresses() {
    let (server, postroom) = start().await;
    let own = |user: &str, origin: Origin, shared| Account {
        user: user.to_owned(),
        origin: origin.into(),
        shared: Some(shared),
        ..plain_account(&server, &format!("{user}@example.com"))
    };
    postroom.create_account(own("ann", Origin::Mailbox, false)).await;
    postroom.create_account(own("bob", Origin::Crm, true)).await;
    let off = Account { active: Some(false), ..plain_account(&server, "off@example.com") };
    postroom.create_account(off).await;
    let mut client = postroom.accounts();
    let shared = Sender { shared: true, source: Source::Mailbox.into(), ..of_user("carl") };
    let unconfirmed = Sender { shared: true, ..of_user("dora") };
    create(&mut client, of_user("ann"), "").await.expect("asked");
    let told = |senders: Vec<Sender>| {
        let tell = |s: Sender| {
            (s.name.rsplit('/').next().unwrap_or_default().to_owned(), s.sender_email, s.confirmed)
        };
        senders.into_iter().map(tell).collect::<Vec<_>>()
    };
    let row = |id: &str, address: &str, confirmed| (id.to_owned(), address.to_owned(), confirmed);
    assert_eq!(
        told(list(&mut client, "ann").await),
        [
            row("1", ADDRESS, false),
            row("", ADDRESS, false),
            row("", "ann@example.com", true),
            row("", "bob@example.com", true),
        ]
    );
    let of_bob = [row("", ADDRESS, false), row("", "bob@example.com", true)];
    assert_eq!(told(list(&mut client, "bob").await), of_bob);
    assert_eq!(told(list(&mut client, "").await), [row("", ADDRESS, true), of_bob[1].clone()]);

    // What is shared is everyone's, but not before it is confirmed.
    step(&postroom, "61 s").await;
    create(&mut client, unconfirmed, "").await.expect("asked");
    assert_eq!(told(list(&mut client, "bob").await), of_bob);
    create(&mut client, shared, "").await.expect("made");
    let of_bob = [row("3", ADDRESS, true), row("", ADDRESS, true), row("", "bob@example.com", true)];
    assert_eq!(told(list(&mut client, "bob").await), of_bob);
    send(&postroom, "bob").await.expect("taken");
    let listed = list(&mut client, "ann").await;
    let sources: Vec<Source> = listed.iter().map(Sender::source).collect();
    assert_eq!(
        sources,
        [Source::Code, Source::Mailbox, Source::Unspecified, Source::Mailbox, Source::Unspecified]
    );

    // Page by page it is the same, and a token is good for its user alone.
    let mut request = ListSendersRequest {
        parent: SITE.to_owned(),
        user: "ann".to_owned(),
        page_size: 1,
        ..ListSendersRequest::default()
    };
    let mut paged = Vec::new();
    loop {
        let page = client.list_senders(request.clone()).await.expect("a page").into_inner();
        paged.extend(page.senders);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
        let stolen = ListSendersRequest { user: "bob".to_owned(), ..request.clone() };
        assert_eq!(bad_fields(&client.list_senders(stolen).await.expect_err("ann's")), ["page_token"]);
    }
    assert_eq!(paged, listed);
}
