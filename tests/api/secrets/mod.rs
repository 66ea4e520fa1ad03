//! A password goes in and comes out nowhere: hostile servers repeat it in every form and at every step, and then all that
//! Postroom tells, logs and stores is searched for it.

mod answers;
mod canary;
mod hostile;
mod senders;

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use postroom::api::proto::{Account, LogLevel, Security, Settings, UpdateSettingsRequest};
use postroom::private_postgres;

use self::answers::{Answers, tail, watch};
use self::canary::{PASSWORD, Search, hex};
use self::hostile::{Hostile, RECIPIENTS};
use crate::binary::{Client, DataDir, Serving};
use crate::scripted::certificates::CaFile;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Journal, Server};
use crate::support::{PATIENCE, SITE, plain_account, with_login};

const USER: &str = "vogel@example.com";
/// Stands in the subject of the letters: what shows that a search finds what is there.
const MARKER: &str = "Ger4nienDuft";

fn account(server: &Server, sender_email: &str) -> Account {
    with_login(plain_account(server, sender_email), USER, PASSWORD)
}

async fn keep(client: &Client, level: LogLevel) {
    let settings =
        Settings { name: format!("{SITE}/settings"), log_level: Some(level.into()), ..Settings::default() };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    client.settings().update_settings(request).await.expect("settings");
}

async fn keep_every_byte(client: &Client) {
    keep(client, LogLevel::LowLevel).await;
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

/// The servers logged us in by every mechanism, and said what they know at every step; whether the last one took letters in
/// TLS alone.
fn was_said(sent: &Search, [plain, login, starttls]: [Journal; 3]) -> bool {
    for (journal, mechanism) in [(&plain, "AUTH PLAIN "), (&login, "AUTH LOGIN"), (&starttls, "AUTH LOGIN")] {
        let commands = journal.commands.join("\n");
        assert!(commands.contains(mechanism) && sent.finds(commands.as_bytes()).is_some(), "{mechanism}");
        for step in ["GREETING", "AUTH", "MAIL FROM", "RCPT TO:<SPLIT@", "DATA", "DOT", "QUIT"] {
            assert!(journal.faults.iter().any(|fault| fault.starts_with(step)), "{mechanism}: {step}");
        }
    }
    assert!([&login, &starttls].iter().all(|journal| journal.faults.contains(&"PROMPT".to_owned())));
    assert!(starttls.faults.contains(&"STARTTLS".to_owned()));
    !starttls.letters.is_empty() && starttls.letters.iter().all(|letter| letter.tls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_found_nowhere() {
    let Hostile { plain, login, starttls, parking, failing } = Hostile::start().await;
    let ca = CaFile::new();
    let data_dir = DataDir::new();
    let ca_file = ca.path().to_str().expect("UTF-8");
    let tracing = ["--log-filter", "trace", "--log-format", "json"];
    let arguments = [&tracing[..], &["--smtp-ca-file", ca_file, "--drain-wait", "0s"]].concat();
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    data_dir.lines(&["site", "create", "shop"]).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    let client = serving.client(&key);
    keep_every_byte(&client).await;
    let (tail, watch) = (tail(&client).await, watch(&client).await);
    let mut answers = Answers { client: client.clone(), told: String::new() };
    let in_tls = Account {
        host: "localhost".to_owned(),
        security: Security::Starttls.into(),
        ..account(&starttls, "tls@example.com")
    };
    let names = [
        answers.create(account(&plain, "plain@example.com")).await,
        answers.create(account(&login, "login@example.com")).await,
        answers.create(in_tls).await,
    ];
    answers.create(account(&parking, "parking@example.com")).await;
    for level in [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel] {
        keep(&client, level).await;
        for server in &failing {
            answers.fail(account(server, "failing@example.com")).await;
        }
        for (name, from) in names.iter().zip(["plain@example.com", "login@example.com", "tls@example.com"]) {
            answers.check(name).await;
            answers.send(from, &["ann@example.org", "nobody@example.org", "later@example.org"]).await;
            for to in RECIPIENTS {
                answers.send(from, &[to]).await;
            }
        }
    }
    answers.send("parking@example.com", &["ann@example.org"]).await;
    answers.read().await;
    let database = dump(&data_dir).await;
    serving.signal(Signal::SIGTERM);
    let (_, output) = serving.end(PATIENCE).await;
    let (tail, events) = (tail.await.expect("no panic"), watch.await.expect("no panic"));

    let sent = Search::for_password();
    let all_in_tls = was_said(&sent, [plain, login, starttls].map(|server| server.journal()));
    let there = [("answers", &answers.told), ("tail", &tail), ("database", &database)];
    let said = ["AUTH PLAIN <hidden>", "334 <hidden>", "504 5.5.4 <hidden>", "235 2.7.0 <hidden>"];
    let heard = [
        "220 hostile.example <hidden>",
        "220 2.0.0 <hidden>",
        "X-ECHO <hidden>",
        "AUTH X-<hidden>",
        "535 5.7.8 <hidden>",
        "250-2.1.0 <hidden>",
        "550 5.1.1 <hidden>",
        "you said <hidden>",
        "<hidden>, didn't you?",
        "250 taken, <hidden>…",
        "354 go ahead, <hidden>",
        "taken, <hidden>",
        "221 2.0.0 bye, <hidden>",
    ];
    for (place, text) in there {
        assert!(text.contains(MARKER), "{place}: not even the subject is in it");
        for hidden in said.iter().chain(&heard) {
            assert!(text.contains(hidden), "{place} lacks {hidden}");
        }
    }
    // Events of letters carry no words of servers; those of a parked account do.
    for hidden in ["AuthFailed", "login: 535 5.7.8 <hidden>"] {
        assert!(events.contains(hidden) && answers.told.contains(hidden), "{hidden} in {events}");
    }
    assert!(answers.told.contains("no SMTP reply: <hidden>"));
    assert!(database.contains(&hex(MARKER.as_bytes())), "bytes are dumped in hexadecimal");
    let traced = output.lines().filter(|line| line.starts_with('{') && line.contains(r#""level":"TRACE""#));
    assert!(traced.count() > 1_000, "every library tells what it does, in JSON");
    // A server may put what it learnt into its certificate, and rustls would show that byte by byte.
    assert!(!output.contains("Server cert is") && all_in_tls);

    let key_search = Search::for_text(&key);
    let cluster_password =
        std::fs::read_to_string(data_dir.path().join("postgres/password")).expect("readable");
    let cluster_search = Search::for_text(cluster_password.trim());
    for (place, text) in there.into_iter().chain([("events", &events), ("output", &output)]) {
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
