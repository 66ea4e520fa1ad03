//! Who may do what: each cell of the table in docs/SECURITY.md is tried, and whoever may not learns nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    CreateSenderRequest, CreateSiteRequest, ListSitesRequest, Message, SendMessageRequest, Sender,
};
use postroom::domain::access::{Reach, Role, Rpc, Scope};
use postroom::domain::site::SiteId;
use prost_types::Timestamp;
use tonic::{Code, Status};

use super::calls::{Things, call};
use super::keys::now;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, letter, plain_account, reason};

const DOCUMENT: &str = include_str!("../../../docs/SECURITY.md");

/// A row of the document: the call, whether about what is special for it, which keys may make it, and which roles.
struct Row {
    rpc: Rpc,
    is_special: bool,
    reach: Reach,
    granted: Vec<bool>,
}

/// The table of the document, read as people read it.
fn rows() -> Vec<Row> {
    let table = DOCUMENT.split("<!-- rights -->").nth(1).expect("the table");
    let mut lines = table.lines().filter(|line| line.starts_with('|')).map(cells);
    let head = lines.next().expect("a head");
    let roles = Role::ALL.map(Role::name);
    assert_eq!(head[2..].iter().map(String::as_str).collect::<Vec<_>>(), roles);
    lines
        .skip(1)
        .map(|cells| {
            let (name, special) = match cells[0].split_once("` ") {
                Some((name, special)) => (name, Some(special)),
                None => (cells[0].as_str(), None),
            };
            let name = name.trim_matches('`');
            let rpc = Rpc::ALL.into_iter().find(|rpc| format!("{rpc:?}") == name).expect(name);
            assert_eq!(special, special.and(rpc.special()).map(|special| special.when), "{name}");
            let reach = match cells[1].as_str() {
                "of the site" => Reach::Site,
                "of all sites" => Reach::AllSites,
                "every" => Reach::Any,
                other => panic!("{other}"),
            };
            let granted = cells[2..].iter().map(|cell| match cell.as_str() {
                "yes" => true,
                "" => false,
                other => panic!("{other}"),
            });
            Row { rpc, is_special: special.is_some(), reach, granted: granted.collect() }
        })
        .collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn site(id: &str) -> Scope {
    Scope::Site(SiteId::parse(id).expect("a site"))
}

async fn with_another_site() -> Postroom {
    let postroom = Postroom::start().await;
    let create = CreateSiteRequest { site_id: "other".to_owned(), site: None };
    postroom.settings().create_site(create).await.expect("a site");
    postroom
}

/// Makes what a call is about, where it would change something otherwise, or be refused for another reason.
async fn prepare(postroom: &Postroom, row: &Row, things: Things) -> Things {
    match (row.rpc, row.is_special) {
        (Rpc::DeleteSender, true) => mailbox(postroom, things).await,
        (Rpc::DeleteSite, _) => {
            let send_time = now() + Duration::from_hours(1);
            let waiting = Message {
                send_time: Some(Timestamp { seconds: send_time.unix_timestamp(), nanos: 0 }),
                ..letter("shop@example.com", &["ann@example.org"])
            };
            let request = SendMessageRequest {
                parent: "sites/shop".to_owned(),
                message: Some(waiting),
                ..SendMessageRequest::default()
            };
            postroom.send().send_message(request).await.expect("stored");
            things
        }
        _ => things,
    }
}

/// A mailbox of somebody's.
async fn mailbox(postroom: &Postroom, things: Things) -> Things {
    let sender = Sender {
        sender_email: "mailbox@example.org".to_owned(),
        user: "bob".to_owned(),
        source: postroom::api::proto::sender::Source::Mailbox.into(),
        ..Sender::default()
    };
    let parent = "sites/shop".to_owned();
    let request = CreateSenderRequest { parent, sender: Some(sender), request_id: String::new() };
    let created = postroom.accounts().create_sender(request).await.expect("created").into_inner();
    let name = created.sender.expect("a sender").name;
    Things { sender: name.rsplit('/').next().expect("an id").to_owned(), ..things }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cell_of_the_table_is_true() {
    let server = Behaviour::default().start().await;
    let postroom = with_another_site().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let rows = rows();
    let told: BTreeSet<_> = rows.iter().map(|row| (format!("{:?}", row.rpc), row.is_special)).collect();
    let calls = Rpc::ALL.into_iter().flat_map(|rpc| {
        let special = rpc.special().map(|_| (format!("{rpc:?}"), true));
        [(format!("{rpc:?}"), false)].into_iter().chain(special)
    });
    assert_eq!(told, calls.collect(), "the table tells of each call");
    let mut tried = 0;
    for (place, role) in Role::ALL.into_iter().enumerate() {
        for scope in [site("shop"), site("other"), Scope::AllSites] {
            let channel = postroom.channel(&postroom.make_key(scope.clone(), &[role]).await);
            for row in &rows {
                let reaches = match row.reach {
                    Reach::AllSites => scope == Scope::AllSites,
                    Reach::Site => scope != site("other"),
                    Reach::Any => true,
                };
                let cell = format!("{:?} ({}) by {role:?} of {scope:?}", row.rpc, row.is_special);
                let things = Things { is_special: row.is_special, ..Things::missing("shop") };
                let things = prepare(&postroom, row, things).await;
                let answer = call(row.rpc, channel.clone(), &things).await;
                let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
                if row.granted[place] && reaches {
                    let served = [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition];
                    assert!(served.contains(&code), "{cell}: {answer:?}");
                } else {
                    let refused = answer.expect_err(&cell);
                    let expected = (Code::PermissionDenied, "PERMISSION_DENIED".to_owned());
                    assert_eq!(reason(&refused), expected, "{cell}");
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, rows.len() * Role::ALL.len() * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_its_own_site_alone() {
    let postroom = with_another_site().await;
    let key = postroom.make_key(site("other"), &[Role::Sender, Role::Auditor]).await;
    let mut client = SettingsServiceClient::new(postroom.channel(&key));
    let sites = client.list_sites(ListSitesRequest::default()).await.expect("a page").into_inner().sites;
    assert_eq!(sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["sites/other"]);
    // Two roles add up.
    let channel = postroom.channel(&key);
    for (rpc, code) in
        [(Rpc::ListLogs, Code::Ok), (Rpc::ListAccounts, Code::Ok), (Rpc::GetSettings, Code::PermissionDenied)]
    {
        let answer = call(rpc, channel.clone(), &Things::missing("other")).await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code, "{rpc:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_learns_nothing_of_what_exists() {
    let server = Behaviour::default().start().await;
    let postroom = with_another_site().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let sent = postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let message = sent.name.rsplit('/').next().expect("an id").to_owned();
    let real = Things { account: "1", message, log: "send-admin-1", ..Things::missing("shop") };
    let key = postroom.make_key(site("other"), &[Role::Admin]).await;
    let told = |status: Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    for rpc in Rpc::ALL.into_iter().filter(|rpc| rpc.reach() != Reach::Any) {
        for is_special in [false, true] {
            let mut answers = Vec::new();
            for things in [&real, &Things::missing("shop"), &Things::missing("nowhere")] {
                let things = Things { is_special, ..things.clone() };
                let refused = call(rpc, postroom.channel(&key), &things).await;
                answers.push(told(refused.expect_err("not its site")));
            }
            assert_eq!(answers[0].0, Code::PermissionDenied, "{rpc:?}");
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{rpc:?}: {answers:?}");
        }
    }
}
