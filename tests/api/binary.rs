//! The built program as an operator runs it: a process over a data folder with a private PostgreSQL of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Authorised, PATIENCE, channel};

/// The program, without what the environment of the tests would tell it.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTROOM_")) {
        command.env_remove(name);
    }
    // Patience as of `cluster::patient`; an argument of the test's own comes before it.
    command.env("POSTROOM_DB_ACQUIRE_TIMEOUT", humantime::format_duration(PATIENCE).to_string());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    run_in(arguments, &[]).await
}

/// The same with these variables in its environment.
pub(crate) async fn run_in(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut program = program(arguments);
    program.envs(variables.iter().copied());
    // Some do a lot on their way.
    timeout(2 * PATIENCE, program.output()).await.expect("an end in time").expect("the program")
}

/// A data folder. A cluster that still runs in it at the end is stopped, so that a failed test leaves nothing behind.
pub(crate) struct DataDir(TempDir);

impl DataDir {
    pub(crate) fn new() -> Self {
        // The cluster's user must be able to pass through, where it is not ours.
        let mut builder = tempfile::Builder::new();
        Self(
            builder
                .prefix("postroom-test")
                .permissions(Permissions::from_mode(0o711))
                .tempdir()
                .expect("a folder"),
        )
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Runs a command on it; what it printed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let path = self.path();
        run(&[arguments, &["--data-dir", path.to_str().expect("UTF-8")]].concat()).await
    }

    /// The same, for what must succeed; the lines it printed.
    pub(crate) async fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.command(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    /// The cluster's first process, if it runs.
    pub(crate) fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path().join("postgres/cluster/postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.parse().ok()?);
        kill(pid, None).is_ok().then_some(pid)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            // Gone in an instant; while it goes it still has files in the folder.
            while kill(postmaster, Signal::SIGQUIT).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A running `postroom serve`, killed when dropped.
pub(crate) struct Serving {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    output: Arc<Mutex<String>>,
    readers: [JoinHandle<()>; 2],
}

impl Serving {
    /// Starts it on a free port and waits until it says that it listens.
    pub(crate) async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_in(data_dir, arguments, &[]).await
    }

    /// The same with these variables in its environment.
    pub(crate) async fn start_in(data_dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let fixed = ["serve", "--egress-allow", "127.0.0.0/8"];
        let more = ["--egress-ports", "1-65535", "--plaintext-auth-hosts", "127.0.0.1,localhost"];
        let mut child = program(&[&fixed[..], &more, arguments].concat())
            .arg("--data-dir")
            .arg(data_dir)
            .env("POSTROOM_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .spawn()
            .expect("the program");
        let output = Arc::<Mutex<String>>::default();
        let errors = collect(child.stderr.take().expect("piped"), &output);
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        let heard = timeout(PATIENCE, stdout.read_line(&mut first)).await;
        let address = first.trim_end().strip_prefix("listening on ").map(str::to_owned);
        let address =
            address.unwrap_or_else(|| panic!("no address: {heard:?} {first:?}\n{}", text_of(&output)));
        let readers = [errors, collect(stdout, &output)];
        Self { child, address, output, readers }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("a process that was not waited for");
        kill(Pid::from_raw(i32::try_from(pid).expect("a process id")), signal).expect("a process of ours");
    }

    /// Waits for its end; how it ended, and all it printed.
    pub(crate) async fn end(mut self, within: Duration) -> (ExitStatus, String) {
        let ended = timeout(within, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("no end\n{}", text_of(&self.output))).expect("a child");
        for reader in &mut self.readers {
            reader.await.expect("no panic");
        }
        (status, text_of(&self.output))
    }

    /// What it printed until now.
    pub(crate) fn printed(&self) -> String {
        text_of(&self.output)
    }

    pub(crate) fn client(&self, key: &str) -> Client {
        Client(channel(&self.address, key))
    }
}

/// Clients of one server with one key, over one connection.
#[derive(Clone)]
pub(crate) struct Client(Authorised);

impl Client {
    pub(crate) fn settings(&self) -> SettingsServiceClient<Authorised> {
        SettingsServiceClient::new(self.0.clone())
    }

    pub(crate) fn accounts(&self) -> AccountsServiceClient<Authorised> {
        AccountsServiceClient::new(self.0.clone())
    }

    pub(crate) fn send(&self) -> SendServiceClient<Authorised> {
        SendServiceClient::new(self.0.clone())
    }

    pub(crate) fn logs(&self) -> LogsServiceClient<Authorised> {
        LogsServiceClient::new(self.0.clone())
    }
}

fn collect(from: impl AsyncRead + Send + Unpin + 'static, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let mut text = output.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&String::from_utf8_lossy(&line));
            text.push('\n');
        }
    })
}

fn text_of(output: &Mutex<String>) -> String {
    output.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
