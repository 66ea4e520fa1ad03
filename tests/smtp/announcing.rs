//! A letter whose envelope is said with the dot of the one before (RFC 2920 3.1): what comes of it, whatever the server does.

use std::time::Duration;

use postroom::domain::address::Address;
use postroom::domain::log::EntryKind;
use postroom::domain::outcome::{Class, RecipientResult, Scope};
use postroom::domain::reply::Reply;
use postroom::smtp::{Deadlines, Floors, Gate, Letter, Session, Transcript};

use crate::scripted::ordinary::{Behaviour, Then};
use crate::scripted::{Peer, Received, Server};
use crate::support::{
    CONTENT, PATIENT, USER, addresses, classes, connector, open, plain, round_trip, send, texts, transcript,
};

const FIRST: &str = "first@example.com";
const SECOND: &str = "second@example.com";
/// So long a server that answers nothing is waited for.
const SHORT: Duration = Duration::from_secs(1);

/// Letters to one recipient each.
struct Letters {
    sender: Address,
    first: [Address; 1],
    second: [Address; 1],
}

impl Letters {
    fn new() -> Self {
        let address = |text: &str| addresses(&[text]).remove(0);
        Self { sender: address(USER), first: [address(FIRST)], second: [address(SECOND)] }
    }

    fn first(&self) -> Letter<'_> {
        self.to(&self.first)
    }

    fn second(&self) -> Letter<'_> {
        self.to(&self.second)
    }

    fn to<'a>(&'a self, recipients: &'a [Address]) -> Letter<'a> {
        let sender = &self.sender;
        Letter {
            sender,
            recipients,
            content: CONTENT,
            eight_bit: false,
            utf8_headers: false,
            is_private: false,
        }
    }
}

/// Delivers the first letter and announces the second.
async fn first(session: &mut Session) -> Vec<RecipientResult> {
    let letters = Letters::new();
    session.announce(&letters.second(), 100);
    session.deliver(&letters.first(), &transcript()).await
}

async fn second(session: &mut Session, log: &Transcript) -> Vec<RecipientResult> {
    session.deliver(&Letters::new().second(), log).await
}

/// Takes the first letter up to its dot.
async fn take_first(peer: &mut Peer) -> std::io::Result<()> {
    peer.hello(&["PIPELINING"]).await?;
    peer.envelope().await?;
    take(peer).await
}

async fn take(peer: &mut Peer) -> std::io::Result<()> {
    let content = peer.content().await?;
    peer.take(Received { content, ..Received::default() });
    Ok(())
}

/// Hears MAIL, RCPT and DATA, answering nothing.
async fn hear_envelope(peer: &mut Peer) -> std::io::Result<()> {
    for _ in 0..3 {
        peer.command().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_envelope_comes_with_the_dot() {
    let server = Server::scripted(|mut peer| async move {
        take_first(&mut peer).await?;
        // Not before all of it is there is the letter answered.
        hear_envelope(&mut peer).await?;
        peer.say("250 taken\r\n250 sender ok\r\n250 recipient ok\r\n354 go ahead\r\n").await?;
        take(&mut peer).await?;
        peer.say("250 taken, too\r\n").await?;
        peer.answer("221 bye\r\n").await.map(|_| ())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert!(session.has_announced() && session.is_usable() && !session.is_stale());
    let log = transcript();
    let results = second(&mut session, &log).await;
    assert_eq!(classes(&results), [Class::Sent]);
    assert_eq!(results[0].reply.text, "taken, too");
    assert!(!session.has_announced() && session.is_usable());
    session.quit(&transcript()).await;
    let entries = log.take();
    let of = |kind| entries.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.text.as_str());
    let said: Vec<&str> = of(EntryKind::Client).collect();
    let envelope = [format!("MAIL FROM:<{USER}>"), format!("RCPT TO:<{SECOND}>"), "DATA".to_owned()];
    assert_eq!(said[..3], envelope, "{said:?}");
    let heard: Vec<&str> = of(EntryKind::Server).collect();
    assert_eq!(heard, ["250 sender ok", "250 recipient ok", "354 go ahead", "250 taken, too"]);
    assert!(of(EntryKind::Connection).any(|text| text == "said with the dot of the letter before:"));
    let journal = server.wait_until(|journal| journal.ended == 1).await;
    assert_eq!((journal.letters.len(), journal.commands.last().map(String::as_str)), (2, Some("QUIT")));
}

#[tokio::test]
async fn many_letters_announced_one_by_one() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    let letters = Letters::new();
    for number in 0..50 {
        assert_eq!(session.has_announced(), number > 0);
        session.announce(&letters.first(), 1);
        assert_eq!(classes(&session.deliver(&letters.first(), &transcript()).await), [Class::Sent]);
    }
    assert_eq!(classes(&session.deliver(&letters.first(), &transcript()).await), [Class::Sent]);
    let journal = server.journal();
    assert_eq!((journal.connections, journal.letters.len()), (1, 51));
    assert!(journal.letters.iter().all(|letter| letter.content == CONTENT));
}

#[tokio::test]
async fn what_one_group_or_one_transaction_cannot_hold_is_not_announced() {
    let letters = Letters::new();
    // The server must offer it.
    let server = Behaviour::default().extensions(&[]).start().await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert!(!session.has_announced());
    // More recipients than a transaction may have.
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    let two = addresses(&[FIRST, SECOND]);
    session.announce(&letters.to(&two), 1);
    session.deliver(&letters.first(), &transcript()).await;
    assert!(!session.has_announced());
    // A letter that the server would not be offered.
    let server = Behaviour::default().extensions(&["PIPELINING"]).start().await;
    let mut session = open(&plain(&server)).await;
    session.announce(&Letter { utf8_headers: true, ..letters.second() }, 100);
    session.deliver(&letters.first(), &transcript()).await;
    assert!(!session.has_announced());
    // With a letter that needs a second transaction it is, with the last dot.
    let server =
        Behaviour::default().once("RCPT TO:<second@", "452 4.5.3 too many\r\n", Then::GoOn).start().await;
    let mut session = open(&plain(&server)).await;
    session.announce(&letters.second(), 100);
    let results = session.deliver(&letters.to(&two), &transcript()).await;
    assert_eq!(classes(&results), [Class::Sent, Class::Sent]);
    assert!(session.has_announced());
    assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Sent]);
    assert_eq!(server.journal().letters.len(), 3);
}

