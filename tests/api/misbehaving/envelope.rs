//! MAIL, RCPT and DATA: cases 11 to 14, 20 to 23, 25 and 28.

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::log_entry::Kind;
use postroom::api::proto::message::{Content, State};
use postroom::api::proto::parking::Reason::{AuthFailed, Configuration};
use postroom::api::proto::recipient::State::{Pending, Refused, Sent};
use postroom::api::proto::{Composed, Message, Step};

use super::rig::{Case, Hostile, PASSWORD, Patience, Rig, USER};
use super::story::told;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received};
use crate::support::letter;

#[tokio::test(flavor = "multi_thread")]
async fn case_11_the_sender_is_refused() {
    let mail = |reply: &str| Hostile::plain(Behaviour::default().on("MAIL", reply));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("451", mail("451 4.3.0 not now\r\n").await),
        Case::new("550", mail("550 5.7.1 never from you\r\n").await),
        Case::new("530", mail("530 5.7.0 who are you?\r\n").await),
    ];
    let cases = cases.map(|case| case.to(&["ann@example.org", "bob@example.org"]));
    let [later, never, login] = rig.play(cases).await;
    later.is_retried(&rig, told(Step::Envelope, 451, "not now")).await;
    never.is_refused(&rig, told(Step::Envelope, 550, "never from you")).await;
    login.is_parked(&rig, Configuration, told(Step::Envelope, 530, "who are you?"), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_12_each_recipient_has_his_own_result() {
    let hostile = Behaviour::default()
        .on("RCPT TO:<later@", "450 4.2.1 come back\r\n")
        .on("RCPT TO:<never@", "550 5.1.1 no such user\r\n")
        .on("RCPT TO:<moved@", "251 2.1.5 will forward\r\n");
    let rig = Rig::start(Patience::Long).await;
    let names =
        ["a@example.com", "later@example.com", "moved@example.com", "never@example.com", "b@example.com"];
    let [story] = rig.play([Case::new("mixed", Hostile::plain(hostile).await).to(&names)]).await;
    let (message, attempt) = (&story.message, story.attempt());
    assert_eq!(story.recipients(), [(Sent, 250), (Pending, 450), (Sent, 250), (Refused, 550), (Sent, 250)]);
    assert_eq!(message.state(), State::Queued, "{message:?}");
    assert!(message.next_attempt_time.is_some());
    assert_eq!((attempt.outcome(), attempt.step()), (Outcome::PartiallySent, Step::Envelope));
    assert_eq!(attempt.reply.as_ref().expect("set").text, "come back");
    let errors = story.texts(Kind::Error);
    for part in
        ["(1 of 5 recipients): envelope: 450 4.2.1 come back", "(1 of 5 recipients): envelope: 550 5.1.1"]
    {
        assert!(errors.iter().any(|text| text.contains(part)), "{part} in {errors:?}");
    }
    let [letter] = &story.journal.letters[..] else { panic!("{:?}", story.journal) };
    assert_eq!(letter.recipients, ["<a@example.com>", "<moved@example.com>", "<b@example.com>"]);
    assert_eq!(rig.account(&story.account).await.parking, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_no_recipient_and_354_all_the_same() {
    let hostile = Hostile::scripted(Behaviour::default(), |mut peer: Peer| async move {
        peer.hello(&["PIPELINING"]).await?;
        for reply in ["250 ok\r\n", "550 5.1.1 nobody\r\n", "550 5.1.1 nobody\r\n", "354 go ahead\r\n"] {
            peer.answer(reply).await?;
        }
        peer.fault("354 all the same");
        // An error where the end is not an orderly one.
        let more = peer.hold().await?;
        peer.fault(format!("{more} bytes of content"));
        Ok(())
    });
    let rig = Rig::start(Patience::Long).await;
    let case = Case::new("354", hostile.await).to(&["ann@example.org", "bob@example.org"]);
    let [story] = rig.play([case]).await;
    story.is_refused(&rig, told(Step::Envelope, 550, "nobody")).await;
    assert!(story.heard("DATA"));
    let journal = story.hostile.server.wait_until(|journal| journal.faults.len() == 2).await;
    assert_eq!(journal.faults, ["354 all the same", "0 bytes of content"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_14_and_25_data_answered_with_nonsense() {
    let data = |reply: &str| Hostile::plain(Behaviour::default().once("DATA", reply, Then::GoOn));
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("250", data("250 fine\r\n").await),
        Case::new("garbage", data("garbage\r\n").await),
        Case::new("451", data("451 4.3.0 later\r\n").await),
        Case::new("554", data("554 5.5.1 no\r\n").await),
        Case::new("talk", data("354 go ahead\r\n250 by the way\r\n").await),
    ];
    let [yes, garbage, later, never, talk] = rig.play(cases).await;
    yes.is_retried(&rig, told(Step::Content, 250, "fine")).await;
    garbage.is_retried(&rig, told(Step::Content, 0, "the server's answer is no SMTP reply: garbage")).await;
    later.is_retried(&rig, told(Step::Content, 451, "later")).await;
    never.is_refused(&rig, told(Step::Content, 554, "no")).await;
    talk.is_retried(&rig, told(Step::Content, 250, "by the way")).await;
    for story in [&later, &never, &talk] {
        assert_eq!(story.journal.letters, [], "{}", story.name);
    }
    for story in [yes, garbage, talk] {
        // Where the server may wait for content, nothing more is said.
        let journal = story.hostile.server.wait_until(|journal| journal.ended == 2).await;
        assert_eq!(journal.commands.last().map(String::as_str), Some("DATA"), "{}", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_20_421_at_any_step() {
    const CLOSING: &str = "421 4.3.2 shutting down\r\n";
    const STEPS: [(&str, Step); 6] = [
        ("EHLO", Step::Hello),
        ("AUTH", Step::Auth),
        ("MAIL", Step::Envelope),
        ("RCPT", Step::Envelope),
        ("DATA", Step::Content),
        ("dot", Step::Acceptance),
    ];
    let ordinary = || Behaviour::default().login(USER, PASSWORD);
    let case = async |place: usize| {
        let event = STEPS[place].0;
        let hostile = Hostile::behaving(ordinary(), ordinary().once(event, CLOSING, Then::Close)).await;
        Case::new(event, hostile).login()
    };
    let cases = [case(0).await, case(1).await, case(2).await, case(3).await, case(4).await, case(5).await];
    let rig = Rig::start(Patience::Long).await;
    for (story, (event, step)) in rig.play(cases).await.into_iter().zip(STEPS) {
        story.is_retried(&rig, told(step, 421, "shutting down")).await;
        assert_eq!(story.journal.letters, [], "{event}");
        if matches!(step, Step::Hello | Step::Auth) {
            // No session could be opened: other letters wait a moment, or until a check passes.
            rig.heal(&story).await;
        }
        let next =
            rig.postroom.send_and_wait(letter(&story.message.from_address, &["bob@example.org"])).await;
        assert_eq!((next.state(), next.attempts.len()), (State::Sent, 1), "{event}: {next:?}");
        let journal = story.hostile.server.journal();
        assert_eq!(journal.letters[0].connection, journal.connections - 1, "{event}");
        assert!(journal.connections > story.journal.connections, "{event}: a new connection");
    }
}

/// Takes three recipients in a transaction and refuses the others like this.
async fn three_at_a_time(refusal: &'static str) -> Hostile {
    Hostile::scripted(Behaviour::default(), move |mut peer: Peer| async move {
        peer.hello(&["PIPELINING"]).await?;
        loop {
            let mut letter = Received::default();
            loop {
                let command = peer.command().await?;
                match &command[..4] {
                    "RCPT" if letter.recipients.len() == 3 => {
                        peer.fault("too many");
                        peer.say(refusal).await?;
                    }
                    "RCPT" => {
                        letter.recipients.push(command[8..].to_owned());
                        peer.say("250 ok\r\n").await?;
                    }
                    "DATA" => break peer.say("354 go\r\n").await?,
                    _ => peer.say("250 ok\r\n").await?,
                }
            }
            letter.content = peer.content().await?;
            peer.take(letter);
            peer.say("250 taken\r\n").await?;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn case_22_too_many_recipients() {
    let rig = Rig::start(Patience::Long).await;
    let names: Vec<String> = (0..7).map(|number| format!("r{number}@example.org")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cases = [
        Case::new("452", three_at_a_time("452 4.5.3 too many recipients\r\n").await),
        Case::new("552", three_at_a_time("552 5.5.3 Too many recipients\r\n").await),
    ];
    for story in rig.play(cases.map(|case| case.to(&names))).await {
        story.is_sent();
        assert_eq!(story.recipients(), [(Sent, 250); 7]);
        let letters = &story.journal.letters;
        let sizes: Vec<usize> = letters.iter().map(|letter| letter.recipients.len()).collect();
        assert_eq!(sizes, [3, 3, 1], "{}", story.name);
        let mut got: Vec<&str> = letters.iter().flat_map(|l| &l.recipients).map(String::as_str).collect();
        got.sort_unstable();
        assert_eq!(got, names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>(), "each got it once");
        assert!(letters.iter().all(|letter| letter.content == letters[0].content));
        assert_eq!(story.journal.connections, 2, "{}", story.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_21_and_23_what_the_server_cannot_carry() {
    let offering = |extensions: &[&str]| {
        let poor = Behaviour::default().extensions(extensions);
        Hostile::being("offers little", Behaviour::default(), poor)
    };
    let poor = || offering(&["PIPELINING"]);
    let composed = Composed {
        subject: "Grüße aus Köln".to_owned(),
        text: "Schöne Grüße, привет.\n".to_owned(),
        ..Composed::default()
    };
    let composed =
        Message { content: Some(Content::Composed(composed)), ..letter("", &["Jürgen <ann@example.org>"]) };
    let text = "A line of a letter of some length.\n".repeat(50);
    let long = Composed { subject: "Long".to_owned(), text, ..Composed::default() };
    let long = Message { content: Some(Content::Composed(long)), ..letter("", &["ann@example.org"]) };
    let bcc = vec!["иван@example.com".to_owned()];
    let blind = Message { bcc, ..letter("", &["ann@example.org"]) };
    let raw = |port: u16, subject: &str| {
        let text = format!(
            "From: case{port}@example.com\r\nTo: ann@example.org\r\nSubject: {subject}\r\n\r\nGrüße\r\n"
        );
        Message { content: Some(Content::Raw(text.into_bytes().into())), ..Message::default() }
    };
    let eight_bit = poor().await;
    let raw = raw(eight_bit.server.port(), "8-bit");
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("composed", poor().await).letter(composed),
        Case::new("raw", eight_bit).letter(raw),
        Case::new("domain", poor().await).to(&["info@пример.рф"]),
        Case::new("local part", offering(&["8BITMIME"]).await).to(&["иван@example.com"]),
        Case::new("another's local part", poor().await).letter(blind),
        Case::new("size", offering(&["PIPELINING", "SIZE 1000"]).await).letter(long),
    ];
    let [composed, raw, domain, local, another, size] = rig.play(cases).await;
    composed.is_sent();
    assert!(composed.journal.letters[0].content.is_ascii());
    let words = "the letter is 8-bit, and the server does not offer 8BITMIME";
    raw.is_refused(&rig, told(Step::Envelope, 0, words)).await;
    assert!(!raw.heard("MAIL"), "{:?}", raw.journal);
    domain.is_sent();
    assert_eq!(domain.journal.letters[0].recipients, ["<info@xn--e1afmkfd.xn--p1ai>"]);
    local.is_refused(&rig, told(Step::Envelope, 0, "the server does not offer SMTPUTF8")).await;
    assert!(!local.heard("MAIL"), "{:?}", local.journal);
    assert_eq!(another.message.state(), State::PartiallySent, "{:?}", another.message);
    assert_eq!(another.recipients(), [(Sent, 250), (Refused, 0)]);
    let reply = another.message.recipients[1].reply.as_ref().expect("set");
    assert_eq!(reply.text, "the address needs SMTPUTF8, and the server does not offer it");
    assert_eq!(another.journal.letters[0].recipients, ["<ann@example.org>"]);
    size.is_refused(&rig, told(Step::Envelope, 0, "the server takes at most 1000")).await;
    let words = format!("the letter has {} bytes", size.message.size);
    assert!(size.attempt().reply.as_ref().is_some_and(|reply| reply.text.contains(&words)), "{words}");
    assert!(size.heard("EHLO") && !size.heard("MAIL"), "{:?}", size.journal);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_28_what_a_terminal_must_not_see() {
    const NASTY: &str = "\x1b[2J\x1b]0;owned\x07 \0 \u{202e}txt.exe\u{2066} \rfake\u{9b}";
    const SHOWN: &str = "\\x1b[2J\\x1b]0;owned\\x07 \\x00 \\u{202e}txt.exe\\u{2066} \\rfake\\u{9b}";
    let ordinary = || Behaviour::default().login(USER, PASSWORD);
    let (recipient, login) = (format!("550 5.1.1 {NASTY}\r\n"), format!("535 5.7.8 {NASTY}\r\n"));
    let greeting = format!("HTTP/{NASTY}\r\n");
    let rig = Rig::start(Patience::Long).await;
    let cases = [
        Case::new("recipient", Hostile::plain(Behaviour::default().on("RCPT", recipient)).await),
        Case::new("login", Hostile::behaving(ordinary(), ordinary().on("AUTH", login)).await).login(),
        Case::new("greeting", Hostile::plain(Behaviour::default().on("greeting", greeting)).await),
    ];
    let [recipient, login, greeting] = rig.play(cases).await;
    for (story, line) in [
        (&recipient, format!("550 5.1.1 {SHOWN}")),
        (&login, format!("535 5.7.8 {SHOWN}")),
        (&greeting, format!("HTTP/{SHOWN}")),
    ] {
        assert!(story.texts(Kind::Server).contains(&line.as_str()), "{}: {:?}", story.name, story.entries);
        assert!(story.texts(Kind::Error).iter().any(|text| text.contains(SHOWN)), "{:?}", story.entries);
        for entry in &story.entries {
            assert!(!entry.text.chars().any(char::is_control), "{}: {entry:?}", story.name);
            assert!(!entry.text.contains(['\u{202e}', '\u{2066}']), "{}: {entry:?}", story.name);
        }
    }
    recipient.is_refused(&rig, told(Step::Envelope, 550, SHOWN)).await;
    let parking = login.is_parked(&rig, AuthFailed, told(Step::Auth, 535, SHOWN), "").await;
    assert!(!parking.error.chars().any(char::is_control), "{parking:?}");
    let parking =
        greeting.is_parked(&rig, Configuration, told(Step::Connect, 0, SHOWN), "no mail server").await;
    assert!(!parking.error.chars().any(char::is_control), "{parking:?}");
}
