//! MAIL, RCPT and DATA: cases 11 to 14 and 20 to 23.

use postroom::domain::outcome::{Class, Step};
use postroom::smtp::Letter;

use crate::scripted::Server;
use crate::scripted::ordinary::{Behaviour, Then};
use crate::support::{CONTENT, USER, addresses, classes, open, plain, send, send_content, transcript};

const BOTH: [&[&str]; 2] = [&["PIPELINING"], &[]];

#[tokio::test]
async fn a_letter_arrives_as_it_is() {
    for extensions in BOTH {
        let server = Behaviour::default().extensions(extensions).start().await;
        let mut session = open(&plain(&server)).await;
        let results = send(&mut session, &["bob@example.com", "eve@example.com"]).await;
        assert_eq!(classes(&results), [Class::Sent; 2]);
        assert_eq!(results[0].reply.to_string(), "250 2.0.0 taken");
        session.quit(&transcript()).await;
        let journal = server.wait_until(|journal| journal.ended == 1).await;
        let letter = &journal.letters[0];
        assert_eq!(letter.content, CONTENT);
        assert_eq!(letter.sender, "<ann@example.com>");
        assert_eq!(letter.recipients, ["<bob@example.com>", "<eve@example.com>"]);
        assert_eq!(journal.commands.last().map(String::as_str), Some("QUIT"));
    }
}

#[tokio::test]
async fn case_11_the_sender_is_refused() {
    for (reply, class) in [("451 4.3.0 later\r\n", Class::Retry), ("550 5.7.1 never\r\n", Class::Refused)] {
        for extensions in BOTH {
            let server =
                Behaviour::default().extensions(extensions).once("MAIL", reply, Then::GoOn).start().await;
            let mut session = open(&plain(&server)).await;
            let results = send(&mut session, &["bob@example.com", "eve@example.com"]).await;
            assert_eq!(classes(&results), [class; 2]);
            assert_eq!(
                (results[0].step, results[0].reply.code),
                (Step::Envelope, reply[..3].parse().expect("a code"))
            );
            // The session goes on, with a clean slate.
            assert!(session.is_usable());
            assert_eq!(classes(&send(&mut session, &["bob@example.com"]).await), [Class::Sent]);
            let journal = server.journal();
            assert!(journal.commands.iter().any(|command| command == "RSET"));
            assert_eq!((journal.letters.len(), journal.faults.len()), (1, 1));
        }
    }
}

#[tokio::test]
async fn case_12_each_recipient_has_his_own_result() {
    for extensions in BOTH {
        let server = Behaviour::default()
            .extensions(extensions)
            .on("RCPT TO:<later@", "450 4.2.1 later\r\n")
            .on("RCPT TO:<never@", "550 5.1.1 no such user\r\n")
            .on("RCPT TO:<moved@", "251 2.1.5 will forward\r\n")
            .start()
            .await;
        let mut session = open(&plain(&server)).await;
        let names =
            ["a@example.com", "later@example.com", "moved@example.com", "never@example.com", "b@example.com"];
        let results = send(&mut session, &names).await;
        let expected = [Class::Sent, Class::Retry, Class::Sent, Class::Refused, Class::Sent];
        assert_eq!(classes(&results), expected);
        assert_eq!(results[3].reply.to_string(), "550 5.1.1 no such user");
        assert_eq!(results[3].step, Step::Envelope);
        assert_eq!(results[0].step, Step::Acceptance);
        let letters = server.journal().letters;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].recipients, ["<a@example.com>", "<moved@example.com>", "<b@example.com>"]);
    }
}

#[tokio::test]
async fn case_13_no_recipient_and_354_all_the_same() {
    let server = Server::scripted(|mut peer| async move {
        peer.hello(&["PIPELINING"]).await?;
        peer.answer("250 ok\r\n").await?;
        peer.answer("550 5.1.1 no\r\n").await?;
        peer.answer("550 5.1.1 no\r\n").await?;
        peer.answer("354 go ahead\r\n").await?;
        let more = peer.hold().await?;
        peer.fault(format!("{more} bytes of content"));
        Ok(())
    })
    .await;
    let mut session = open(&plain(&server)).await;
    let results = send(&mut session, &["a@example.com", "b@example.com"]).await;
    assert_eq!(classes(&results), [Class::Refused; 2]);
    assert_eq!(results[0].reply.code, 550);
    assert!(!session.is_usable());
    let journal = server.wait_until(|journal| journal.ended == 1).await;
    assert_eq!(journal.faults, ["0 bytes of content"]);
}