/// What was to be announced with a letter that is not even begun is not announced with the next one.
#[tokio::test]
async fn a_letter_that_is_not_begun_announces_nothing() {
    let server = Behaviour::default().extensions(&["PIPELINING"]).start().await;
    let mut session = open(&plain(&server)).await;
    let letters = Letters::new();
    session.announce(&letters.second(), 100);
    let unfit = Letter { utf8_headers: true, ..letters.first() };
    assert_eq!(classes(&session.deliver(&unfit, &transcript()).await), [Class::Refused]);
    assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Sent]);
    assert!(!session.has_announced());
}

#[tokio::test]
async fn a_refused_letter_does_not_hold_up_the_one_that_was_announced() {
    for reply in ["550 5.7.1 no\r\n", "451 4.3.0 later\r\n"] {
        let server = Behaviour::default().once("dot", reply, Then::GoOn).start().await;
        let mut session = open(&plain(&server)).await;
        assert_ne!(classes(&first(&mut session).await), [Class::Sent]);
        assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Sent]);
        assert_eq!(server.journal().connections, 1);
    }
}

/// And nothing of the one that was announced reached anybody.
#[tokio::test]
async fn another_letter_or_none_leaves_the_server() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert_eq!(classes(&send(&mut session, &["eve@example.com"]).await), [Class::Retry]);
    assert!(session.lost_while_idle(), "no attempt");
    assert!(!session.is_usable() && !session.has_announced());
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    session.quit(&transcript()).await;
    let journal = server.wait_until(|journal| journal.ended == 2).await;
    assert!(!journal.commands.iter().any(|command| command == "QUIT"), "{:?}", journal.commands);
    assert_eq!(journal.letters.len(), 2);
    assert!(journal.letters.iter().all(|letter| letter.recipients == [format!("<{FIRST}>")]));
}

#[tokio::test]
async fn a_server_that_ends_the_session_gets_the_letter_in_the_next() {
    for farewell in ["", "421 4.7.0 enough for one session\r\n"] {
        let server = Server::scripted(move |mut peer| async move {
            take_first(&mut peer).await?;
            hear_envelope(&mut peer).await?;
            peer.say("250 taken\r\n").await?;
            peer.fault("ended");
            peer.say(farewell).await
        })
        .await;
        let mut session = open(&plain(&server)).await;
        assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
        assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Retry]);
        assert!(session.lost_while_idle() && !session.is_usable(), "no attempt");
        assert!(session.is_deaf_to_announcements(), "with its first one: it may end each session so");
        assert_eq!(server.journal().faults, ["ended"]);
    }
}

#[tokio::test]
async fn a_server_that_closes_instead_of_an_answer_leaves_one_letter_uncertain() {
    let server = Server::scripted(|mut peer| async move {
        take_first(&mut peer).await?;
        hear_envelope(&mut peer).await?;
        peer.fault("closed");
        Ok(())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Uncertain]);
    assert!(!session.is_usable() && !session.has_announced());
    assert!(session.is_deaf_to_announcements(), "it may be for what came with the dot");
    assert_eq!(server.journal().faults, ["closed"]);
}

#[tokio::test]
async fn a_server_that_did_not_hear_it_is_deaf() {
    let server = Server::scripted(|mut peer| async move {
        take_first(&mut peer).await?;
        peer.say("250 taken\r\n").await?;
        peer.fault("went on reading");
        peer.hold().await.map(|_| ())
    })
    .await;
    let deadlines =
        Deadlines { reply: SHORT, acceptance: PATIENT, ..Deadlines::new(PATIENT, Floors::default()) };
    let opened = Session::open_within(connector(), &plain(&server), deadlines, &transcript()).await;
    let mut session = opened.expect("the session opens");
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Retry]);
    assert!(session.lost_while_idle() && session.is_deaf_to_announcements(), "no attempt");
    assert_eq!(server.journal().faults, ["went on reading"]);
}

