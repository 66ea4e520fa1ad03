//! The same letter at each of the four levels, over STARTTLS with AUTH LOGIN: exactly as docs/logs.md shows it. Also when a
//! change of the level counts.

use std::collections::BTreeSet;
use std::fs;

use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::Content;
use postroom::api::proto::{Account, ListLogEntriesRequest, LogEntry, LogLevel, Message, Security, Settings};

use crate::eventually::eventually;
use crate::scripted::Server;
use crate::scripted::certificates::{CaFile, Certificate};
use crate::scripted::ordinary::{Behaviour, Tls};
use crate::support::{Options, Postroom, SITE, letter, plain_account, with_login};

const FROM: &str = "shop@example.com";
const PASSWORD: &str = "correct horse";
/// Always the same, so that its size is.
const LETTER: &str = "Date: Sun, 22 Nov 2026 01:41:10 +0000\r\n\
    To: Ann Lee <ann@example.org>\r\n\
    From: The shop <shop@example.com>\r\n\
    Subject: Your order\r\n\
    Message-ID: <order-4711@shop.example.com>\r\n\
    MIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    \r\n\
    Thank you.\r\n";

const LEVELS: [LogLevel; 4] =
    [LogLevel::Client, LogLevel::ClientServer, LogLevel::Connection, LogLevel::LowLevel];

/// The lines of a session as a downloaded log has them.
async fn lines(postroom: &Postroom, session: &str) -> Vec<String> {
    let mark = format!(" [{}] ", &session[session.len() - 8..]);
    let text = postroom.download("send-admin-1").await;
    text.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
}

/// The line as the document has it, which names no machine of a test.
fn disguised(line: &str, port: u16) -> String {
    let mut line = line
        .replace(&format!("127.0.0.1:{port}"), "192.0.2.25:587")
        .replace("CN=localhost", "CN=smtp.example.com")
        .replace("Authority of the tests", "An authority")
        .replace("ordinary.example", "smtp.example.com");
    if let Some((before, behind)) = line.split_once("resolved localhost to ")
        && let Some((_, took)) = behind.split_once(" in ")
    {
        line = format!("{before}resolved smtp.example.com to 192.0.2.25 in {took}");
    }
    if let Some((before, _)) = line.split_once("CLIENT -> SERVER: EHLO ") {
        line = format!("{before}CLIENT -> SERVER: EHLO postroom.example.com");
    }
    line
}

/// The line without what is different each time: times, ids, durations, sizes of reads and writes, the certificate's own.
fn blurred(line: &str) -> String {
    let (time, rest) = line.split_once(" [").expect("a time");
    let (session, rest) = rest.split_once("] ").expect("a session");
    assert!(time.len() == 27 && time.ends_with('Z'), "{line}");
    assert!(session.len() == 8 && session.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
    let (kind, text) = rest.split_once(':').expect("a kind");
    let text = text.trim();
    let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for at in 0..words.len() {
        let next = words.get(at + 1).cloned().unwrap_or_default();
        let counts = next == "ms" || (kind == "DATA" && next == "bytes");
        if is_number(&words[at]) && counts {
            "#".clone_into(&mut words[at]);
        }
    }
    let mut text = words.join(" ");
    if let Some((before, _)) = text.split_once(", valid until ") {
        text = format!("{before}, valid until #, sha256 #");
    }
    format!("{kind}: {text}")
}

/// The lines of Postroom in the section of this level.
fn documented(level: LogLevel) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs.md");
    let text = fs::read_to_string(path).expect("a document");
    let heading = format!("\n### `{}`\n", level.as_str_name());
    let section = text.split_once(&heading).unwrap_or_else(|| panic!("no section{heading}")).1;
    let section = section.split("\n#").next().expect("a section");
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    // PHPMailer's lines have no `T` in their times.
    lines.filter(|line| line.get(10..11) == Some("T")).map(str::to_owned).collect()
}

async fn server() -> Server {
    Behaviour::default()
        .tls(Tls::AfterCommand(Certificate::Good))
        .login(FROM, PASSWORD)
        .mechanisms("LOGIN")
        .extensions(&["SIZE 30000000", "8BITMIME", "ENHANCEDSTATUSCODES"])
        .on("greeting", "220 smtp.example.com ESMTP\r\n")
        .start()
        .await
}

async fn entries(postroom: &Postroom, filter: ListLogEntriesRequest) -> Vec<LogEntry> {
    let request =
        ListLogEntriesRequest { name: format!("{SITE}/logs/send-admin-1"), page_size: 1_000, ..filter };
    postroom.logs().list_log_entries(request).await.expect("a log").into_inner().entries
}

async fn of_message(postroom: &Postroom, message: String) -> Vec<LogEntry> {
    entries(postroom, ListLogEntriesRequest { message, ..ListLogEntriesRequest::default() }).await
}

