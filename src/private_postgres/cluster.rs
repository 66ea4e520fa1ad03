//! Making, starting and stopping one cluster by PostgreSQL's own programs. Who may do it when is decided above.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::folder::{Folder, file_error, hex, remove_file};
use super::programs::{Programs, ending, run};
use super::user::ClusterUser;
use super::{DATABASE, PrivatePostgresError, ROLE};
use crate::domain::secret::Secret;

/// How long a start may take, which after a crash includes replaying the log.
const START_WAIT: Duration = Duration::from_mins(5);
/// How often we look whether a start of somebody else's has come to its end.
const START_STEP: Duration = Duration::from_millis(100);
/// How long a stop may take: one checkpoint.
const STOP_WAIT: Duration = Duration::from_mins(1);
/// How long one question to a running server may take; it is answered before any login.
const READY_WAIT: Duration = Duration::from_secs(5);

/// Whether what is committed survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It does.
    Full,
    /// It need not: the cluster is thrown away anyway.
    None,
}

/// A cluster that runs.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) folder: Folder,
    pub(super) socket: PathBuf,
    programs: Programs,
    user: ClusterUser,
}

/// What `pg_isready` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Starting or stopping.
    Busy,
    Absent,
}

impl Cluster {
    /// Makes and starts what is missing; gives the running cluster and the password of its roles.
    ///
    /// The caller holds the start lock.
    pub(super) fn run(
        folder: Folder,
        durability: Durability,
    ) -> Result<(Self, Secret), PrivatePostgresError> {
        let major = folder.cluster_major()?;
        let programs = Programs::find(major)?;
        let user = ClusterUser::of(&folder.root)?;
        folder.prepare(&user)?;
        let mut cluster = Self { folder, socket: PathBuf::new(), programs, user };
        if major.is_none() {
            cluster.make(durability)?;
        }
        cluster.start(durability)?;
        let path = cluster.folder.root.join(Folder::PASSWORD);
        let password = Secret::new(fs::read(&path).map_err(file_error(&path))?);
        Ok((cluster, password))
    }

    /// One of PostgreSQL's programs, as the cluster's user, in the cluster's folder.
    pub(super) fn command(&self, program: &str) -> Command {
        self.programs.command(program, &self.user, &self.folder.root)
    }

    /// Stops the cluster, open connections or not. The caller holds the start lock.
    pub(super) fn stop(&self) -> Result<(), PrivatePostgresError> {
        let wait = STOP_WAIT.as_secs().to_string();
        let stopped = run(self.command("pg_ctl").args([
            "stop",
            "--silent",
            "--mode=fast",
            "-D",
            Folder::CLUSTER,
            "-t",
            &wait,
        ]));
        if !self.socket.starts_with(&self.folder.root) {
            // Below a temporary folder; made anew by the next start. If it is in use, it stays.
            let _ = fs::remove_dir(&self.socket);
        }
        stopped
    }

    /// A new cluster with its role and its database, complete or not at all.
    fn make(&self, durability: Durability) -> Result<(), PrivatePostgresError> {
        let unfinished = self.folder.root.join(Folder::UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(file_error(&unfinished)(error)),
            _ => {}
        }
        let password = hex(&random::<32>()?);
        self.folder.write(Folder::PASSWORD, &password, &self.user)?;
        // The C locale: no collation that a new version of the C library could change under our indexes.
        let sync = (durability == Durability::None).then_some("--no-sync");
        run(self
            .command("initdb")
            .args(sync)
            .args(["--encoding=UTF8", "--locale=C", "--data-checksums"])
            .args([
                "--auth=scram-sha-256",
                "--username=postgres",
                "--no-instructions",
                &format!("--pwfile={}", Folder::PASSWORD),
                "-D",
                Folder::UNFINISHED,
            ]))?;
        // In single-user mode (-j) a statement ends at a semicolon with an empty line behind it.
        self.single_user(&format!(
            "create role {ROLE} login createdb password '{password}';\n\ncreate database {DATABASE} owner {ROLE};\n\n"
        ))?;
        self.folder.rename(&unfinished, &self.folder.root.join(Folder::CLUSTER))
    }

