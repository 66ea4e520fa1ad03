//! Servers that take fewer sessions, or fewer letters in one, than an account may have; and sessions that are given back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{Account, Attempt, GetAccountRequest, Limits, Settings, attempt};

use crate::bulk::send_all;
use crate::desk::{count, execute};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::scripted::{Peer, Server};
use crate::sink::Sink;
use crate::support::{Options, PATIENCE, Postroom, account_at, letter, plain_account};

const FROM: &str = "shop@example.com";

/// A server that takes so many sessions at once and refuses every further one for now.
async fn with_places(places: usize) -> Server {
    let (open, ordinary) = (
        Arc::<AtomicUsize>::default(),
        Arc::new(Behaviour::default().delay("dot", Duration::from_millis(20))),
    );
    Server::scripted(move |mut peer: Peer| {
        let (open, ordinary) = (Arc::clone(&open), Arc::clone(&ordinary));
        async move {
            let before = open.fetch_add(1, Ordering::SeqCst);
            let served = if before >= places {
                peer.fault("refused");
                peer.say("421 4.7.0 too many connections from you\r\n").await
            } else {
                ordinary.serve(peer).await
            };
            open.fetch_sub(1, Ordering::SeqCst);
            served
        }
    })
    .await
}

/// One session more than the server takes is no fault of the account, nor of the letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_fewer_sessions_gets_everything_over_those() {
    const LETTERS: usize = 150;
    let server = with_places(2).await;
    let options = Options { retry_floor: Duration::from_mins(30), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let account = postroom.create_account(plain_account(&server, FROM)).await;
    let letters = (0..LETTERS).map(|number| letter(FROM, &[&format!("{number}@example.org")])).collect();
    let names = send_all(&[&postroom], letters).await;
    let all = server.wait_until(|journal| journal.letters.len() >= LETTERS);
    let journal = tokio::time::timeout(PATIENCE, all).await.expect("nothing waits for half an hour");
    assert!(journal.faults.iter().any(|fault| fault == "refused"), "nothing was tested");
    let recipients: BTreeSet<_> = journal.letters.iter().flat_map(|letter| &letter.recipients).collect();
    assert_eq!((journal.letters.len(), recipients.len()), (LETTERS, LETTERS));
    for name in names {
        let sent = postroom.wait_for_attempts(&name, 1).await;
        let outcomes: Vec<_> = sent.attempts.iter().map(Attempt::outcome).collect();
        assert_eq!(outcomes, [attempt::Outcome::Sent], "{sent:?}");
    }
    let request = GetAccountRequest { name: account.name };
    let account = postroom.accounts().get_account(request).await.expect("found").into_inner().account;
    assert!(account.expect("set").parking.is_none());
}

/// CASES 20: whose turn did not come in a session has used no try, and has it in the next one at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_on_in_the_next_session() {
    const IN_A_SESSION: usize = 3;
    const RECIPIENTS: usize = 12;
    let server = Server::scripted(|mut peer: Peer| async move {
        peer.hello(&["PIPELINING"]).await?;
        for _ in 0..IN_A_SESSION {
            loop {
                let command = peer.command().await?;
                if command.starts_with("DATA") {
                    break peer.say("354 go\r\n").await?;
                }
                peer.say(if command.starts_with("QUIT") { "221 bye\r\n" } else { "250 ok\r\n" }).await?;
            }
            peer.content().await?;
            peer.say("250 2.0.0 taken\r\n").await?;
        }
        peer.command().await?;
        peer.fault("enough");
        peer.say("421 4.7.0 enough for this session\r\n").await
    })
    .await;
    let options = Options { retry_floor: Duration::from_mins(30), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    postroom.create_account(plain_account(&server, FROM)).await;
    postroom.change_settings(Settings { send_in_parts: Some(true), ..Settings::default() }).await;
    let to: Vec<String> = (0..RECIPIENTS).map(|number| format!("{number}@example.org")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let sent = postroom.send_and_wait(letter(FROM, &to)).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert!(server.journal().faults.len() >= RECIPIENTS / IN_A_SESSION - 1, "nothing was tested");
    let asked: BTreeSet<_> =
        server.journal().commands.into_iter().filter(|command| command.starts_with("RCPT")).collect();
    assert_eq!(asked.len(), RECIPIENTS + 1, "each recipient, and the check's");
}

/// A session whose giving back fails, since the store does not answer, is given back when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_given_back_however_long_the_store_is_away() {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start().await;
    let limits = Some(Limits { max_connections: Some(1), ..Limits::default() });
    postroom.create_account(Account { limits, ..account_at(sink.port(), FROM) }).await;
    execute(
        &postroom,
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'away' using errcode = '57P01'; end $$;
         create trigger refused before delete on lane_sessions for each row execute function refuse()",
    )
    .await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    // The worker lingers for some seconds, and ends.
    eventually("the session's end", async || {
        let spans = sink.connections();
        spans.iter().all(|span| span.to.is_some()).then_some(())
    })
    .await;
    assert_eq!(count(&postroom, "select count(*) from lane_sessions").await, 1, "nothing was tested");
    execute(&postroom, "drop trigger refused on lane_sessions").await;
    let sent = postroom.send_and_wait(letter(FROM, &["bob@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "the account stands still: {sent:?}");
}
