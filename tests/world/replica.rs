//! The server as separate processes over one database, and who calls them.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::vault::Vault;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Outcome;
use crate::process::{command, end, resident, run, signal};

/// How long a start may take on a busy machine, while the database may be away.
const START: Duration = Duration::from_mins(2);
/// How long a client waits for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Puts `authorization` into every call.
#[derive(Clone)]
pub(crate) struct Authorisation(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Authorisation {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel whose calls carry the key.
pub(crate) type Authorised = InterceptedService<Channel, Authorisation>;

/// How the servers of a scenario are started.
pub(crate) struct Program {
    path: PathBuf,
    url: String,
    vault: PathBuf,
    logs: Option<PathBuf>,
    /// Further arguments of `serve`.
    arguments: Vec<String>,
    authorisation: Authorisation,
}

impl Program {
    /// Prepares the database at `url` (empty, or not) by the program itself: schema, vault, a key.
    pub(crate) async fn prepare(
        path: &Path,
        url: &str,
        folder: &Path,
        logs: Option<&Path>,
        arguments: &[&str],
    ) -> Outcome<Self> {
        let vault = folder.join("vault.keys");
        Vault::create_file(&vault)?;
        let mut make = command(path, None);
        make.args(["key", "create", "--site", "sites/-", "--role", "admin", "--calls-per-second", "1000000"]);
        let key = run(make.args(["--database-url", url, "--vault-keys"]).arg(&vault)).await?;
        let authorisation = Authorisation(format!("Bearer {key}").parse()?);
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let logs = logs.map(Path::to_owned);
        Ok(Self { path: path.to_owned(), url: url.to_owned(), vault, logs, arguments, authorisation })
    }

    /// Has the servers that are started from now on use the database at this URL.
    pub(crate) fn use_url(&mut self, url: String) {
        self.url = url;
    }

    /// Starts a server and waits until it listens. `wrapper` is put before the program.
    pub(crate) async fn start(&self, number: usize, wrapper: &[&str]) -> Outcome<Replica> {
        let mut serve = match wrapper {
            [] => command(&self.path, None),
            [program, arguments @ ..] => {
                let mut wrapped = command(program, None);
                wrapped.args(arguments).arg(&self.path);
                wrapped
            }
        };
        serve.args(["serve", "--listen", "127.0.0.1:0", "--database-url", &self.url]);
        serve.args(["--egress-allow", "127.0.0.0/8", "--egress-ports", "1-65535", "--log-filter", "warn"]);
        serve.arg("--vault-keys").arg(&self.vault).args(&self.arguments).stdout(Stdio::piped());
        match &self.logs {
            Some(folder) => {
                let file = folder.join(format!("server-{number}.log"));
                let file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
                serve.stderr(file);
            }
            None => _ = serve.stderr(Stdio::null()),
        }
        let mut child = serve.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        timeout(START, BufReader::new(stdout).read_line(&mut line)).await??;
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            return Err(format!("a server that does not listen: {line:?}").into());
        };
        let endpoint = Endpoint::try_from(format!("http://{address}"))?.connect_timeout(CONNECT);
        let bare = endpoint.connect_lazy();
        let channel = InterceptedService::new(bare.clone(), self.authorisation.clone());
        Ok(Replica { number, child, bare, channel })
    }
}

/// A running server.
pub(crate) struct Replica {
    /// Its place in the fleet.
    pub(crate) number: usize,
    child: Child,
    bare: Channel,
    /// Clients of it are made over this.
    pub(crate) channel: Authorised,
}

impl Replica {
    pub(crate) fn send(&self) -> SendServiceClient<Authorised> {
        SendServiceClient::new(self.channel.clone())
    }

    pub(crate) fn accounts(&self) -> AccountsServiceClient<Authorised> {
        AccountsServiceClient::new(self.channel.clone())
    }

    pub(crate) fn settings(&self) -> SettingsServiceClient<Authorised> {
        SettingsServiceClient::new(self.channel.clone())
    }

    /// Whether it says that it is ready; `None` where it does not answer.
    pub(crate) async fn ready(&self) -> Option<bool> {
        let request = HealthCheckRequest { service: "readiness".to_owned() };
        let mut health = HealthClient::new(self.bare.clone());
        let answer = timeout(CONNECT, health.check(request)).await.ok()?.ok()?;
        Some(answer.into_inner().status() == ServingStatus::Serving)
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        resident(self.child.id().ok_or("it has ended")?)
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) -> Outcome<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Stops it in order; how it ended.
    pub(crate) async fn stop(mut self, within: Duration) -> Outcome<ExitStatus> {
        signal(&self.child, Signal::SIGTERM)?;
        Ok(timeout(within, self.child.wait())
            .await
            .map_err(|_| "a server that does not end by SIGTERM")??)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGKILL);
    }
}

/// The channels of the servers that run, for callers to choose from: their load balancer.
#[derive(Default)]
pub(crate) struct Balancer(Mutex<Vec<(usize, Authorised)>>);

impl Balancer {
    /// A server joins.
    pub(crate) fn join(&self, replica: &Replica) {
        let mut channels = self.lock();
        channels.retain(|(number, _)| *number != replica.number);
        channels.push((replica.number, replica.channel.clone()));
    }

    /// A server is gone.
    pub(crate) fn leave(&self, number: usize) {
        self.lock().retain(|(other, _)| *other != number);
    }

    /// One of the servers, by a number drawn by the caller.
    pub(crate) fn pick(&self, drawn: usize) -> Option<Authorised> {
        let channels = self.lock();
        let count = channels.len().max(1);
        channels.get(drawn % count).map(|(_, channel)| channel.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Authorised)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