#[tokio::test]
async fn no_recipient_and_data_refused_as_it_should_be() {
    for extensions in BOTH {
        let server =
            Behaviour::default().extensions(extensions).once("RCPT", "550 no\r\n", Then::GoOn).start().await;
        let mut session = open(&plain(&server)).await;
        assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Refused]);
        assert!(session.is_usable());
        assert_eq!(classes(&send(&mut session, &["b@example.com"]).await), [Class::Sent]);
        assert_eq!(server.journal().letters.len(), 1);
    }
}

#[tokio::test]
async fn case_14_data_answered_with_nonsense() {
    for (reply, class, usable) in [
        ("250 ok\r\n", Class::Retry, false),
        ("999 what\r\n", Class::Retry, false),
        ("garbage\r\n", Class::Retry, false),
        ("451 4.3.0 later\r\n", Class::Retry, true),
        ("554 5.5.1 no valid recipients\r\n", Class::Refused, true),
    ] {
        for extensions in BOTH {
            let server =
                Behaviour::default().extensions(extensions).once("DATA", reply, Then::GoOn).start().await;
            let mut session = open(&plain(&server)).await;
            let results = send(&mut session, &["a@example.com"]).await;
            assert_eq!((classes(&results), results[0].step), (vec![class], Step::Content), "{reply}");
            assert_eq!(session.is_usable(), usable, "{reply}");
            let journal = server.journal();
            assert_eq!((journal.faults.len(), journal.letters.len()), (1, 0));
        }
    }
}

#[tokio::test]
async fn nonsense_at_mail_and_rcpt() {
    for event in ["MAIL", "RCPT"] {
        for reply in ["354 go ahead\r\n", "120 wait\r\n", "garbage\r\n", "250-one\r\n550 two\r\n"] {
            for extensions in BOTH {
                let server =
                    Behaviour::default().extensions(extensions).once(event, reply, Then::GoOn).start().await;
                let mut session = open(&plain(&server)).await;
                let results = send(&mut session, &["a@example.com"]).await;
                assert_eq!(
                    (classes(&results), results[0].step),
                    (vec![Class::Retry], Step::Envelope),
                    "{reply}"
                );
                assert!(!session.is_usable());
                assert_eq!(server.journal().letters.len(), 0);
            }
        }
    }
}

#[tokio::test]
async fn case_20_421_at_any_step() {
    for (event, step) in [
        ("MAIL", Step::Envelope),
        ("RCPT TO:<b@", Step::Envelope),
        ("DATA", Step::Content),
        ("dot", Step::Acceptance),
    ] {
        for extensions in BOTH {
            let behaviour =
                Behaviour::default().extensions(extensions).on("RCPT TO:<never@", "550 5.1.1 no\r\n");
            let server = behaviour.once(event, "421 4.3.2 shutting down\r\n", Then::Close).start().await;
            let mut session = open(&plain(&server)).await;
            let results = send(&mut session, &["never@example.com", "a@example.com", "b@example.com"]).await;
            let first = if event == "MAIL" { Class::Retry } else { Class::Refused };
            assert_eq!(classes(&results), [first, Class::Retry, Class::Retry], "{event}");
            assert_eq!((results[1].step, results[1].reply.code), (step, 421), "{event}");
            assert!(!session.is_usable());
            assert!(!session.lost_while_idle(), "it was the first letter of this session");
            assert_eq!(server.journal().letters.len(), 0);
        }
    }
}

#[tokio::test]
async fn case_21_larger_than_the_server_takes() {
    let server = Behaviour::default().extensions(&["PIPELINING", "SIZE 1000"]).start().await;
    let mut session = open(&plain(&server)).await;
    let results = send_content(&mut session, &["a@example.com"], &b"0123456789ABCDE\r\n".repeat(59)).await;
    assert_eq!(classes(&results), [Class::Refused]);
    assert_eq!(results[0].reply.text, "the letter has 1003 bytes, the server takes at most 1000");
    assert_eq!(server.journal().commands.len(), 1, "only EHLO was said");
    assert!(session.is_usable());
    let results = send_content(&mut session, &["a@example.com"], &b"01234567\r\n".repeat(100)).await;
    assert_eq!(classes(&results), [Class::Sent]);
    assert_eq!(server.journal().letters[0].sender, "<ann@example.com> SIZE=1000");
}