async fn of_session(postroom: &Postroom, session: String) -> Vec<LogEntry> {
    entries(postroom, ListLogEntriesRequest { session, ..ListLogEntriesRequest::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_shows_what_each_level_shows() {
    let ca = CaFile::new();
    let options = Options { ca_file: Some(ca.path().to_owned()), ..Options::default() };
    let mut postroom = Postroom::start_with(options).await;
    let server = server().await;
    let account = Account {
        host: "localhost".to_owned(),
        security: Security::Starttls.into(),
        ..with_login(plain_account(&server, FROM), FROM, PASSWORD)
    };
    postroom.create_account(account).await;
    let mut shown = Vec::new();
    for level in LEVELS {
        postroom.change_settings(Settings { log_level: Some(level.into()), ..Settings::default() }).await;
        let letter = Message { content: Some(Content::Raw(LETTER.into())), ..Message::default() };
        let sent = postroom.send_and_wait(letter).await;
        // A stop ends the session that is open.
        postroom.restart().await;
        let session = of_message(&postroom, sent.name).await[0].session.clone();
        let lines = lines(&postroom, &session).await;
        let lines = lines.iter().map(|line| disguised(line, server.port()));
        // Only a busy machine takes so long for an answer that it is told.
        let lines: Vec<String> = lines.filter(|line| !line.contains("CONNECTION: the reply took ")).collect();
        shown.push((level, lines));
    }
    assert_eq!(server.journal().letters.len(), 4);
    let blur = |lines: &Vec<String>| lines.iter().map(|line| blurred(line)).collect::<Vec<_>>();
    for (level, lines) in &shown {
        let document: Vec<String> = documented(*level);
        let told = format!("    {}", lines.join("\n    "));
        assert_eq!(blur(&document), blur(lines), "docs/logs.md does not show {level:?} as it is:\n{told}");
    }
    // Each level shows all that the one before shows, and one kind more.
    let mut kinds = BTreeSet::new();
    for pair in shown.windows(2) {
        let [(_, less), (level, more)] = pair else { panic!("two levels") };
        let mut more = blur(more).into_iter().peekable();
        for line in blur(less) {
            while more.next_if(|other| *other != line).is_some() {}
            assert_eq!(more.next(), Some(line), "{level:?} lacks a line of the level before, or its place");
        }
    }
    for (number, (level, lines)) in shown.iter().enumerate() {
        kinds.extend(blur(lines).into_iter().map(|line| line.split_once(':').expect("a kind").0.to_owned()));
        assert_eq!(kinds.len(), number + 1, "{level:?}: {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_level_counts_from_the_next_session_on() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let send = async || {
        let name = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
        of_message(&postroom, name).await
    };
    let kinds = |entries: &[LogEntry]| entries.iter().map(LogEntry::kind).collect::<BTreeSet<_>>();
    let first = send().await;
    let second = send().await;
    assert_eq!(first[0].session, second[0].session, "nothing changed: the session was kept");
    postroom
        .change_settings(Settings { log_level: Some(LogLevel::Connection.into()), ..Settings::default() })
        .await;
    let third = send().await;
    assert_ne!(second[0].session, third[0].session, "the session of before has the level of before");
    assert_eq!(kinds(&second), [Kind::Client, Kind::Server].into());
    assert_eq!(kinds(&third), [Kind::Client, Kind::Server, Kind::Connection].into());
    assert!(third.iter().any(|entry| entry.text.starts_with("EHLO ")), "a whole session: {third:?}");
    let fourth = send().await;
    assert_eq!(third[0].session, fourth[0].session);
    let reused = "reused for letter 2 of this session";
    assert!(
        fourth.iter().any(|entry| entry.kind() == Kind::Connection && entry.text == reused),
        "{fourth:?}"
    );
    // The end of the session before belongs to it and to no letter.
    let ended = eventually("the end of the session", async || {
        let entries = of_session(&postroom, second[0].session.clone()).await;
        entries.last().is_some_and(|entry| entry.text.starts_with("221 ")).then_some(entries)
    })
    .await;
    let [.., quit, bye] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((quit.kind(), quit.text.as_str()), (Kind::Client, "QUIT"));
    for entry in [quit, bye] {
        assert_eq!((entry.message.as_str(), entry.attempt), ("", 0));
    }
    assert_eq!(server.journal().letters.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_follows_a_change_of_the_account_or_its_end() {
    let server = Behaviour::default().start().await;
    let mut postroom = Postroom::start().await;
    let account = postroom.create_account(plain_account(&server, FROM)).await;
    postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    let request = postroom::api::proto::DeleteAccountRequest { name: account.name, ..Default::default() };
    postroom.accounts().delete_account(request).await.expect("deleted");
    // A stop ends the session that is open.
    postroom.restart().await;
    server
        .wait_until(|journal| journal.commands.iter().filter(|command| *command == "QUIT").count() == 2)
        .await;
    let request = postroom::api::proto::ListLogsRequest { parent: SITE.to_owned(), ..Default::default() };
    let logs = postroom.logs().list_logs(request).await.expect("listed").into_inner().logs;
    let names: Vec<_> = logs.iter().map(|log| log.file_name.as_str()).collect();
    assert_eq!(names, ["check_admin_smtp_0.log", "audit.log"]);
}