/// What the server says too much of a letter, or against an envelope that came ahead, is nobody's result: the letter goes over a
/// session in which nothing is said ahead.
#[tokio::test]
async fn an_answer_too_many_or_too_soon_is_no_attempt() {
    for (to_dot, to_mail) in [
        ("250 taken\r\n250 taken\r\n", "250 sender ok\r\n"),
        ("554 spam\r\n554 spam\r\n", "250 sender ok\r\n"),
        ("250 taken\r\n", "503 not now\r\n"),
        ("250 taken\r\n", "554 improper pipelining\r\n"),
    ] {
        let server = Server::scripted(move |mut peer| async move {
            take_first(&mut peer).await?;
            hear_envelope(&mut peer).await?;
            peer.fault("out of step");
            peer.say([to_dot, to_mail, "250 recipient ok\r\n354 go ahead\r\n"].concat()).await?;
            let more = peer.hold().await?;
            peer.fault(format!("{more} bytes"));
            Ok(())
        })
        .await;
        let mut session = open(&plain(&server)).await;
        first(&mut session).await;
        assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Retry], "{to_dot}{to_mail}");
        assert!(session.lost_while_idle() && session.is_deaf_to_announcements(), "{to_dot}{to_mail}");
        let journal = server.wait_until(|journal| journal.ended == 1).await;
        assert_eq!(journal.faults, ["out of step", "0 bytes"], "no content");
    }
    // One that is refused for now, in a session that has carried others: so it may be announced again.
    let server = Server::scripted(|mut peer| async move {
        take_first(&mut peer).await?;
        peer.say("250 taken\r\n").await?;
        peer.envelope().await?;
        take(&mut peer).await?;
        hear_envelope(&mut peer).await?;
        peer.say("250 taken\r\n451 4.3.0 later\r\n503 no sender\r\n503 no sender\r\n").await?;
        peer.hold().await.map(|_| ())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Sent]);
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Retry]);
    assert!(session.lost_while_idle() && !session.is_deaf_to_announcements());
}

/// The server has heard all of the envelope, and goes before the letter's turn.
#[tokio::test]
async fn a_server_that_goes_before_the_content_gets_the_letter_in_the_next() {
    for farewell in ["", "421 4.3.2 shutting down\r\n"] {
        let server = Server::scripted(move |mut peer| async move {
            take_first(&mut peer).await?;
            hear_envelope(&mut peer).await?;
            peer.say("250 taken\r\n250 sender ok\r\n250 recipient ok\r\n354 go ahead\r\n").await?;
            peer.say(farewell).await?;
            peer.fault("gone");
            Ok(())
        })
        .await;
        let mut session = open(&plain(&server)).await;
        assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
        server.wait_until(|journal| journal.faults.len() == 1).await;
        round_trip().await;
        assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Retry]);
        assert!(session.lost_while_idle(), "no attempt: {farewell}");
    }
}

/// CASES 13, of a letter that was announced.
#[tokio::test]
async fn no_content_for_a_letter_whose_recipients_are_all_refused() {
    let server = Server::scripted(|mut peer| async move {
        take_first(&mut peer).await?;
        hear_envelope(&mut peer).await?;
        peer.say("250 taken\r\n250 sender ok\r\n550 5.1.1 nobody\r\n354 go ahead\r\n").await?;
        peer.fault("asked for it");
        let more = peer.hold().await?;
        peer.fault(format!("{more} bytes"));
        Ok(())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    assert_eq!(classes(&second(&mut session, &transcript()).await), [Class::Refused]);
    assert!(!session.is_usable());
    let journal = server.wait_until(|journal| journal.ended == 1).await;
    assert_eq!(journal.faults, ["asked for it", "0 bytes"]);
}

/// Lets nothing through.
struct Closed;

impl Gate for Closed {
    fn max_recipients(&self) -> usize {
        100
    }

    async fn transaction(&self, _recipients: usize) -> Result<(), Reply> {
        Err(Reply::absent("not now"))
    }

    async fn dot(&self, _recipients: &[usize]) -> Result<(), Reply> {
        Ok(())
    }

    fn reach(&self, _result: &RecipientResult) -> Scope {
        Scope::Recipient
    }
}

#[tokio::test]
async fn a_gate_that_is_closed_for_it_ends_the_session() {
    let server = Behaviour::default().start().await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&first(&mut session).await), [Class::Sent]);
    let log = transcript();
    let results = session.deliver_through(&Closed, &Letters::new().second(), &log).await;
    assert_eq!(classes(&results), [Class::Untried]);
    assert!(!session.is_usable() && !session.lost_while_idle());
    assert!(texts(&log, EntryKind::Client).is_empty());
    assert_eq!(server.wait_until(|journal| journal.ended == 1).await.letters.len(), 1);
}
