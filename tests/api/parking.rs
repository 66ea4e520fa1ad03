//! Parking, seen from outside: the mail of an account that is at fault waits, uses up no tries and goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postroom::api::proto::account::Auth;
use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{
    Account, Attempt, Check, CheckAccountRequest, GetAccountRequest, GetMessageRequest, ListAccountsRequest,
    Message, Parking, PasswordAuth, SendMessageRequest, UpdateAccountRequest, check, check_account_request,
    recipient,
};
use prost_types::FieldMask;

use crate::desk::execute;
use crate::eventually::eventually;
use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, plain_account, with_login};

const FROM: &str = "shop@example.com";
const USER: &str = "shop";
const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

/// Smallest retry interval with which the first probe comes after a minute, far beyond the end of a test.
const NO_PROBE: Duration = Duration::from_mins(30);

/// A server that can be switched over to another behaviour, for new connections.
struct Switch {
    server: Server,
    is_over: Arc<AtomicBool>,
}

impl Switch {
    async fn new(before: Behaviour, after: Behaviour) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (flag, before, after) = (Arc::clone(&is_over), Arc::new(before), Arc::new(after));
        let server = Server::scripted(move |peer| {
            let behaviour = if flag.load(Ordering::SeqCst) { &after } else { &before };
            Arc::clone(behaviour).serve(peer)
        })
        .await;
        Self { server, is_over }
    }

    /// A server at which the password is changed from the old one to the new one.
    async fn password() -> Self {
        let with = |password| Behaviour::default().login(USER, password);
        Self::new(with(OLD), with(NEW)).await
    }

    fn set(&self, is_over: bool) {
        self.is_over.store(is_over, Ordering::SeqCst);
    }

    /// How often a login was tried.
    fn logins(&self) -> usize {
        self.server.journal().commands.iter().filter(|command| command.starts_with("AUTH")).count()
    }
}

async fn start(retry_floor: Duration) -> Postroom {
    Postroom::start_with(Options { retry_floor, ..Options::default() }).await
}

fn login_at(switch: &Switch) -> Account {
    with_login(plain_account(&switch.server, FROM), USER, OLD)
}

/// Sends without waiting; the letter's name.
async fn send(postroom: &Postroom, from: &str, number: usize) -> String {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(from, &[&format!("r{number}@example.org")])),
        ..SendMessageRequest::default()
    };
    let taken = postroom.send().send_message(request).await.expect("taken").into_inner();
    taken.message.expect("set").name
}

async fn account(postroom: &Postroom, name: &str) -> Account {
    let request = GetAccountRequest { name: name.to_owned() };
    postroom.accounts().get_account(request).await.expect("found").into_inner().account.expect("set")
}

async fn parked(postroom: &Postroom, name: &str) -> Parking {
    eventually("parked", async || account(postroom, name).await.parking).await
}

async fn in_state(postroom: &Postroom, name: &str, state: State) -> Message {
    eventually("a letter's state", async || {
        let message = postroom.message(name).await;
        (message.state() == state).then_some(message)
    })
    .await
}

fn outcomes(message: &Message) -> Vec<Outcome> {
    message.attempts.iter().map(Attempt::outcome).collect()
}

