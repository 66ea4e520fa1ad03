//! A PostgreSQL cluster of the rig's own, durable as in operation: started, stopped and killed as a scenario wants.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, raw_sql};
use tokio::process::Child;
use tokio::time::sleep;

use crate::Outcome;
use crate::process::{command, end, run, signal, unprivileged};

/// The database of the servers.
const DATABASE: &str = "postroom";
/// How long a start may take: after a crash the log is replayed.
const START: Duration = Duration::from_mins(2);
/// How often the rig looks whether it is there.
const LOOK: Duration = Duration::from_millis(20);

/// One cluster. It listens on a Unix socket in a folder that only its user may enter.
pub(crate) struct Cluster {
    root: PathBuf,
    programs: PathBuf,
    user: Option<User>,
    settings: Vec<String>,
    /// Put before `postgres`: a program that changes what it sees of the world.
    wrapper: Vec<String>,
    postmaster: Option<Child>,
}

impl Cluster {
    /// Makes a cluster in `parent`, with these settings for every start.
    pub(crate) async fn make(parent: &Path, name: &str, settings: &[&str]) -> Outcome<Self> {
        Self::make_with_log(parent, name, settings, None).await
    }

    /// The same; its write-ahead log may lie elsewhere, in a new folder.
    pub(crate) async fn make_with_log(
        parent: &Path,
        name: &str,
        settings: &[&str],
        log: Option<&Path>,
    ) -> Outcome<Self> {
        let cluster = Self::prepare(parent, name, settings)?;
        let data = cluster.data();
        let mut initdb = cluster.command("initdb");
        // What initdb makes is written by the first checkpoint; the cluster itself runs with fsync.
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        if let Some(log) = log {
            fs::create_dir(log)?;
            cluster.give(log)?;
            initdb.arg("--waldir").arg(log);
        }
        run(initdb.arg("--no-instructions").arg("-D").arg(data)).await?;
        Ok(cluster)
    }

    /// A copy of a running cluster, which follows it.
    pub(crate) async fn standby_of(
        primary: &Self,
        parent: &Path,
        name: &str,
        settings: &[&str],
    ) -> Outcome<Self> {
        let cluster = Self::prepare(parent, name, settings)?;
        let mut copy = cluster.command("pg_basebackup");
        copy.arg("--host").arg(primary.socket()).args([
            "--username=postgres",
            "--wal-method=stream",
            "--no-sync",
        ]);
        run(copy.args(["--checkpoint=fast", "-D"]).arg(cluster.data())).await?;
        fs::write(cluster.data().join("standby.signal"), "")?;
        cluster.give(&cluster.data().join("standby.signal"))?;
        Ok(cluster)
    }

    fn prepare(parent: &Path, name: &str, settings: &[&str]) -> Outcome<Self> {
        let cluster = Self {
            root: parent.join(name),
            programs: programs()?,
            user: unprivileged()?,
            settings: settings.iter().map(ToString::to_string).collect(),
            wrapper: Vec::new(),
            postmaster: None,
        };
        for folder in [cluster.root.clone(), cluster.socket()] {
            fs::create_dir(&folder)?;
            fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
            cluster.give(&folder)?;
        }
        Ok(cluster)
    }