    /// Runs statements in the unfinished cluster, without a server that others could reach.
    fn single_user(&self, statements: &str) -> Result<(), PrivatePostgresError> {
        let mut command = self.command("postgres");
        command.args(["--single", "-j", "-D", Folder::UNFINISHED, "-c", "exit_on_error=on", "postgres"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let at = file_error(Path::new("postgres"));
        let mut child = command.spawn().map_err(&at)?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(statements.as_bytes()));
        let output = child.wait_with_output().map_err(&at)?;
        if output.status.success() && written.is_ok() {
            return Ok(());
        }
        Err(PrivatePostgresError::Program { program: "postgres".into(), said: ending(&output.stderr) })
    }

    /// Starts the cluster unless it runs.
    ///
    /// The socket decides, not the process number in the pid file: after a restart of a container that
    /// number may be anybody's.
    fn start(&mut self, durability: Durability) -> Result<(), PrivatePostgresError> {
        let deadline = Instant::now() + START_WAIT;
        if let Some(socket) = self.folder.running_socket() {
            self.socket = socket;
            while Instant::now() < deadline {
                match self.readiness()? {
                    Readiness::Ready => return Ok(()),
                    Readiness::Busy => sleep(START_STEP),
                    Readiness::Absent => break,
                }
            }
        }
        self.socket = self.folder.make_socket_folder(&self.user)?;
        let settings = settings(&self.socket, durability);
        self.folder.write(&format!("{}/postgresql.conf", Folder::CLUSTER), &settings, &self.user)?;
        let log = self.folder.root.join(Folder::START_LOG);
        remove_file(&log)?;
        let wait = START_WAIT.as_secs().to_string();
        let started = run(self.command("pg_ctl").args([
            "start",
            "--silent",
            "-D",
            Folder::CLUSTER,
            "-l",
            Folder::START_LOG,
            "-t",
            &wait,
        ]));
        match started {
            // The reason stands in the log; pg_ctl merely says to look there.
            Err(PrivatePostgresError::Program { program, said }) => {
                let said = fs::read(&log).map_or(said, |text| ending(&text));
                Err(PrivatePostgresError::Program { program, said })
            }
            other => other,
        }
    }

    fn readiness(&self) -> Result<Readiness, PrivatePostgresError> {
        let mut command = self.command("pg_isready");
        command.arg("--quiet").arg("--host").arg(&self.socket);
        command.arg(format!("--timeout={}", READY_WAIT.as_secs()));
        let status = command.status().map_err(file_error(Path::new("pg_isready")))?;
        Ok(match status.code() {
            Some(0) => Readiness::Ready,
            Some(1) => Readiness::Busy,
            _ => Readiness::Absent,
        })
    }
}

/// Random bytes for a password or a name.
pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], PrivatePostgresError> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| PrivatePostgresError::Random)?;
    Ok(bytes)
}

/// The whole of `postgresql.conf`, written anew at each start, so that a newer Postroom brings its settings.
fn settings(socket: &Path, durability: Durability) -> String {
    let socket = quoted(&socket.to_string_lossy());
    let durable = if durability == Durability::Full { "on" } else { "off" };
    format!(
        "# Written by Postroom at every start. Your own settings belong into own.conf beside this file.
listen_addresses = ''
unix_socket_directories = {socket}
unix_socket_permissions = 0700
cluster_name = 'postroom'
max_connections = 100
shared_buffers = 64MB
wal_buffers = 16MB
checkpoint_timeout = 15min
jit = off
autovacuum = on
fsync = {durable}
synchronous_commit = {durable}
full_page_writes = {durable}
password_encryption = 'scram-sha-256'
timezone = 'UTC'
# A week of logs. Terse, and without statements: those and the details of errors hold addresses and letters.
logging_collector = on
log_directory = '../log'
log_filename = 'postgres-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_line_prefix = '%m [%p] %q%d '
log_timezone = 'UTC'
log_error_verbosity = terse
log_min_error_statement = panic
# No warnings: each connection is rolled back before it is used again, which warns where there is nothing to roll back.
log_min_messages = error
include_if_exists = 'own.conf'
"
    )
}

/// A path as the one element of a list in `postgresql.conf`.
fn quoted(path: &str) -> String {
    let element = path.replace('"', "\"\"");
    format!("'\"{}\"'", element.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_list_and_for_the_file() {
        assert_eq!(quoted("/a b,c"), r#"'"/a b,c"'"#);
        assert_eq!(quoted(r#"/it's "so" \"#), r#"'"/it''s ""so"" \\"'"#);
    }

    #[test]
    fn only_a_throw_away_cluster_does_without_fsync() {
        let socket = Path::new("/s");
        assert!(settings(socket, Durability::Full).contains("\nfsync = on\n"));
        assert!(settings(socket, Durability::None).contains("\nfsync = off\n"));
    }
}