#[tokio::test]
async fn case_22_too_many_recipients() {
    for reply in
        ["452 4.5.3 too many recipients\r\n", "452 slow down\r\n", "552 5.5.3 Too many recipients\r\n"]
    {
        for extensions in BOTH {
            let server = Server::scripted(move |mut peer| async move {
                peer.hello(extensions).await?;
                loop {
                    let mut taken = 0;
                    let mut letter = crate::scripted::Received::default();
                    loop {
                        let command = peer.command().await?;
                        match &command[..4] {
                            "RCPT" if taken == 3 => {
                                peer.fault("too many");
                                peer.say(reply).await?;
                            }
                            "RCPT" => {
                                taken += 1;
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
            .await;
            let mut session = open(&plain(&server)).await;
            let names: Vec<String> = (0..7).map(|number| format!("r{number}@example.com")).collect();
            let results = send(&mut session, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(classes(&results), [Class::Sent; 7], "{reply}");
            let journal = server.journal();
            let sizes: Vec<usize> = journal.letters.iter().map(|letter| letter.recipients.len()).collect();
            assert_eq!(sizes, [3, 3, 1]);
            assert!(!journal.faults.is_empty());
            let mut got: Vec<String> =
                journal.letters.iter().flat_map(|letter| letter.recipients.clone()).collect();
            got.sort();
            let expected: Vec<String> = names.iter().map(|name| format!("<{name}>")).collect();
            assert_eq!(got, expected, "each got it once");
        }
    }
}

#[tokio::test]
async fn a_full_mailbox_is_not_too_many_recipients() {
    for (reply, class) in
        [("452 4.2.2 mailbox full\r\n", Class::Retry), ("552 5.2.2 mailbox full\r\n", Class::Refused)]
    {
        let server = Behaviour::default().on("RCPT TO:<full@", reply).start().await;
        let mut session = open(&plain(&server)).await;
        let results = send(&mut session, &["a@example.com", "full@example.com"]).await;
        assert_eq!(classes(&results), [Class::Sent, class]);
        assert_eq!(server.journal().faults.len(), 1, "he was asked for once");
    }
    // Before anybody was accepted there is nobody to be too many for.
    let server = Behaviour::default().on("RCPT", "452 4.5.3 too many recipients\r\n").start().await;
    let mut session = open(&plain(&server)).await;
    assert_eq!(classes(&send(&mut session, &["a@example.com"]).await), [Class::Retry]);
}

#[tokio::test]
async fn at_most_a_hundred_recipients_in_a_transaction() {
    let server = Behaviour::default().on("RCPT TO:<r150@", "550 5.1.1 no\r\n").start().await;
    let mut session = open(&plain(&server)).await;
    let names: Vec<String> = (0..250).map(|number| format!("r{number}@example.com")).collect();
    let results = send(&mut session, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(results.iter().filter(|result| result.class == Class::Sent).count(), 249);
    assert_eq!(results[150].class, Class::Refused);
    let sizes: Vec<usize> = server.journal().letters.iter().map(|letter| letter.recipients.len()).collect();
    assert_eq!(sizes, [100, 99, 50]);
}

#[tokio::test]
async fn case_23_what_the_server_cannot_carry() {
    let poor = Behaviour::default().extensions(&["PIPELINING"]).start().await;
    let rich = Behaviour::default().extensions(&["PIPELINING", "8BITMIME", "SMTPUTF8"]).start().await;
    let utf8 = "Subject: t\r\n\r\nGrüße\r\n".as_bytes();
    for (content, sender, recipient, utf8_headers, said) in [
        (utf8, USER, "bob@example.com", false, " BODY=8BITMIME"),
        (CONTENT, USER, "иван@example.com", false, " SMTPUTF8"),
        (CONTENT, "анна@example.com", "bob@example.com", false, " SMTPUTF8"),
        (utf8, USER, "bob@example.com", true, " BODY=8BITMIME SMTPUTF8"),
    ] {
        let (sender, recipients) = (&addresses(&[sender])[0], &addresses(&[recipient]));
        let letter = Letter {
            sender,
            recipients,
            content,
            eight_bit: !content.is_ascii(),
            utf8_headers,
            is_private: false,
        };
        let mut session = open(&plain(&poor)).await;
        let results = session.deliver(&letter, &transcript()).await;
        assert_eq!(classes(&results), [Class::Refused], "{said}");
        assert!(results[0].reply.text.contains("the server does not offer"), "{:?}", results[0].reply);
        assert!(session.is_usable());
        let mut session = open(&plain(&rich)).await;
        assert_eq!(classes(&session.deliver(&letter, &transcript()).await), [Class::Sent], "{said}");
        let letter = rich.journal().letters.pop().expect("a letter");
        assert!(letter.sender.ends_with(&format!(">{said}")), "{}", letter.sender);
    }
    assert!(poor.journal().commands.iter().all(|command| command.starts_with("EHLO")));
}

#[tokio::test]
async fn case_23_domains_are_in_a_label_form_and_others_get_the_letter() {
    let server = Behaviour::default().extensions(&["PIPELINING"]).start().await;
    let mut session = open(&plain(&server)).await;
    let results = send(&mut session, &["info@пример.рф", "иван@example.com"]).await;
    assert_eq!(classes(&results), [Class::Sent, Class::Refused]);
    assert_eq!(server.journal().letters[0].recipients, ["<info@xn--e1afmkfd.xn--p1ai>"]);
}
