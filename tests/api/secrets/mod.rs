//! A password goes in and comes out nowhere: a hostile server repeats it in every form and at every step, and then all
//! that Postroom tells, logs and stores is searched for it.

mod canary;
mod senders;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::{
    Account, CheckAccountRequest, CreateAccountRequest, GetMessageRequest, ListAccountsRequest,
    ListLogEntriesRequest, ListLogsRequest, ListMessagesRequest, LogLevel, SendMessageRequest, Settings,
    TailLogEntriesRequest, UpdateSettingsRequest,
};
use postroom::private_postgres;
use tokio::task::JoinHandle;

use self::canary::{PASSWORD, Search, echo};
use crate::binary::{Client, DataDir, Serving};
use crate::scripted::Server;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{PATIENCE, SITE, letter, plain_account, reason, with_login};

const USER: &str = "vogel@example.com";
/// Stands in the subject of the letters: what shows that a search finds what is there.
const MARKER: &str = "Ger4nienDuft";

/// Says the password at every step; takes letters for everybody but those it has something else to say to.
fn hostile() -> Behaviour {
    let all = echo(USER);
    // The password across every place at which a line could be cut.
    let lines = (1_990..2_060).map(|pad| format!("451-{}{PASSWORD}\r\n", "x".repeat(pad)));
    let long = lines.collect::<Vec<_>>().concat();
    Behaviour::default()
        .login(USER, PASSWORD)
        .extensions(&["PIPELINING", "8BITMIME", &format!("X-ECHO {all}")])
        .on("greeting", format!("220 hostile.example {all}\r\n"))
        .on("MAIL FROM", format!("250-2.1.0 {all}\r\n250 2.1.0 {PASSWORD}\r\n"))
        .on("RCPT TO:<nobody@", format!("550 5.1.1 {all}\r\n"))
        .on("RCPT TO:<later@", format!("451 4.3.0 {all}\r\n"))
        .on("RCPT TO:<long@", format!("{long}451 4.3.0 done\r\n"))
        .once("RCPT TO:<noise@", format!("{PASSWORD} {all}\r\n"), Then::Close)
        .once("RCPT TO:<cut@", format!("250-{all}"), Then::Close)
        .on("RCPT TO", format!("250 2.1.5 {all}\r\n"))
        .on("DATA", format!("354 go ahead, {all}\r\n"))
        .on("dot", format!("250 2.0.0 taken, {all}\r\n"))
        .on("RSET", format!("250 2.0.0 {all}\r\n"))
}

fn account(server: &Server, sender_email: &str) -> Account {
    with_login(plain_account(server, sender_email), USER, PASSWORD)
}

/// All that was answered to a client, as text.
struct Answers {
    client: Client,
    told: String,
}

impl Answers {
    fn note(&mut self, answer: &impl std::fmt::Debug) {
        writeln!(self.told, "{answer:?}").expect("a string takes everything");
    }

