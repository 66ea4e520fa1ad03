//! `postroom demo`: the whole way of a letter in one process, over the API as any client goes it.

mod catcher;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use self::catcher::Catcher;
use super::open::Opened;
use super::{Failure, key};
use crate::api::proto::account::Auth;
use crate::api::proto::accounts_service_client::AccountsServiceClient;
use crate::api::proto::log_entry::Kind;
use crate::api::proto::logs_service_client::LogsServiceClient;
use crate::api::proto::message::{Content, State};
use crate::api::proto::send_service_client::SendServiceClient;
use crate::api::proto::settings_service_client::SettingsServiceClient;
use crate::api::proto::{
    Account, Composed, CreateAccountRequest, CreateSiteRequest, DeleteAccountRequest, ListAccountsRequest,
    ListLogEntriesRequest, LogEntry, Message, PasswordAuth, Security, SendMessageRequest,
    TailLogEntriesRequest, TailLogEntriesResponse,
};
use crate::app::{self, AppError, AppOptions};
use crate::config::{Database, EgressConfig, PoolOptions, StoreConfig, VaultKeys};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::clock::Clock;
use crate::private_postgres::default_data_dir;
use crate::shutdown::Shutdown;
use crate::smtp::egress::{Network, Policy};
use crate::store::{Store, keys};

/// Name of the demo's data folder, beside the real one.
const DATA_DIR: &str = "postroom-demo";
/// The demo's site and sender.
const SITE: &str = "sites/demo";
const SENDER: &str = "shop@demo.example";
/// The letter must be through within this time; then something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// The address on which `postroom serve` listens unless told otherwise.
const SERVE_ADDRESS: &str = "127.0.0.1:50051";

#[derive(Args)]
pub(super) struct Options {
    /// Folder of the demo's own private PostgreSQL
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Sends a letter through a local catcher, printing its dialogue as it happens.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    let Options { data_dir } = options;
    let data_dir = data_dir
        .or_else(|| default_data_dir().map(|dir| dir.with_file_name(DATA_DIR)))
        .ok_or("there is no folder for data (no home folder): give --data-dir")?;
    say("1. A private PostgreSQL starts", &data_dir.display().to_string());
    let vault_keys = VaultKeys::Made(data_dir.join("vault.keys"));
    let database = Database::Private { data_dir: data_dir.clone() };
    let opened = Opened::new(StoreConfig { database, vault_keys, pool: PoolOptions::default() }).await?;
    let result = demonstrate(&opened).await;
    opened.close().await?;
    let (key, message) = result?;
    print_next_steps(&absolute(data_dir)?, &key, &message);
    Ok(())
}

/// The demo itself; the key and the name of the letter to go on with.
async fn demonstrate(opened: &Opened) -> Result<(String, String), Failure> {
    let key = make_key(opened).await?;
    let catcher = Catcher::start().await?;
    say("2. A local SMTP catcher listens", &format!("127.0.0.1:{}", catcher.port));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let shutdown = Shutdown::new();
    let server = serve(listener, opened, catcher.port, shutdown.clone());
    say("3. The server listens", &address.to_string());
    let result = async {
        let channel = Endpoint::try_from(format!("http://{address}"))?.connect_lazy();
        let client = Client { channel, key: format!("Bearer {key}").parse()? };
        timeout(PATIENCE, client.send_and_watch(&catcher)).await?
    }
    .await;
    shutdown.begin();
    server.await??;
    Ok((key, result?))
}

/// The server, in a task of its own.
fn serve(
    listener: TcpListener,
    opened: &Opened,
    catcher_port: u16,
    shutdown: Shutdown,
) -> AbortOnDropHandle<Result<(), AppError>> {
    let options = AppOptions {
        egress: EgressConfig {
            policy: Policy {
                allow: vec![Network::from(IpAddr::V4(Ipv4Addr::LOCALHOST))],
                ports: vec![catcher_port.into()],
                ..Policy::default()
            },
            plaintext_auth_hosts: vec!["127.0.0.1".to_owned()],
        },
        retry_floor: Duration::ZERO,
        ..AppOptions::new(opened.database_url.clone(), Arc::clone(&opened.vault))
    };
    AbortOnDropHandle::new(tokio::spawn(app::run(listener, options, shutdown)))
}

