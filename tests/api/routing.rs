//! The choice of account through the real API: random sites against the rules written anew, owners, names, domains.

use postroom::api::proto::{
    Account, Message, Origin, ResolveAccountRequest, ResolveAccountResponse, Rule, SendMessageRequest,
    Settings, UpdateSettingsRequest, candidate,
};
use tonic::{Code, Status};

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, letter, patiently, plain_account, reason};

/// Random sites that go through the API.
const SITES: u64 = 300;
/// Calls under way at once.
const LANES: u64 = 6;

/// Small numbers in a fixed order that looks like none (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_of<T: Copy>(&mut self, faces: &[T]) -> T {
        faces[usize::try_from(self.roll(faces.len() as u64)).expect("small")]
    }
}

fn account_of(server: &Server, origin: Origin, user: &str) -> Account {
    Account { origin: origin.into(), user: user.to_owned(), ..plain_account(server, "shop@example.com") }
}

async fn resolve(
    postroom: &Postroom,
    parent: &str,
    from: &str,
    user: &str,
    mailing: bool,
) -> ResolveAccountResponse {
    let request = ResolveAccountRequest {
        parent: parent.to_owned(),
        from_address: from.to_owned(),
        user: user.to_owned(),
        mailing,
        show_all: false,
    };
    patiently(async || postroom.accounts().resolve_account(request.clone()).await).await.expect("resolved")
}

async fn send(postroom: &Postroom, parent: &str, message: Message) -> Result<Message, Status> {
    let request = SendMessageRequest {
        parent: parent.to_owned(),
        message: Some(message),
        request_id: uuid::Uuid::now_v7().to_string(),
        ..SendMessageRequest::default()
    };
    let sent = patiently(async || postroom.send().send_message(request.clone()).await).await?;
    Ok(sent.message.expect("set"))
}

async fn validate(postroom: &Postroom, parent: &str, message: Message) -> Result<Message, Status> {
    let request = SendMessageRequest {
        parent: parent.to_owned(),
        message: Some(message),
        validate_only: true,
        ..SendMessageRequest::default()
    };
    let sent = patiently(async || postroom.send().send_message(request.clone()).await).await?;
    Ok(sent.message.expect("set"))
}

/// The choice as API 4 words it, over accounts in the order of their ids.
fn expected(
    accounts: &[Account],
    name: &str,
    user: &str,
    mailing: bool,
    admin_first: bool,
) -> Option<(String, Rule)> {
    let is_admin = |account: &Account| account.origin() == Origin::Admin;
    let usable = |account: &Account| {
        let allowed = is_admin(account) || account.shared() || (!user.is_empty() && account.user == user);
        account.active() && allowed && (!mailing || is_admin(account) || account.mailings_first())
    };
    for class_is_admin in [admin_first, !admin_first] {
        let class: Vec<&Account> =
            accounts.iter().filter(|a| usable(a) && is_admin(a) == class_is_admin).collect();
        let named = |a: &&&Account| a.sender_name == name;
        let first = |a: &&&Account| mailing && a.mailings_first();
        let found = [
            (class.iter().filter(first).rfind(named), Rule::MailingNameAndAddress),
            (class.iter().rfind(first), Rule::MailingAddress),
            (class.iter().rfind(named), Rule::NameAndAddress),
            (class.last(), Rule::Address),
        ];
        if let Some((Some(account), rule)) = found.into_iter().find(|(account, _)| account.is_some()) {
            return Some((account.name.clone(), rule));
        }
    }
    None
}