    async fn create(&mut self, account: Account) {
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        let created = self.client.accounts().create_account(request).await.expect("an account");
        self.note(&created);
        let name = created.into_inner().account.expect("set").name;
        let request = CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(Target::Name(name)),
            ..Default::default()
        };
        let checked = self.client.accounts().check_account(request).await.expect("a result");
        self.note(&checked);
    }

    /// A check that fails, and an account that is not saved for it.
    async fn fail(&mut self, account: Account) {
        let target = Some(Target::Account(Box::new(account.clone())));
        let request = CheckAccountRequest { parent: SITE.to_owned(), target, ..Default::default() };
        let checked = self.client.accounts().check_account(request).await.expect("a result");
        self.note(&checked);
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        let refused = self.client.accounts().create_account(request).await.expect_err("a failed check");
        assert_eq!(reason(&refused).1, "CHECK_FAILED");
        self.told += &String::from_utf8_lossy(refused.details());
        self.note(&refused);
    }

    /// Sends, and waits until an attempt is recorded.
    async fn send(&mut self, from: &str, to: &[&str]) {
        let mut message = letter(from, to);
        if let Some(postroom::api::proto::message::Content::Composed(composed)) = &mut message.content {
            MARKER.clone_into(&mut composed.subject);
        }
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(message),
            ..SendMessageRequest::default()
        };
        let taken = self.client.send().send_message(request).await.expect("taken").into_inner();
        let name = taken.message.as_ref().expect("set").name.clone();
        self.note(&taken);
        let start = std::time::Instant::now();
        loop {
            let request = GetMessageRequest { name: name.clone() };
            let got = self.client.send().get_message(request).await.expect("found").into_inner();
            if !got.message.as_ref().expect("set").attempts.is_empty() {
                return self.note(&got);
            }
            assert!(start.elapsed() < PATIENCE, "no attempt: {got:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Everything that can be read.
    async fn read(&mut self) {
        let parent = SITE.to_owned();
        let request = ListAccountsRequest { parent: parent.clone(), ..ListAccountsRequest::default() };
        let accounts = self.client.accounts().list_accounts(request).await.expect("listed");
        self.note(&accounts);
        let request = ListMessagesRequest { parent: parent.clone(), ..ListMessagesRequest::default() };
        let messages = self.client.send().list_messages(request).await.expect("listed");
        self.note(&messages);
        let request = ListLogsRequest { parent, ..ListLogsRequest::default() };
        let logs = self.client.logs().list_logs(request).await.expect("listed").into_inner().logs;
        self.note(&logs);
        assert!(logs.len() >= 5, "logs of checks and of sending: {logs:?}");
        for log in logs {
            let mut request = ListLogEntriesRequest {
                name: log.name,
                page_size: 1_000,
                ..ListLogEntriesRequest::default()
            };
            loop {
                let page = self.client.logs().list_log_entries(request.clone()).await.expect("listed");
                let page = page.into_inner();
                self.note(&page);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
        }
    }
}

/// Reads a tail to its end, the stop of the server.
async fn tail(client: &Client) -> JoinHandle<String> {
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let mut stream = client.logs().tail_log_entries(request).await.expect("a tail").into_inner();
    tokio::spawn(async move {
        let mut told = String::new();
        while let Ok(Some(response)) = stream.message().await {
            writeln!(told, "{response:?}").expect("a string takes everything");
        }
        told
    })
}

async fn keep_every_byte(client: &Client) {
    let settings = Settings {
        name: format!("{SITE}/settings"),
        log_level: Some(LogLevel::LowLevel.into()),
        ..Settings::default()
    };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    client.settings().update_settings(request).await.expect("settings");
}

/// The whole database as SQL.
async fn dump(data_dir: &DataDir) -> String {
    let cluster = private_postgres::start(&data_dir.path()).await.expect("the cluster of the server");
    let program = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin/pg_dump"))
        .filter(|program| program.exists())
        .max()
        .unwrap_or_else(|| "pg_dump".into());
    let url = cluster.database_url();
    let output = Command::new(program).arg("--dbname").arg(url).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.stop().await.expect("left");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls `look` with every file below `folder`.
fn each_file(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_file(&path, look);
        } else if path.is_file() {
            look(&path, &std::fs::read(&path).expect("readable"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_found_nowhere() {
    let plain = hostile().on("AUTH", format!("235 2.7.0 {}\r\n", echo(USER))).start().await;
    let login = hostile()
        .on("AUTH PLAIN", format!("504 5.5.4 {}\r\n", echo(USER)))
        .on("AUTH LOGIN", format!("235 2.7.0 {}\r\n", echo(USER)))
        .start()
        .await;
    let refusing = hostile().on("AUTH", format!("535 5.7.8 {}\r\n", echo(USER))).start().await;

    let data_dir = DataDir::new();
    let arguments = ["--log-filter", "trace", "--log-format", "json", "--drain-wait", "0s"];
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    data_dir.lines(&["site", "create", "shop"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let client = serving.client(&key);
    keep_every_byte(&client).await;
    let tail = tail(&client).await;
    let mut answers = Answers { client, told: String::new() };
    answers.create(account(&plain, "plain@example.com")).await;
    answers.create(account(&login, "login@example.com")).await;
    answers.fail(account(&refusing, "refused@example.com")).await;
    for from in ["plain@example.com", "login@example.com"] {
        answers.send(from, &["ann@example.org", "nobody@example.org", "later@example.org"]).await;
        for to in ["long@example.org", "noise@example.org", "cut@example.org"] {
            answers.send(from, &[to]).await;
        }
    }
    answers.read().await;
    let database = dump(&data_dir).await;
    serving.signal(Signal::SIGTERM);
    let (_, output) = serving.end(PATIENCE).await;
    let tail = tail.await.expect("no panic");

    // The servers did log us in both ways and said what they know, and it was hidden.
    let commands = [plain.journal(), login.journal()].map(|journal| journal.commands.join("\n"));
    let sent = Search::for_password();
    assert!(commands[0].contains("AUTH PLAIN ") && sent.finds(commands[0].as_bytes()).is_some());
    assert!(commands[1].contains("AUTH LOGIN") && sent.finds(commands[1].as_bytes()).is_some());
    for (place, text) in [("answers", &answers.told), ("tail", &tail), ("database", &database)] {
        assert!(text.matches("<hidden>").count() > 20, "{place}: nothing was hidden");
        assert!(text.contains(MARKER), "{place}: not even the subject is in it");
    }
    let traced = output.lines().filter(|line| line.starts_with('{') && line.contains(r#""level":"TRACE""#));
    assert!(traced.count() > 1_000, "every library tells what it does, in JSON");

    let key_search = Search::for_text(&key);
    let cluster_password =
        std::fs::read_to_string(data_dir.path().join("postgres/password")).expect("readable");
    let cluster_search = Search::for_text(cluster_password.trim());
    for (place, text) in
        [("answers", &answers.told), ("tail", &tail), ("database", &database), ("output", &output)]
    {
        for search in [&sent, &key_search, &cluster_search] {
            if let Some(found) = search.finds(text.as_bytes()) {
                panic!("in the {place}: {found}");
            }
        }
    }
    let marker = Search::for_text(MARKER);
    let mut with_marker = 0;
    each_file(&data_dir.path(), &mut |path, bytes| {
        with_marker += usize::from(marker.finds(bytes).is_some());
        for search in [&sent, &key_search] {
            assert!(search.finds(bytes).is_none(), "{}: {:?}", path.display(), search.finds(bytes));
        }
    });
    assert!(with_marker > 0, "the search does not even find the subject in a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_server_tells_nothing_of_letters_at_info() {
    let server = Behaviour::default()
        .on("RCPT TO:<nobody@", "550 5.1.1 <nobody@example.org>: no such mailbox\r\n")
        .on("RCPT TO:<later@", "451 4.3.0 <later@example.org>: not now\r\n")
        .once("RCPT TO:<noise@", "<noise@example.org> what?\r\n", Then::Close)
        .start()
        .await;
    let refusing = Behaviour::default().on("MAIL", "550 5.7.1 <refused@example.com>: no\r\n").start().await;
    let data_dir = DataDir::new();
    let serving = Serving::start(&data_dir.path(), &["--drain-wait", "0s"]).await;
    data_dir.lines(&["site", "create", "shop"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let mut answers = Answers { client: serving.client(&key), told: String::new() };
    answers.create(plain_account(&server, "shop@example.com")).await;
    answers.fail(plain_account(&refusing, "refused@example.com")).await;
    for to in ["ann@example.org", "nobody@example.org", "later@example.org", "noise@example.org"] {
        answers.send("shop@example.com", &[to]).await;
    }
    serving.signal(Signal::SIGTERM);
    let (_, output) = serving.end(PATIENCE).await;
    assert!(output.contains(" INFO "), "{output}");
    for private in ["@example", MARKER, "It travels"] {
        let letters = server.journal().letters;
        let there = letters.iter().any(|letter| String::from_utf8_lossy(&letter.content).contains(private));
        assert!(there, "{private} was not there to be told");
        assert!(!output.contains(private), "{private}: {output}");
    }
}
