//! What the tests of this binary share: a server for each test, with a database of its own, and typed clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom::api::proto::account::Auth;
use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, Composed, CreateAccountRequest, CreateSiteRequest, GetMessageRequest, Limits,
    ListLogEntriesRequest, LogEntry, Message, PasswordAuth, Security, SendMessageRequest, Settings,
    UpdateAccountRequest, UpdateSettingsRequest,
};
use postroom::app::{self, AppError, AppOptions};
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::shutdown::Shutdown;
use postroom::store::{Store, keys};
use postroom::vault::Vault;
use prost_types::FieldMask;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) use crate::calls::{
    Authorisation, Authorised, bad_fields, bare_channel, channel, download, patiently, reason, variable,
};
use crate::cluster::open_store;
pub(crate) use crate::cluster::{cluster, database, vault};
pub(crate) use crate::options::Options;
use crate::scripted::Server as SmtpServer;

/// The site that every server of a test has.
pub(crate) const SITE: &str = "sites/shop";
/// How long a test waits for what must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running Postroom with a database of its own, the site `shop`, and clients with an admin key.
pub(crate) struct Postroom {
    /// URL of its database.
    pub(crate) database_url: String,
    /// Its vault.
    pub(crate) vault: Arc<Vault>,
    /// An admin key for all sites.
    pub(crate) key: String,
    /// Where it listens.
    pub(crate) address: String,
    /// Where its metrics are, if they are anywhere.
    pub(crate) metrics_address: String,
    options: Options,
    shutdown: Shutdown,
    serving: Option<JoinHandle<Result<(), AppError>>>,
    vault_folder: Option<TempDir>,
}

impl Postroom {
    /// Starts with what most tests want.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts with these options.
    pub(crate) async fn start_with(options: Options) -> Self {
        let database_url = match &options.database_url {
            Some(url) => url.clone(),
            None => database().await,
        };
        let (vault_folder, vault) = vault();
        let store = open_store(&database_url, Arc::clone(&vault));
        let key = make_key(&store, Scope::AllSites, &[Role::Admin]).await;
        store.close().await;
        let shutdown = Shutdown::new();
        let mut postroom = Self {
            database_url,
            vault,
            key,
            address: String::new(),
            metrics_address: String::new(),
            options,
            shutdown,
            serving: None,
            vault_folder: Some(vault_folder),
        };
        postroom.serve().await;
        postroom.create_site("shop").await;
        postroom
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        self.address = listener.local_addr().expect("an address").to_string();
        self.shutdown = Shutdown::new();
        let mut metrics_listener = None;
        if self.options.metrics {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            self.metrics_address = listener.local_addr().expect("an address").to_string();
            metrics_listener = Some(listener);
        }
        let options =
            AppOptions { metrics_listener, ..self.options.for_server(&self.database_url, &self.vault) };
        let running = app::run(listener, options, self.shutdown.clone());
        self.serving = Some(tokio::spawn(async move {
            let result = running.await;
            if let Err(error) = &result {
                // Otherwise the clients' errors would be all that is seen of it.
                eprintln!("the server ended: {error:?}");
            }
            result
        }));
    }

