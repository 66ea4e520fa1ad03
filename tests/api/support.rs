//! What the tests of this binary share: one private PostgreSQL, a database and a server for each test, typed clients.

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postroom::api::CheckLimits;
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
use postroom::config::EgressConfig;
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::clock::Clock;
use postroom::domain::settings::EffectiveSettings;
use postroom::private_postgres::{self, PrivatePostgres};
use postroom::shutdown::Shutdown;
use postroom::smtp::egress::Policy;
use postroom::smtp::{Floors, Names};
use postroom::store::{Store, keys};
use postroom::transport::TransportOptions;
use postroom::vault::Vault;
use prost_types::FieldMask;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) use crate::calls::{
    Authorisation, Authorised, bad_fields, bare_channel, channel, download, patiently, reason, variable,
};
use crate::scripted::Server as SmtpServer;

/// The site that every server of a test has.
pub(crate) const SITE: &str = "sites/shop";
/// How long a test waits for what must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Databases are copied from this one, whose schema is up to date.
const TEMPLATE: &str = "template_postroom";

/// The cluster of this test process; it ends with the process.
pub(crate) async fn cluster() -> &'static PrivatePostgres {
    static CLUSTER: OnceCell<PrivatePostgres> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let cluster = private_postgres::start_throwaway().await.expect("a private PostgreSQL");
            cluster.create_database(TEMPLATE, None).await.expect("a template");
            let (_keys, vault) = vault();
            let store = Store::open(&cluster.url_of(TEMPLATE), vault, Clock::default()).expect("a store");
            store.migrate().await.expect("migrations");
            store.close().await;
            cluster
        })
        .await
}

/// URL of a database of its own.
pub(crate) async fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let cluster = cluster().await;
    cluster.create_database(&name, Some(TEMPLATE)).await.expect("a database");
    cluster.url_of(&name)
}

/// A vault with a key of its own, and the folder that holds its file.
pub(crate) fn vault() -> (TempDir, Arc<Vault>) {
    let folder = tempfile::tempdir().expect("a folder");
    let vault = Vault::create_file(&folder.path().join("vault.keys")).expect("a vault");
    (folder, Arc::new(vault))
}

/// What a test decides about its server.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Checks a minute; more than any test needs where none are given.
    pub(crate) check_limits: Option<CheckLimits>,
    /// CA file of the SMTP servers that the test runs.
    pub(crate) ca_file: Option<PathBuf>,
    /// Networks and hosts that accounts may not reach, and the only hosts they may.
    pub(crate) egress_deny: &'static str,
    pub(crate) egress_deny_hosts: &'static str,
    pub(crate) egress_allow_hosts: &'static str,
    /// Who knows the addresses of mail servers.
    pub(crate) smtp_names: Names,
    /// What mail servers always get of time.
    pub(crate) smtp_floors: Floors,
    /// Smallest retry interval.
    pub(crate) retry_floor: Duration,
    /// What counts for sites that set nothing.
    pub(crate) settings_defaults: EffectiveSettings,
    /// Networks that accounts may reach besides public ones; the loopback unless named.
    pub(crate) egress_allow: Option<&'static str>,
    /// Ports that accounts may reach; all unless named.
    pub(crate) egress_ports: Option<&'static str>,
    /// Largest letter in bytes; 40 MiB unless named.
    pub(crate) max_letter_bytes: Option<usize>,
    /// A database of the test's own, migrated; one of the shared cluster unless named.
    pub(crate) database_url: Option<String>,
    /// Connections of clients.
    pub(crate) transport: TransportOptions,
    /// Whether metrics are served.
    pub(crate) metrics: bool,
}

impl Options {
    fn policy(&self) -> Policy {
        Policy {
            allow: list(self.egress_allow.unwrap_or("127.0.0.0/8")),
            deny: list(self.egress_deny),
            ports: list(self.egress_ports.unwrap_or("1-65535")),
            allow_hosts: list(self.egress_allow_hosts),
            deny_hosts: list(self.egress_deny_hosts),
        }
    }
}

/// A list as an operator writes it.
fn list<T: FromStr<Err: Debug>>(text: &str) -> Vec<T> {
    text.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().expect("an element")).collect()
}

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
        let store = Store::open(&database_url, Arc::clone(&vault), Clock::default()).expect("a store");
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
        let options = AppOptions {
            smtp_ca_file: self.options.ca_file.clone(),
            egress: EgressConfig {
                policy: self.options.policy(),
                plaintext_auth_hosts: vec!["127.0.0.1".to_owned()],
            },
            smtp_names: self.options.smtp_names.clone(),
            smtp_floors: self.options.smtp_floors,
            retry_floor: self.options.retry_floor,
            settings_defaults: self.options.settings_defaults.clone(),
            max_letter_bytes: self.options.max_letter_bytes.unwrap_or(40 * 1024 * 1024),
            check_limits: self
                .options
                .check_limits
                .unwrap_or(CheckLimits { per_site: 10_000, per_host: 10_000 }),
            transport: self.options.transport.clone(),
            metrics_listener,
            ..AppOptions::new(self.database_url.clone(), Arc::clone(&self.vault))
        };
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
        Store::open(&self.database_url, Arc::clone(&self.vault), Clock::default()).expect("a store")
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
