//! All that a client of the server is told, as text: answers, errors, streams.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::message::Content;
use postroom::api::proto::{
    Account, CheckAccountRequest, CreateAccountRequest, GetMessageRequest, ListAccountsRequest,
    ListLogEntriesRequest, ListLogsRequest, ListMessagesRequest, SendMessageRequest, TailLogEntriesRequest,
    WatchEventsRequest,
};
use tokio::task::JoinHandle;
use tonic::Streaming;

use super::MARKER;
use crate::binary::Client;
use crate::support::{PATIENCE, SITE, download, letter, reason};

/// All that was answered to a client, as text.
pub(super) struct Answers {
    pub(super) client: Client,
    pub(super) told: String,
}

impl Answers {
    pub(super) fn note(&mut self, answer: &impl std::fmt::Debug) {
        writeln!(self.told, "{answer:?}").expect("a string takes everything");
    }

    /// Creates an account and checks it; its name.
    pub(super) async fn create(&mut self, account: Account) -> String {
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        let created = self.client.accounts().create_account(request).await.expect("an account");
        self.note(&created);
        let name = created.into_inner().account.expect("set").name;
        self.check(&name).await;
        name
    }

    /// A check of a saved account.
    pub(super) async fn check(&mut self, name: &str) {
        let target = Some(Target::Name(name.to_owned()));
        let request = CheckAccountRequest { parent: SITE.to_owned(), target, ..Default::default() };
        let checked = self.client.accounts().check_account(request).await.expect("a result");
        self.note(&checked);
    }

    /// A check that fails, and an account that is not saved for it.
    pub(super) async fn fail(&mut self, account: Account) {
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
    pub(super) async fn send(&mut self, from: &str, to: &[&str]) {
        let mut message = letter(from, to);
        if let Some(Content::Composed(composed)) = &mut message.content {
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
        let start = Instant::now();
        loop {
            let request = GetMessageRequest { name: name.clone() };
            let got = self.client.send().get_message(request).await.expect("found").into_inner();
            if !got.message.as_ref().expect("set").attempts.is_empty() {
                return self.note(&got);
            }
            assert!(start.elapsed() < PATIENCE, "no attempt: {got:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that can be read.
    pub(super) async fn read(&mut self) {
        let parent = SITE.to_owned();
        let request = ListAccountsRequest { parent: parent.clone(), ..ListAccountsRequest::default() };
        let accounts = self.client.accounts().list_accounts(request).await.expect("listed");
        self.note(&accounts);
        let request = ListMessagesRequest { parent: parent.clone(), ..ListMessagesRequest::default() };
        let messages = self.client.send().list_messages(request).await.expect("listed");
        self.note(&messages);
        let request = ListLogsRequest { parent, page_size: 1_000, ..ListLogsRequest::default() };
        let logs = self.client.logs().list_logs(request).await.expect("listed").into_inner().logs;
        self.note(&logs);
        assert!(logs.len() >= 5, "logs of checks and of sending: {logs:?}");
        for log in logs {
            // Every way to read a log is noted.
            self.note(&download(self.client.logs(), &log.name).await);
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

/// What a stream tells to its end, which is the stop of the server.
fn read_to_the_end<T: std::fmt::Debug + Send + 'static>(mut stream: Streaming<T>) -> JoinHandle<String> {
    tokio::spawn(async move {
        let mut told = String::new();
        while let Ok(Some(response)) = stream.message().await {
            writeln!(told, "{response:?}").expect("a string takes everything");
        }
        told
    })
}

/// Reads a tail of all logs.
pub(super) async fn tail(client: &Client) -> JoinHandle<String> {
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    read_to_the_end(client.logs().tail_log_entries(request).await.expect("a tail").into_inner())
}

/// Reads all events.
pub(super) async fn watch(client: &Client) -> JoinHandle<String> {
    let request = WatchEventsRequest { parent: SITE.to_owned(), ..WatchEventsRequest::default() };
    read_to_the_end(client.send().watch_events(request).await.expect("a watch").into_inner())
}
