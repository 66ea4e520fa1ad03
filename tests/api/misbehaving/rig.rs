//! A Postroom, servers that are ordinary until they are told to misbehave, and letters sent into the trap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, CheckAccountRequest, GetAccountRequest, ListLogEntriesRequest, LogEntry, Message, Security,
    SendMessageRequest, Settings, check, check_account_request,
};
use postroom::smtp::Floors;

use super::story::Story;
use crate::eventually::eventually;
use crate::scripted::certificates::CaFile;
use crate::scripted::ordinary::Behaviour;
use crate::scripted::{Peer, Server};
use crate::support::{Options, Postroom, SITE, letter, plain_account, with_login};

/// The login of accounts that have one.
pub(super) const USER: &str = "shop";
/// Its password.
pub(super) const PASSWORD: &str = "correct horse";

/// The smallest retry interval: long enough that nothing is tried twice while a test looks. The first probe of a parked
/// account comes after a thirtieth of it.
pub(super) const FLOOR: Duration = Duration::from_mins(30);

/// How long servers may take while they misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// A second for everything: for servers that do not answer in time.
    Brief,
    /// Far more than what is answered at once can take.
    Long,
}

impl Patience {
    /// The deadline of each reply, in seconds.
    const fn deadline(self) -> i64 {
        match self {
            Self::Brief => 1,
            Self::Long => 30,
        }
    }

    /// What an attempt may take: the deadline and a second (CASES), and two more for a busy machine; where servers answer
    /// at once, far less than the deadline.
    pub(super) const fn bound(self) -> Duration {
        match self {
            Self::Brief => Duration::from_secs(4),
            Self::Long => Duration::from_secs(20),
        }
    }
}

/// A server that is ordinary until it is told to misbehave.
pub(super) struct Hostile {
    pub(super) server: Server,
    misbehaves: Arc<AtomicBool>,
}

impl Hostile {
    /// Behaves, later by `script`.
    pub(super) async fn scripted<F, Fut>(ordinary: Behaviour, script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let misbehaves = Arc::new(AtomicBool::new(false));
        let (flag, ordinary) = (Arc::clone(&misbehaves), Arc::new(ordinary));
        let server = Server::scripted(move |peer| {
            let (flag, ordinary, script) = (Arc::clone(&flag), Arc::clone(&ordinary), script.clone());
            async move {
                if flag.load(Ordering::SeqCst) { script(peer).await } else { ordinary.serve(peer).await }
            }
        })
        .await;
        Self { server, misbehaves }
    }

    /// Behaves like the one, later like the other, whose rules note what they play.
    pub(super) async fn behaving(ordinary: Behaviour, misbehaving: Behaviour) -> Self {
        let misbehaving = Arc::new(misbehaving);
        Self::scripted(ordinary, move |peer| Arc::clone(&misbehaving).serve(peer)).await
    }

    /// The same for what no rule notes: each connection notes this fault.
    pub(super) async fn being(fault: &'static str, ordinary: Behaviour, misbehaving: Behaviour) -> Self {
        let misbehaving = Arc::new(misbehaving);
        Self::scripted(ordinary, move |peer| {
            peer.fault(fault);
            Arc::clone(&misbehaving).serve(peer)
        })
        .await
    }

    /// Without a login or TLS, and misbehaving by these rules.
    pub(super) async fn plain(misbehaving: Behaviour) -> Self {
        Self::behaving(Behaviour::default(), misbehaving).await
    }

    pub(super) fn misbehave(&self, misbehaves: bool) {
        self.misbehaves.store(misbehaves, Ordering::SeqCst);
    }
}

/// One server, how the account reaches it, and the letter that meets it.
pub(super) struct Case {
    /// What a failing test calls it.
    name: String,
    hostile: Hostile,
    security: Security,
    has_login: bool,
    letter: Box<Message>,
}

impl Case {
    /// Without TLS and login.
    pub(super) fn new(name: impl Into<String>, hostile: Hostile) -> Self {
        let letter = Box::new(letter("", &["ann@example.org"]));
        Self { name: name.into(), hostile, security: Security::None, has_login: false, letter }
    }

    pub(super) fn security(self, security: Security) -> Self {
        Self { security, ..self }
    }

    pub(super) fn login(self) -> Self {
        Self { has_login: true, ..self }
    }

    pub(super) fn to(self, recipients: &[&str]) -> Self {
        Self { letter: Box::new(letter("", recipients)), ..self }
    }

    /// With this letter, whose From is the account's.
    pub(super) fn letter(self, letter: Message) -> Self {
        Self { letter: Box::new(letter), ..self }
    }
}

/// A Postroom whose site has an account for each case.
pub(super) struct Rig {
    pub(super) postroom: Postroom,
    patience: Patience,
    _ca: CaFile,
}