/// A fresh key for everything; those of earlier demos are revoked.
async fn make_key(opened: &Opened) -> Result<String, Failure> {
    let store = Store::open(&opened.database_url, Arc::clone(&opened.vault), Clock::default())?;
    store.migrate().await?;
    for known in keys::list(&store).await? {
        if known.revoke_time.is_none() {
            keys::revoke(&store, known.caller.key_id).await?;
        }
    }
    let key = key::create(&store, Caller::new(Scope::AllSites, vec![Role::Admin]), None).await;
    store.close().await;
    key
}

/// Puts the key into every call.
#[derive(Clone)]
struct Authorisation(MetadataValue<Ascii>);

impl Interceptor for Authorisation {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorised = InterceptedService<Channel, Authorisation>;

struct Client {
    channel: Channel,
    key: MetadataValue<Ascii>,
}

impl Client {
    fn channel(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), Authorisation(self.key.clone()))
    }

    /// Site, account, tail, letter; the name of the letter.
    async fn send_and_watch(&self, catcher: &Catcher) -> Result<String, Failure> {
        self.create_site().await?;
        let account = self.create_account(catcher.port).await?;
        say("4. An account, proven by a login before it was saved", &account);
        let mut logs = LogsServiceClient::new(self.channel());
        let tail = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
        let tail = logs.tail_log_entries(tail).await?.into_inner();
        say("5. A letter; its dialogue, from TailLogEntries while it happens:", "");
        let watching = AbortOnDropHandle::new(tokio::spawn(watch(tail)));
        let letter = self.send().await?;
        if letter.state() != State::Sent {
            return Err(format!("the letter was not sent: {:?}", letter.attempts).into());
        }
        let entries = self.count_entries(&letter).await?;
        let shown = watching.await??;
        let caught = catcher.letters().pop().ok_or("the catcher caught nothing")?;
        let size = caught.len();
        say("6. Delivered", &format!("{} is SENT, {entries} entries stored, {shown} seen live", letter.name));
        say("   Caught", &format!("{size} bytes, {}", subject_of(&caught)));
        Ok(letter.name)
    }

    async fn create_site(&self) -> Result<(), Failure> {
        let request = CreateSiteRequest { site_id: SITE.trim_start_matches("sites/").to_owned(), site: None };
        match SettingsServiceClient::new(self.channel()).create_site(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// Replaces the accounts of earlier demos, whose catchers are gone.
    async fn create_account(&self, port: u16) -> Result<String, Failure> {
        let mut accounts = AccountsServiceClient::new(self.channel());
        let password = PasswordAuth {
            username: catcher::USER.to_owned(),
            password: catcher::PASSWORD.to_owned(),
            password_set: false,
        };
        let account = Account {
            sender_name: "Demo Shop".to_owned(),
            sender_email: SENDER.to_owned(),
            host: "127.0.0.1".to_owned(),
            port: u32::from(port),
            security: Security::None.into(),
            auth: Some(Auth::Password(password)),
            ..Account::default()
        };
        let list = ListAccountsRequest { parent: SITE.to_owned(), ..ListAccountsRequest::default() };
        let earlier = accounts.list_accounts(list).await?.into_inner().accounts;
        let create = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        let created = accounts.create_account(create).await?.into_inner().account.unwrap_or_default();
        for account in earlier {
            let delete = DeleteAccountRequest { name: account.name, force: true, etag: String::new() };
            accounts.delete_account(delete).await?;
        }
        Ok(created.name)
    }

    async fn send(&self) -> Result<Message, Failure> {
        let composed = Composed {
            subject: "Your order has left our post room".to_owned(),
            text: "Hello Ann,\n\nit travels by SMTP, and somebody watched.\n".to_owned(),
            html: "<p>Hello Ann,</p><p>it travels by SMTP, and somebody watched.</p>".to_owned(),
            ..Composed::default()
        };
        let message = Message {
            from_address: SENDER.to_owned(),
            to: vec!["Ann Lee <ann@customers.example>".to_owned()],
            content: Some(Content::Composed(composed)),
            ..Message::default()
        };
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(message),
            wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
            ..SendMessageRequest::default()
        };
        let sent = SendServiceClient::new(self.channel()).send_message(request).await?.into_inner();
        Ok(sent.message.unwrap_or_default())
    }

    async fn count_entries(&self, letter: &Message) -> Result<usize, Failure> {
        let account = letter.account.rsplit('/').next().unwrap_or_default();
        let request = ListLogEntriesRequest {
            name: format!("{SITE}/logs/send-admin-{account}"),
            message: letter.name.clone(),
            page_size: 1_000,
            ..ListLogEntriesRequest::default()
        };
        let listed = LogsServiceClient::new(self.channel()).list_log_entries(request).await?.into_inner();
        Ok(listed.entries.len())
    }
}