    /// Stops as SIGTERM does, and waits for the end.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.begin();
        if let Some(serving) = self.serving.take() {
            serving.await.expect("no panic").expect("a clean end");
        }
    }

    /// Stops and starts again over the same database, at another address.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.serve().await;
    }

    /// What the test decided about it.
    pub(crate) fn options(&self) -> Options {
        self.options.clone()
    }

    /// Stops and starts again with other options, which must not be of the database.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Options)) {
        self.stop().await;
        change(&mut self.options);
        self.serve().await;
    }

    /// A store over the same database, for what cannot be seen from outside.
    pub(crate) fn store(&self) -> Store {
        open_store(&self.database_url, Arc::clone(&self.vault))
    }

    /// A new key.
    pub(crate) async fn make_key(&self, scope: Scope, roles: &[Role]) -> String {
        let store = self.store();
        let key = make_key(&store, scope, roles).await;
        store.close().await;
        key
    }

    /// The file of its vault.
    pub(crate) fn vault_file(&self) -> PathBuf {
        self.vault_folder.as_ref().expect("the first server").path().join("vault.keys")
    }

    /// Another server over the same database, with the same vault and key.
    pub(crate) async fn another(&self) -> Self {
        self.another_over(self.options.clone(), Arc::clone(&self.vault)).await
    }

    /// The same with other options.
    pub(crate) async fn another_with(&self, options: Options) -> Self {
        self.another_over(options, Arc::clone(&self.vault)).await
    }

    /// Another server over the same database, with the same key and a vault of its own.
    pub(crate) async fn another_with_vault(&self, vault: Arc<Vault>) -> Self {
        self.another_over(self.options.clone(), vault).await
    }

    async fn another_over(&self, options: Options, vault: Arc<Vault>) -> Self {
        let mut postroom = Self {
            database_url: self.database_url.clone(),
            vault,
            key: self.key.clone(),
            address: String::new(),
            metrics_address: String::new(),
            options,
            shutdown: Shutdown::new(),
            serving: None,
            vault_folder: None,
        };
        postroom.serve().await;
        postroom
    }

    /// A channel without a key.
    pub(crate) fn bare_channel(&self) -> Channel {
        bare_channel(&self.address)
    }

    /// A channel with this key.
    pub(crate) fn channel(&self, key: &str) -> Authorised {
        channel(&self.address, key)
    }

    /// A channel with this key over a connection that is there.
    pub(crate) fn channel_over(wire: &Channel, key: &str) -> Authorised {
        let value = format!("Bearer {key}").parse().expect("ASCII");
        InterceptedService::new(wire.clone(), Authorisation(Some(value)))
    }

    /// A channel with this `authorization`, or none.
    pub(crate) fn channel_with(&self, authorization: Option<&str>) -> Authorised {
        let value = authorization.map(|value| value.parse().expect("metadata is ASCII"));
        InterceptedService::new(self.bare_channel(), Authorisation(value))
    }

    pub(crate) fn settings(&self) -> SettingsServiceClient<Authorised> {
        SettingsServiceClient::new(self.channel(&self.key))
    }

    pub(crate) fn accounts(&self) -> AccountsServiceClient<Authorised> {
        AccountsServiceClient::new(self.channel(&self.key))
    }

    pub(crate) fn send(&self) -> SendServiceClient<Authorised> {
        SendServiceClient::new(self.channel(&self.key)).max_decoding_message_size(64 * 1024 * 1024)
    }

    pub(crate) fn logs(&self) -> LogsServiceClient<Authorised> {
        LogsServiceClient::new(self.channel(&self.key))
    }

    /// Creates an account that works.
    pub(crate) async fn create_account(&self, account: Account) -> Account {
        self.try_account(account).await.expect("an account")
    }

    /// Creates an account in the site `shop`, or not.
    pub(crate) async fn try_account(&self, account: Account) -> Result<Account, Status> {
        self.try_account_in(SITE, account).await
    }

    /// Creates an account that works in a site.
    pub(crate) async fn create_account_in(&self, parent: &str, account: Account) -> Account {
        self.try_account_in(parent, account).await.expect("an account")
    }

    /// Creates a site; its name.
    pub(crate) async fn create_site(&self, id: &str) -> String {
        let request = CreateSiteRequest { site_id: id.to_owned(), site: None };
        let created = patiently(async || self.settings().create_site(request.clone()).await).await;
        created.expect("a site").site.expect("set").name
    }

    pub(crate) async fn try_account_in(&self, parent: &str, account: Account) -> Result<Account, Status> {
        let request = CreateAccountRequest {
            parent: parent.to_owned(),
            account: Some(account),
            request_id: Uuid::now_v7().to_string(),
            validate_only: false,
        };
        let created = patiently(async || self.accounts().create_account(request.clone()).await).await?;
        Ok(created.account.expect("set"))
    }

    /// Changes settings, without a mask: those that are present.
    pub(crate) async fn change_settings(&self, settings: Settings) {
        let settings = Settings { name: format!("{SITE}/settings"), ..settings };
        let request = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
        self.settings().update_settings(request).await.expect("settings");
    }

    /// The first entries of a log of the site.
    pub(crate) async fn entries(&self, log: &str) -> Vec<LogEntry> {
        let name = format!("{SITE}/logs/{log}");
        let request = ListLogEntriesRequest { name, page_size: 1_000, ..ListLogEntriesRequest::default() };
        self.logs().list_log_entries(request).await.expect("a log").into_inner().entries
    }

    /// A log of the site as text.
    pub(crate) async fn download(&self, log: &str) -> String {
        download(self.logs(), &format!("{SITE}/logs/{log}")).await
    }

    /// Sends and waits for the outcome.
    pub(crate) async fn send_and_wait(&self, message: Message) -> Message {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(message),
            request_id: Uuid::now_v7().to_string(),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            validate_only: false,
        };
        let taken = patiently(async || self.send().send_message(request.clone()).await).await;
        taken.expect("taken").message.expect("set")
    }

    /// A letter as soon as so many attempts are recorded.
    pub(crate) async fn wait_for_attempts(&self, name: &str, attempts: usize) -> Message {
        let start = Instant::now();
        loop {
            let message = self.message(name).await;
            if message.attempts.len() >= attempts {
                return message;
            }
            assert!(start.elapsed() < PATIENCE, "{message:?}");
            // Nothing tells of attempts that do not end a letter; it is asked for again.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Changes the limits of an account.
    pub(crate) async fn change_limits(&self, account: &Account, limits: Limits) {
        let account = Account { name: account.name.clone(), limits: Some(limits), ..Account::default() };
        let update_mask = Some(FieldMask { paths: vec!["limits".to_owned()] });
        let request =
            UpdateAccountRequest { account: Some(account), update_mask, ..UpdateAccountRequest::default() };
        self.accounts().update_account(request).await.expect("updated");
    }

    /// A letter as it is now.
    pub(crate) async fn message(&self, name: &str) -> Message {
        let request = GetMessageRequest { name: name.to_owned() };
        self.send().get_message(request).await.expect("found").into_inner().message.expect("set")
    }
}

impl Drop for Postroom {
    fn drop(&mut self) {
        self.shutdown.cut();
    }
}

async fn make_key(store: &Store, scope: Scope, roles: &[Role]) -> String {
    let key = new_key().expect("randomness");
    let caller = Caller::new(scope, roles.to_vec());
    assert!(
        keys::create(store, &caller, &key_hash(key.expose())).await.expect("stored"),
        "its site is there"
    );
    String::from_utf8(key.expose().to_vec()).expect("ASCII")
}

/// An account without a login at a plain server on the loopback.
pub(crate) fn plain_account(server: &SmtpServer, sender_email: &str) -> Account {
    account_at(server.port(), sender_email)
}

/// The same at whatever listens on this port.
pub(crate) fn account_at(port: u16, sender_email: &str) -> Account {
    Account {
        sender_email: sender_email.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: u32::from(port),
        security: Security::None.into(),
        ..Account::default()
    }
}

/// The same with a login by password.
pub(crate) fn with_login(account: Account, username: &str, password: &str) -> Account {
    let auth =
        PasswordAuth { username: username.to_owned(), password: password.to_owned(), password_set: false };
    Account { auth: Some(Auth::Password(auth)), ..account }
}

/// A short letter.
pub(crate) fn letter(from: &str, to: &[&str]) -> Message {
    let composed =
        Composed { subject: "Hello".to_owned(), text: "It travels.\n".to_owned(), ..Composed::default() };
    Message {
        from_address: from.to_owned(),
        to: to.iter().map(ToString::to_string).collect(),
        content: Some(Content::Composed(composed)),
        ..Message::default()
    }
}