impl Rig {
    pub(super) async fn start(patience: Patience) -> Self {
        Self::start_with(patience, FLOOR).await
    }

    /// The same with another smallest retry interval; the intervals are the usual ones.
    pub(super) async fn start_with(patience: Patience, retry_floor: Duration) -> Self {
        let ca = CaFile::new();
        let second = Duration::from_secs(1);
        let options = Options {
            ca_file: Some(ca.path().to_owned()),
            smtp_floors: Floors { content_block: second, acceptance: second },
            retry_floor,
            ..Options::default()
        };
        let rig = Self { postroom: Postroom::start_with(options).await, patience, _ca: ca };
        rig.wait_for_servers(Patience::Long).await;
        rig
    }

    async fn wait_for_servers(&self, patience: Patience) {
        let connection_timeout = Some(prost_types::Duration { seconds: patience.deadline(), nanos: 0 });
        self.postroom.change_settings(Settings { connection_timeout, ..Settings::default() }).await;
    }

    /// Plays cases side by side: creates their accounts while the servers behave, has them misbehave, sends each a letter
    /// and waits for what comes of them. The stories come in the order of the cases.
    pub(super) async fn play<const N: usize>(&self, cases: [Case; N]) -> [Story; N] {
        let stories = Box::pin(self.stories(Vec::from(cases))).await;
        stories.try_into().unwrap_or_else(|_| unreachable!("a story for each case"))
    }

    async fn stories(&self, cases: Vec<Case>) -> Vec<Story> {
        let mut accounts = Vec::new();
        for case in &cases {
            let from = format!("case{}@example.com", case.hostile.server.port());
            let account = plain_account(&case.hostile.server, &from);
            let account = Account { security: case.security.into(), ..account };
            let account = if case.has_login { with_login(account, USER, PASSWORD) } else { account };
            accounts.push(self.postroom.create_account(account).await);
        }
        self.wait_for_servers(self.patience).await;
        let mut letters = Vec::new();
        for (case, account) in cases.iter().zip(&accounts) {
            case.hostile.misbehave(true);
            let from_address = account.sender_email.clone();
            letters.push(self.send(Message { from_address, ..Message::clone(&case.letter) }).await);
        }
        let mut stories = Vec::new();
        for ((case, account), letter) in cases.into_iter().zip(accounts).zip(letters) {
            stories.push(self.story(case, account.name, &letter).await);
        }
        self.wait_for_servers(Patience::Long).await;
        stories
    }

    /// What came of a letter, once something did.
    async fn story(&self, case: Case, account: String, letter: &str) -> Story {
        let Case { name, hostile, security: _, has_login: _, letter: _ } = case;
        let message = eventually(&name, async || {
            let message = self.postroom.message(letter).await;
            let is_open = message.state() == State::Sending || message.attempts.is_empty();
            (!is_open).then_some(message)
        })
        .await;
        let entries = self.transcript(&account, &message.name).await;
        Story {
            name,
            account,
            message,
            entries,
            journal: hostile.server.journal(),
            hostile,
            patience: self.patience,
        }
    }

    /// The letter's entries in the account's log, all of them.
    async fn transcript(&self, account: &str, message: &str) -> Vec<LogEntry> {
        let number = account.rsplit('/').next().expect("a number");
        let mut request = ListLogEntriesRequest {
            name: format!("{SITE}/logs/send-admin-{number}"),
            message: message.to_owned(),
            page_size: 1_000,
            ..ListLogEntriesRequest::default()
        };
        let mut entries = Vec::new();
        loop {
            let page =
                self.postroom.logs().list_log_entries(request.clone()).await.expect("a log").into_inner();
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return entries;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Sends without waiting; the letter's name.
    pub(super) async fn send(&self, message: Message) -> String {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(message),
            ..SendMessageRequest::default()
        };
        let taken = self.postroom.send().send_message(request).await.expect("taken").into_inner();
        taken.message.expect("set").name
    }

    pub(super) async fn account(&self, name: &str) -> Account {
        let request = GetAccountRequest { name: name.to_owned() };
        self.postroom.accounts().get_account(request).await.expect("found").into_inner().account.expect("set")
    }

    /// Has the server behave again, and a check tell so.
    pub(super) async fn heal(&self, story: &Story) {
        story.hostile.misbehave(false);
        let request = CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(check_account_request::Target::Name(story.account.clone())),
            ..CheckAccountRequest::default()
        };
        let checked = self.postroom.accounts().check_account(request).await.expect("checked").into_inner();
        let state = checked.check.as_ref().expect("set").state();
        assert_eq!(state, check::State::Passed, "{}: {checked:?}", story.name);
    }
}