/// Prints entries as they come, up to the reply that accepts the letter; how many there were.
async fn watch(mut tail: Streaming<TailLogEntriesResponse>) -> Result<usize, Status> {
    let mut shown = 0;
    let mut content_sent = false;
    while let Some(response) = tail.message().await? {
        for entry in response.entries {
            shown += 1;
            print_entry(&entry);
            content_sent |= entry.kind() == Kind::Client && entry.text.starts_with('<');
            if content_sent && entry.kind() == Kind::Server {
                return Ok(shown);
            }
        }
    }
    Ok(shown)
}

fn print_entry(entry: &LogEntry) {
    let speaker = match entry.kind() {
        Kind::Client => "client ->",
        Kind::Server => "server <-",
        Kind::Error => "error   !",
        Kind::Connection => "connection",
        Kind::Data | Kind::Audit | Kind::Unspecified => "data    ",
    };
    println!("      {speaker} {}", entry.text);
}

fn subject_of(letter: &str) -> &str {
    letter.lines().find(|line| line.starts_with("Subject:")).unwrap_or("without a subject")
}

fn say(what: &str, detail: &str) {
    if detail.is_empty() {
        println!("{what}");
    } else {
        println!("{what}: {detail}");
    }
}

/// Lines to go on with, each of which a shell takes as it stands.
fn print_next_steps(data_dir: &Path, key: &str, message: &str) {
    let data_dir = shell_quoted(&data_dir.to_string_lossy());
    let call = format!("grpcurl -plaintext -H 'authorization: Bearer {key}'");
    println!(
        r#"
Everything above is kept. To go on, start the server in another terminal (SMTP servers of this machine allowed):

  cargo run -- serve --data-dir {data_dir} --egress-allow 127.0.0.0/8 --egress-ports 1-65535 --plaintext-auth-hosts 127.0.0.1

and ask it with grpcurl (reflection is on, no proto file is needed). Is it ready, what does it offer:

  grpcurl -plaintext -d '{{"service":"readiness"}}' {SERVE_ADDRESS} grpc.health.v1.Health/Check
  grpcurl -plaintext {SERVE_ADDRESS} list

What became of the letter, which logs there are, and the last 20 lines of them (it goes on until Ctrl-C):

  {call} -d '{{"name":"{message}"}}' {SERVE_ADDRESS} postroom.v1.SendService/GetMessage
  {call} -d '{{"parent":"{SITE}"}}' {SERVE_ADDRESS} postroom.v1.LogsService/ListLogs
  {call} -d '{{"parent":"{SITE}","history":20}}' {SERVE_ADDRESS} postroom.v1.LogsService/TailLogEntries

An account of your own; put in your server, and mistype the password to see what it says to that:

  {call} -d '{{"parent":"{SITE}","account":{{"sender_email":"you@example.com","host":"smtp.example.com","password":{{"username":"you@example.com","password":"mistyped"}}}}}}' {SERVE_ADDRESS} postroom.v1.AccountsService/CreateAccount

Without grpcurl: docs/API-EXAMPLES.md has the same for buf curl."#
    );
}

/// One word of a POSIX shell, whatever it holds.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::shell_quoted;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["/plain/path", "it's here", "$HOME `id` \"*\" \\", "", "'", "a\nb", "-n", "Büro"] {
            let script = format!("printf %s {}", shell_quoted(&format!("={text}")));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("={text}"));
        }
    }
}