/// Microseconds since 1970.
fn micros(time: Option<prost_types::Timestamp>) -> i64 {
    let time = time.expect("a time");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// How many accounts of the site are parked, or are not.
async fn count(postroom: &Postroom, parked: bool) -> usize {
    let request = ListAccountsRequest {
        parent: SITE.to_owned(),
        parked: Some(parked),
        ..ListAccountsRequest::default()
    };
    postroom.accounts().list_accounts(request).await.expect("a page").into_inner().accounts.len()
}

/// Letters that wait for an account that is parked: the first one had an attempt, which was no try, the others none.
async fn waiting(postroom: &Postroom, letters: usize) -> Vec<String> {
    let mut names = vec![send(postroom, FROM, 0).await];
    let account = format!("{SITE}/accounts/1");
    parked(postroom, &account).await;
    for number in 1..letters {
        names.push(send(postroom, FROM, number).await);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_at_the_server_parks_until_it_is_changed_here() {
    let switch = Switch::password().await;
    let postroom = start(NO_PROBE).await;
    let name = postroom.create_account(login_at(&switch)).await.name;
    let before = account(&postroom, &name).await;
    switch.set(true);
    let names = waiting(&postroom, 20).await;
    let parking = parked(&postroom, &name).await;
    assert_eq!(parking.reason(), Reason::AuthFailed);
    assert!(parking.error.contains("535 5.7.8 wrong user name or password"), "{parking:?}");
    let first = in_state(&postroom, &names[0], State::Queued).await;
    let wait = micros(parking.until) - micros(first.attempts[0].end_time);
    assert!((55_000_000..90_000_000).contains(&wait), "{wait} µs");
    assert_eq!(first.attempts[0].reply.as_ref().map(|reply| reply.code), Some(535));
    let listed = account(&postroom, &name).await;
    assert_eq!((&listed.etag, &listed.update_time), (&before.etag, &before.update_time), "no change");
    assert_eq!(listed.check.as_ref().map(Check::state), Some(check::State::Failed));
    assert_eq!((count(&postroom, true).await, count(&postroom, false).await), (1, 0));

    // An account that works is looked after meanwhile, and after that nobody has touched the others.
    let other = Behaviour::default().start().await;
    postroom.create_account(plain_account(&other, "other@example.com")).await;
    let sent = postroom.send_and_wait(letter("other@example.com", &["ann@example.org"])).await;
    assert_eq!((sent.state(), sent.attempts.len()), (State::Sent, 1), "{sent:?}");
    assert_eq!((count(&postroom, true).await, count(&postroom, false).await), (1, 1));
    for (number, name) in names.iter().enumerate() {
        let message = postroom.message(name).await;
        assert_eq!(message.state(), State::Queued, "{message:?}");
        assert_eq!(message.recipients[0].state(), recipient::State::Pending, "{message:?}");
        assert_eq!(message.attempts.len(), usize::from(number == 0), "{message:?}");
    }
    assert_eq!(switch.logins(), 2, "the check and one letter");

    // Another change of the account does not know better; only the right password does.
    let change = |password: &str| {
        let password =
            PasswordAuth { username: USER.to_owned(), password: password.to_owned(), password_set: false };
        let account =
            Account { name: name.clone(), auth: Some(Auth::Password(password)), ..Account::default() };
        UpdateAccountRequest {
            account: Some(account),
            update_mask: Some(FieldMask { paths: vec!["password".to_owned()] }),
            validate_only: false,
        }
    };
    postroom.accounts().update_account(change("a third one")).await.expect_err("wrong as well");
    assert_eq!(
        account(&postroom, &name).await.parking.map(|parking| parking.reason()),
        Some(Reason::AuthFailed)
    );
    let updated = postroom.accounts().update_account(change(NEW)).await.expect("changed").into_inner();
    assert_eq!(updated.account.expect("set").parking, None);
    for (number, name) in names.iter().enumerate() {
        let message = in_state(&postroom, name, State::Sent).await;
        let expected = if number == 0 { &[Outcome::Retry, Outcome::Sent][..] } else { &[Outcome::Sent] };
        assert_eq!(outcomes(&message), expected, "{message:?}");
    }
    assert_eq!(switch.server.journal().letters.len(), names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_passes_resumes() {
    let switch = Switch::password().await;
    let postroom = start(NO_PROBE).await;
    let name = postroom.create_account(login_at(&switch)).await.name;
    switch.set(true);
    let names = waiting(&postroom, 3).await;
    let check = async || {
        let target = Some(check_account_request::Target::Name(name.clone()));
        let request =
            CheckAccountRequest { parent: SITE.to_owned(), target, ..CheckAccountRequest::default() };
        let checked = postroom.accounts().check_account(request).await.expect("an answer").into_inner();
        checked.check.expect("set").state()
    };
    assert_eq!(check().await, check::State::Failed);
    assert!(account(&postroom, &name).await.parking.is_some(), "it does not work yet");
    switch.set(false);
    assert_eq!(check().await, check::State::Passed);
    assert_eq!(account(&postroom, &name).await.parking, None);
    for name in &names {
        in_state(&postroom, name, State::Sent).await;
    }
    assert_eq!(switch.server.journal().letters.len(), names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_try_one_letter_and_become_rare_until_one_goes_through() {
    const LETTERS: usize = 50;
    /// The waits before the second attempt and each further one, in microseconds, without what jitter adds.
    const WAITS: [i64; 4] = [200_000, 400_000, 800_000, 1_600_000];
    let switch = Switch::password().await;
    // The first probe comes after 200 ms, the waits grow up to 6 s.
    let postroom = start(Duration::from_secs(6)).await;
    let name = postroom.create_account(login_at(&switch)).await.name;
    switch.set(true);
    let names = waiting(&postroom, LETTERS).await;
    // The check's, the first letter's and four probes'.
    let logins = WAITS.len() + 2;
    eventually("four probes", async || (switch.logins() >= logins).then_some(())).await;
    // One connection for many calls.
    let client = postroom.send();
    let attempts = eventually("four probes told", async || {
        let mut attempts = Vec::new();
        for name in &names {
            let request = GetMessageRequest { name: name.clone() };
            let message = client.clone().get_message(request).await.expect("found").into_inner();
            attempts.extend(message.message.expect("set").attempts);
        }
        attempts.sort_by_key(|attempt| micros(attempt.start_time));
        (attempts.len() > WAITS.len()).then_some(attempts)
    })
    .await;
    // One letter each, over a connection of its own; one more is under way perhaps, and the first one was the check's.
    let logins = switch.logins();
    assert!((attempts.len() + 1..=attempts.len() + 2).contains(&logins), "{logins} logins: {attempts:?}");
    assert_eq!(switch.server.journal().connections, logins, "nothing else was tried");
    for (pair, at_least) in attempts.windows(2).zip(WAITS) {
        let wait = micros(pair[1].start_time) - micros(pair[0].end_time);
        assert!(wait >= at_least, "{wait} µs instead of {at_least}: {attempts:?}");
    }
    let parking = eventually("parked anew", async || {
        account(&postroom, &name).await.parking.filter(|parking| {
            // Set behind the fifth attempt.
            micros(parking.until) - micros(attempts[WAITS.len()].end_time) >= 3_200_000
        })
    })
    .await;
    assert_eq!(parking.reason(), Reason::AuthFailed);

    switch.set(false);
    for name in &names {
        let message = in_state(&postroom, name, State::Sent).await;
        assert_eq!(message.attempts.last().map(Attempt::outcome), Some(Outcome::Sent));
    }
    assert_eq!(account(&postroom, &name).await.parking, None);
    assert_eq!(switch.server.journal().letters.len(), LETTERS, "each of them once");
    let more = switch.logins() - logins;
    assert!(more <= 7, "a probe that failed, one that did not, and other sessions: {more}");
    assert_eq!((count(&postroom, true).await, count(&postroom, false).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_parks_and_refuses_nobody() {
    const WORDS: &str = "Daily user sending limit exceeded";
    let quota = format!("550 5.4.5 {WORDS}. For more information on Gmail\r\n");
    let postroom = start(NO_PROBE).await;
    for (place, event) in ["MAIL", "RCPT", "dot"].into_iter().enumerate() {
        let switch = Switch::new(Behaviour::default(), Behaviour::default().on(event, &quota)).await;
        let from = format!("quota{place}@example.com");
        let name = postroom.create_account(plain_account(&switch.server, &from)).await.name;
        switch.set(true);
        let first = send(&postroom, &from, 0).await;
        let parking = parked(&postroom, &name).await;
        assert_eq!(parking.reason(), Reason::Quota, "{event}: {parking:?}");
        assert!(parking.error.contains("550 5.4.5") && parking.error.contains(WORDS), "{event}: {parking:?}");
        let second = send(&postroom, &from, 1).await;
        let waiting = in_state(&postroom, &first, State::Queued).await;
        assert_eq!(waiting.recipients[0].state(), recipient::State::Pending, "{event}: {waiting:?}");
        assert_eq!(outcomes(&waiting), [Outcome::Retry], "{event}");
        let words = waiting.recipients[0].reply.as_ref().expect("set");
        assert_eq!((words.code, words.enhanced_code.as_str()), (550, "5.4.5"), "{event}");
        let faults = switch.server.journal().faults;
        assert_eq!(faults, [event.to_uppercase()], "the second one was not tried");

        switch.set(false);
        let target = Some(check_account_request::Target::Name(name));
        let request =
            CheckAccountRequest { parent: SITE.to_owned(), target, ..CheckAccountRequest::default() };
        postroom.accounts().check_account(request).await.expect("an answer");
        for letter in [first, second] {
            in_state(&postroom, &letter, State::Sent).await;
        }
        assert_eq!(switch.server.journal().letters.len(), 2, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_parked_account_outlives_a_restart() {
    let switch = Switch::password().await;
    let mut postroom = start(NO_PROBE).await;
    let name = postroom.create_account(login_at(&switch)).await.name;
    switch.set(true);
    let names = waiting(&postroom, 5).await;
    let before = parked(&postroom, &name).await;
    let logins = switch.logins();
    postroom.restart().await;
    let after = parked(&postroom, &name).await;
    assert_eq!(after, before, "still parked, until the same time");
    // Another account's letter goes through: so the dispatcher has looked, and left the parked one alone.
    let other = Behaviour::default().start().await;
    postroom.create_account(plain_account(&other, "other@example.com")).await;
    let sent = postroom.send_and_wait(letter("other@example.com", &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent, "{sent:?}");
    assert_eq!(switch.logins(), logins);
    switch.set(false);
    let target = Some(check_account_request::Target::Name(name));
    let request = CheckAccountRequest { parent: SITE.to_owned(), target, ..CheckAccountRequest::default() };
    postroom.accounts().check_account(request).await.expect("an answer");
    for name in &names {
        in_state(&postroom, name, State::Sent).await;
    }
    assert_eq!(switch.server.journal().letters.len(), names.len(), "each of them once");
}

/// A flipped bit in the sealed password: nobody logs in with it, and its mail waits for a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_cannot_be_opened_parks_until_there_is_a_new_one() {
    let server = Behaviour::default().login(USER, OLD).start().await;
    let postroom = start(NO_PROBE).await;
    let account = with_login(plain_account(&server, FROM), USER, OLD);
    let name = postroom.create_account(account).await.name;
    let logins = |server: &Server| server.journal().commands.iter().filter(|c| c.starts_with("AUTH")).count();
    let before = logins(&server);
    let last = "octet_length(sealed_password) - 1";
    let flipped = format!("set_byte(sealed_password, {last}, get_byte(sealed_password, {last}) # 1)");
    execute(&postroom, &format!("update accounts set sealed_password = {flipped}")).await;
    let first = send(&postroom, FROM, 1).await;
    let told = parked(&postroom, &name).await;
    assert_eq!(told.reason(), Reason::Configuration, "{told:?}");
    assert!(told.error.contains("password"), "{told:?}");
    let second = send(&postroom, FROM, 2).await;
    for letter in [&first, &second] {
        let waiting = postroom.message(letter).await;
        assert_eq!((waiting.state(), waiting.attempts.len()), (State::Queued, 0), "{waiting:?}");
    }
    assert_eq!(logins(&server), before, "nobody logs in with what cannot be opened");
    let auth = PasswordAuth { username: USER.to_owned(), password: OLD.to_owned(), password_set: false };
    let account = Account { name, auth: Some(Auth::Password(auth)), ..Account::default() };
    let update_mask = Some(FieldMask { paths: vec!["password".to_owned()] });
    let request =
        UpdateAccountRequest { account: Some(account), update_mask, ..UpdateAccountRequest::default() };
    postroom.accounts().update_account(request).await.expect("a new password");
    for letter in [first, second] {
        in_state(&postroom, &letter, State::Sent).await;
    }
}