    /// Has `postgres` started by this program from now on.
    pub(crate) fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
    }

    /// Hands a file over to the cluster's user.
    pub(crate) fn give(&self, path: &Path) -> Outcome<()> {
        if let Some(user) = &self.user {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(())
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The folder of its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("s")
    }

    /// The path of its socket.
    pub(crate) fn socket_file(&self) -> PathBuf {
        self.socket().join(".s.PGSQL.5432")
    }

    /// The URL of the servers' database.
    pub(crate) fn url(&self) -> String {
        let host = self.socket().to_string_lossy().replace('/', "%2F");
        format!("postgres://postgres@localhost/{DATABASE}?host={host}")
    }

    /// The URL of the servers' database, over a proxy.
    pub(crate) fn url_over(port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
    }

    /// A connection of the rig's own.
    pub(crate) async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass().socket(self.socket()).username("postgres");
        options.database(database).disable_statement_logging().connect().await
    }

    /// Runs a statement in the servers' database.
    pub(crate) async fn execute(&self, statement: &str) -> Outcome<()> {
        let mut connection = self.connect(DATABASE).await?;
        raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// The same on a connection on which another one ran before.
    pub(crate) async fn execute_after(&self, before: &str, statement: &str) -> Outcome<()> {
        let mut connection = self.connect(DATABASE).await?;
        for statement in [before, statement] {
            raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    /// Makes the servers' database.
    pub(crate) async fn create_database(&self) -> Outcome<()> {
        let mut connection = self.connect("postgres").await?;
        raw_sql(AssertSqlSafe(format!("create database {DATABASE}"))).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Makes the servers' database anew.
    pub(crate) async fn empty_database(&self) -> Outcome<()> {
        let mut connection = self.connect("postgres").await?;
        raw_sql(AssertSqlSafe(format!("drop database {DATABASE}"))).execute(&mut connection).await?;
        connection.close().await?;
        self.create_database().await
    }

    /// Whether its first process runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.postmaster.as_mut().is_some_and(|postmaster| matches!(postmaster.try_wait(), Ok(None)))
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) -> Outcome<()> {
        let start = Instant::now();
        self.launch()?;
        while start.elapsed() < START {
            // The processes of one that was killed may still be on their way out.
            if !self.runs() {
                self.launch()?;
            }
            if let Ok(connection) = self.connect("postgres").await {
                return Ok(connection.close().await?);
            }
            sleep(LOOK).await;
        }
        Err(format!("PostgreSQL does not start: {}", self.log()).into())
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn launch(&mut self) -> Outcome<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.root.join("log"))?;
        let mut postgres = match self.wrapper.as_slice() {
            [] => self.command("postgres"),
            [program, arguments @ ..] => {
                let mut wrapped = command(program, self.user.as_ref());
                wrapped.args(arguments).arg(self.programs.join("postgres")).current_dir(&self.root);
                wrapped
            }
        };
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.socket());
        for setting in ["listen_addresses=", "fsync=on", "timezone=UTC"] {
            postgres.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            postgres.arg("-c").arg(setting);
        }
        self.postmaster = Some(postgres.stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// Stops it as `pg_ctl stop -m immediate` does: at once, without a checkpoint.
    pub(crate) async fn stop_immediately(&mut self) -> Outcome<()> {
        self.stop_by(Signal::SIGQUIT).await
    }

    /// Stops it as `pg_ctl stop -m fast` does.
    pub(crate) async fn stop(&mut self) -> Outcome<()> {
        self.stop_by(Signal::SIGINT).await
    }

    /// Kills its first process; the others see that and go.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        self.stop_by(Signal::SIGKILL).await
    }

    async fn stop_by(&mut self, by: Signal) -> Outcome<()> {
        let mut postmaster = self.postmaster.take().ok_or("it does not run")?;
        signal(&postmaster, by)?;
        postmaster.wait().await?;
        Ok(())
    }

    /// Makes a standby the primary.
    pub(crate) async fn promote(&self) -> Outcome<()> {
        let mut connection = self.connect("postgres").await?;
        raw_sql("select pg_promote(wait => true)").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// The last lines that it logged.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn command(&self, program: &str) -> tokio::process::Command {
        let mut command = command(self.programs.join(program), self.user.as_ref());
        command.current_dir(&self.root);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(postmaster) = &mut self.postmaster {
            end(postmaster, Signal::SIGQUIT);
        }
    }
}

/// The folder of the newest PostgreSQL's programs: where Debian keeps them, else where `pg_config` says.
fn programs() -> Outcome<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest =
        versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    if let Some((_, path)) = newest.filter(|(_, path)| path.join("bin/initdb").is_file()).max() {
        return Ok(path.join("bin"));
    }
    let told = std::process::Command::new("pg_config").arg("--bindir").output()?;
    Ok(PathBuf::from(String::from_utf8(told.stdout)?.trim()))
}