async fn try_a_site(postroom: &Postroom, server: &Server, number: u64) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
    let parent = postroom.create_site(&format!("s{number}")).await;
    let admin_first = dice.roll(2) == 1;
    let priority = if admin_first { 2 } else { 1 };
    let settings = Settings {
        name: format!("{parent}/settings"),
        account_priority: Some(priority),
        require_confirmed_sender: Some(false),
        ..Settings::default()
    };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    patiently(async || postroom.settings().update_settings(request.clone()).await).await.expect("changed");
    let mut accounts = Vec::new();
    for _ in 0..dice.roll(5) {
        let origin = dice.one_of(&[Origin::Admin, Origin::Mailbox, Origin::Crm]);
        let user = if origin == Origin::Admin { "" } else { dice.one_of(&["a", "b"]) };
        let mut account = account_of(server, origin, user);
        account.sender_name = dice.one_of(&["", "Shop"]).to_owned();
        account.active = Some(dice.roll(4) > 0);
        account.shared = Some(dice.roll(3) == 0);
        account.mailings_first = Some(dice.roll(2) == 0);
        let created = postroom.create_account_in(&parent, account).await;
        accounts.retain(|known: &Account| known.name != created.name);
        accounts.push(created);
    }
    // A mailbox that takes over a CRM account keeps its id.
    accounts.sort_by_key(|account| account.name.rsplit('/').next().and_then(|id| id.parse::<u64>().ok()));
    for _ in 0..4 {
        let name = dice.one_of(&["", "Shop", "Else"]);
        let user = dice.one_of(&["", "a", "b", "c"]);
        let mailing = dice.roll(2) == 0;
        let from = if name.is_empty() {
            "shop@example.com".to_owned()
        } else {
            format!("{name} <Shop@Example.COM>")
        };
        let expected = expected(&accounts, name, user, mailing, admin_first);
        let resolved = resolve(postroom, &parent, &from, user, mailing).await;
        let chosen = (!resolved.account.is_empty()).then(|| (resolved.account.clone(), resolved.rule()));
        assert_eq!(chosen, expected, "{from} {user} {mailing} {admin_first} {accounts:?}");
        let told: Vec<_> =
            resolved.candidates.iter().filter(|c| c.chosen).map(|c| c.account.clone()).collect();
        assert_eq!(told, expected.iter().map(|(account, _)| account.clone()).collect::<Vec<_>>());

        let message = Message { user: user.to_owned(), mailing, ..letter(&from, &["ann@example.org"]) };
        let sent = if dice.roll(2) == 0 {
            validate(postroom, &parent, message).await
        } else {
            send(postroom, &parent, message).await
        };
        match (sent, expected) {
            (Ok(sent), Some((account, _))) => assert_eq!(sent.account, account),
            (Err(status), None) => assert_eq!(reason(&status).1, "NO_MATCHING_ACCOUNT"),
            (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_sites_choose_as_the_rules_say() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let lane = async |first: u64| {
        for number in (first..SITES).step_by(usize::try_from(LANES).expect("small")) {
            try_a_site(&postroom, &server, number).await;
        }
    };
    tokio::join!(lane(0), lane(1), lane(2), lane(3), lane(4), lane(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_through_or_learns_of_an_account_of_somebody_else() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let own = postroom.create_account(account_of(&server, Origin::Mailbox, "a")).await;
    let from = "shop@example.com";
    assert_eq!(resolve(&postroom, SITE, from, "a", false).await.account, own.name);

    // For B it is as if there were nothing.
    let for_b = resolve(&postroom, SITE, from, "b", false).await;
    assert_eq!(for_b, resolve(&postroom, SITE, "nobody@example.com", "b", false).await);
    let send = async |from: &str, account: &str| {
        let message =
            Message { user: "b".to_owned(), account: account.to_owned(), ..letter(from, &["c@example.org"]) };
        let refused = validate(&postroom, SITE, message).await.expect_err("not B's");
        (refused.code(), refused.message().to_owned())
    };
    assert_eq!(send(from, "").await, send("nobody@example.com", "").await);
    assert_eq!(send(from, &own.name).await, send(from, &format!("{SITE}/accounts/99")).await);
    assert_eq!(send(from, &own.name).await.0, Code::PermissionDenied);

    // An operator may ask for all, and learns why.
    let request = ResolveAccountRequest {
        parent: SITE.to_owned(),
        from_address: from.to_owned(),
        user: "b".to_owned(),
        mailing: false,
        show_all: true,
    };
    let all = postroom.accounts().resolve_account(request).await.expect("resolved").into_inner();
    assert_eq!(all.candidates[0].reason(), candidate::Reason::OfAnotherUser);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_domains_match_in_every_form() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let named = async |name: &str, email: &str| {
        let account = Account { sender_name: name.to_owned(), ..plain_account(&server, email) };
        postroom.create_account(account).await.name
    };
    let cyrillic = named("Магазин «Весна»", "info@пример.рф").await;
    let romanian = named("Brânză Și Țuică", "info@пример.рф").await;
    let chinese = named("北京書店", "info@пример.рф").await;
    let decomposed = named("Re\u{301}ne\u{301}", "rene@example.com").await;
    for (from, account) in [
        ("Магазин «Весна» <info@пример.рф>", &cyrillic),
        ("=?UTF-8?B?0JzQsNCz0LDQt9C40L0gwqvQktC10YHQvdCwwrs=?= <INFO@xn--e1afmkfd.xn--p1ai>", &cyrillic),
        ("\"Brânză   Și Țuică\" <info@ПРИМЕР.РФ>", &romanian),
        ("北京書店 <info@xn--e1afmkfd.XN--P1AI>", &chinese),
        ("Réné <RENE@EXAMPLE.COM>", &decomposed),
    ] {
        let resolved = resolve(&postroom, SITE, from, "", false).await;
        assert_eq!((&resolved.account, resolved.rule()), (account, Rule::NameAndAddress), "{from}");
    }
    // Case matters in names.
    let resolved = resolve(&postroom, SITE, "réné <rene@example.com>", "", false).await;
    assert_eq!(resolved.rule(), Rule::Address);
}
