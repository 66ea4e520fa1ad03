//! The log `audit`: who did what is in it, whoever may not read it learns nothing of it, and nothing is done without it.

mod deeds;
mod omissions;
mod reading;
mod together;

use std::time::Instant;

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, ClearLogRequest, DownloadLogRequest, GetMessageContentRequest, ListLogEntriesRequest, LogEntry,
    Settings, TailLogEntriesRequest, TailLogEntriesResponse, UpdateAccountRequest, UpdateSettingsRequest,
};
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::site::SiteId;
use postroom::store::keys;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::support::{Authorised, PATIENCE, Postroom, SITE};

/// A key of the site `shop`, and calls with it.
struct Person {
    id: Uuid,
    role: Role,
    channel: Authorised,
}

impl Person {
    async fn new(postroom: &Postroom, role: Role) -> Self {
        Self::of(postroom, role, Scope::Site(SiteId::parse("shop").expect("a site"))).await
    }

    async fn of(postroom: &Postroom, role: Role, scope: Scope) -> Self {
        let key = new_key().expect("randomness");
        let caller = Caller::new(scope, vec![role]);
        let store = postroom.store();
        assert!(
            keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored"),
            "its site is there"
        );
        store.close().await;
        let key = std::str::from_utf8(key.expose()).expect("ASCII");
        Self { id: caller.key_id, role, channel: postroom.channel(key) }
    }

    /// What an entry says of what this person did.
    fn did(&self, deed: &str) -> String {
        format!("key {} ({}) {deed}", self.id, self.role.name())
    }

    fn accounts(&self) -> AccountsServiceClient<Authorised> {
        AccountsServiceClient::new(self.channel.clone())
    }

    fn settings(&self) -> SettingsServiceClient<Authorised> {
        SettingsServiceClient::new(self.channel.clone())
    }

    fn logs(&self) -> LogsServiceClient<Authorised> {
        LogsServiceClient::new(self.channel.clone())
    }

    fn send(&self) -> SendServiceClient<Authorised> {
        SendServiceClient::new(self.channel.clone())
    }

    async fn entries(&self, log: &str) -> Result<Vec<LogEntry>, Status> {
        let name = format!("{SITE}/logs/{log}");
        let request = ListLogEntriesRequest { name, page_size: 1_000, ..ListLogEntriesRequest::default() };
        Ok(self.logs().list_log_entries(request).await?.into_inner().entries)
    }

    /// The text of a log.
    async fn download(&self, log: &str) -> Result<String, Status> {
        let request = DownloadLogRequest { name: format!("{SITE}/logs/{log}") };
        let mut stream = self.logs().download_log(request).await?.into_inner();
        let mut text = String::new();
        while let Some(response) = stream.message().await? {
            text.push_str(&response.text);
        }
        Ok(text)
    }

    async fn clear(&self, log: &str) -> Result<(), Status> {
        let request = ClearLogRequest { name: format!("{SITE}/logs/{log}") };
        self.logs().clear_log(request).await.map(|_| ())
    }

    /// Opens a tail, up to its first response.
    async fn tail(&self, request: TailLogEntriesRequest) -> Result<Tail, Status> {
        let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..request };
        let stream = self.logs().tail_log_entries(request).await?.into_inner();
        let mut tail = Tail { stream, first: Vec::new(), token: String::new() };
        tail.first = tail.next().await?.entries;
        Ok(tail)
    }

    /// The bytes of a letter.
    async fn content(&self, name: &str) -> Result<Vec<u8>, Status> {
        let request = GetMessageContentRequest { name: name.to_owned() };
        let mut stream = self.send().get_message_content(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(response) = stream.message().await? {
            content.extend(response.content);
        }
        Ok(content)
    }

    async fn change_account(&self, account: Account) -> Result<Account, Status> {
        let request = UpdateAccountRequest { account: Some(account), ..UpdateAccountRequest::default() };
        let updated = self.accounts().update_account(request).await?.into_inner();
        Ok(updated.account.expect("set"))
    }

    async fn change_settings(&self, settings: Settings) -> Result<Settings, Status> {
        let settings = Settings { name: format!("{SITE}/settings"), ..settings };
        let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
        Ok(self.settings().update_settings(request).await?.into_inner().settings.expect("set"))
    }
}

/// What a busy store refuses is asked again, as a patient client does.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, Status>) -> T {
    let start = Instant::now();
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && start.elapsed() < PATIENCE => {}
            answer => return answer.expect("an answer"),
        }
    }
}

/// An open tail.
struct Tail {
    stream: Streaming<TailLogEntriesResponse>,
    /// What the first response held.
    first: Vec<LogEntry>,
    token: String,
}

impl Tail {
    async fn next(&mut self) -> Result<TailLogEntriesResponse, Status> {
        let response = timeout(PATIENCE, self.stream.message()).await.expect("a response in time")?;
        let response = response.expect("it ends with a status");
        self.token.clone_from(&response.resume_token);
        Ok(response)
    }

    /// All entries from here up to the first whose text ends so.
    async fn until(&mut self, end: &str) -> Vec<LogEntry> {
        let mut entries = std::mem::take(&mut self.first);
        while !entries.iter().any(|entry| entry.text.ends_with(end)) {
            entries.extend(self.next().await.expect("open").entries);
        }
        entries
    }
}

/// Somebody who reads the log `audit` and leaves out what it holds of that.
struct Auditor(Person);

impl Auditor {
    async fn new(postroom: &Postroom) -> Self {
        Self(Person::new(postroom, Role::Admin).await)
    }

    /// The entries about others, and not about the making of this key.
    async fn entries(&self) -> Vec<LogEntry> {
        let entries = self.0.entries("audit").await.expect("an admin may");
        let id = self.0.id.to_string();
        entries.into_iter().filter(|entry| !entry.text.contains(&id)).collect()
    }

    async fn texts(&self) -> Vec<String> {
        self.entries().await.into_iter().map(|entry| entry.text).collect()
    }
}
