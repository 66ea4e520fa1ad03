//! What was taken, seen on every wire: SMTP, letters, logs, what is answered. No line is there that a value made.

use std::collections::HashSet;

use mail_parser::MessageParser;
use postroom::api::proto::message::State;
use postroom::api::proto::{ListLogsRequest, ListMessagesRequest, Message};

use super::bases::Rig;
use crate::eventually::eventually;
use crate::support::{Postroom, SITE};

/// The name of the header that values try to smuggle in, lower case.
const SMUGGLED: &str = "x-evil";
/// The address that values try to smuggle in.
const EVIL: &str = "evil@example.com";
/// Headers that a letter has at most once, lower case.
const ONCE: [&str; 9] =
    ["from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version", "content-type"];

/// Looks at everything that went out, with the letters that were taken.
pub(super) async fn look(rig: &Rig, letters: &[Message]) {
    let Rig { postroom, server, .. } = rig;
    look_at_sessions(postroom, server, letters).await;
    look_at_logs(postroom).await;
}

async fn look_at_sessions(postroom: &Postroom, server: &crate::scripted::Server, letters: &[Message]) {
    eventually("nothing waits but what has a time to wait for", async || {
        (waiting(postroom).await == 0).then_some(())
    })
    .await;
    let journal = server.journal();
    let mut known: HashSet<String> = letters
        .iter()
        .flat_map(|letter| letter.recipients.iter().map(|recipient| recipient.address.to_lowercase()))
        .collect();
    known.extend(["shop@example.com", "ann@example.org"].map(str::to_owned));
    for command in &journal.commands {
        assert!(!command.contains(char::is_control), "{command:?}");
        assert!(!command.to_lowercase().contains(EVIL), "{command:?}");
        let verb = command.split([' ', ':']).next().unwrap_or_default();
        let usual = ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "AUTH"];
        assert!(usual.contains(&verb), "{command:?}");
    }
    for letter in &journal.letters {
        for recipient in &letter.recipients {
            let address = recipient.trim_start_matches('<').split('>').next().unwrap_or_default();
            assert!(known.contains(&address.to_lowercase()), "{recipient:?} was nobody's wish");
        }
        look_at_letter(&letter.content);
    }
    assert!(letters.is_empty() || journal.letters.len() > 1, "letters were taken, and none was sent");
}

/// Letters that wait or are under way, without those that wait for their time.
async fn waiting(postroom: &Postroom) -> usize {
    let states = vec![State::Queued.into(), State::Sending.into()];
    let request =
        ListMessagesRequest { parent: SITE.to_owned(), states, page_size: 1_000, ..Default::default() };
    let answer = postroom.send().list_messages(request).await.expect("letters").into_inner();
    answer.messages.iter().filter(|message| message.send_time.is_none()).count()
}

fn look_at_letter(content: &[u8]) {
    let shown = || String::from_utf8_lossy(&content[..content.len().min(2_000)]).into_owned();
    let parsed = MessageParser::default().parse(content).expect("a letter");
    for (number, part) in parsed.parts.iter().enumerate() {
        let mut names = HashSet::new();
        for header in &part.headers {
            let name = header.name().to_lowercase();
            assert_ne!(name, SMUGGLED, "{}", shown());
            let first = names.insert(name.clone());
            assert!(first || !ONCE.contains(&name.as_str()), "{name} twice in part {number}: {}", shown());
        }
    }
    let head = content.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    for line in content[..head].split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998, "{}", shown());
        assert!(!line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'), "{}", shown());
    }
}

/// Every log: one line an entry, printable, each with its time in front.
async fn look_at_logs(postroom: &Postroom) {
    let request = ListLogsRequest { parent: SITE.to_owned(), page_size: 1_000, ..Default::default() };
    let logs = postroom.logs().list_logs(request).await.expect("logs").into_inner().logs;
    assert!(!logs.is_empty());
    for log in logs {
        let id = log.name.rsplit_once('/').expect("a name").1;
        let text = postroom.download(id).await;
        for line in text.lines() {
            let time = line.split(' ').next().unwrap_or_default();
            let stamp = time.len() == 27 && time.starts_with("20") && time.ends_with('Z');
            assert!(stamp, "{id}: {line:?}");
            assert!(!line.contains(char::is_control), "{id}: {line:?}");
            assert!(!line.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{2029}']), "{id}: {line:?}");
        }
        for entry in postroom.entries(id).await {
            assert!(!entry.text.contains(char::is_control), "{id}: {entry:?}");
        }
    }
}
