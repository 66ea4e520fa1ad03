//! The embedded default: a PostgreSQL cluster of our own in the data folder, reached by a Unix socket only.
//! Several processes share it, each with a shared lock; whoever leaves last stops it. SQL is not spoken here.

mod cluster;
mod folder;
mod programs;
mod user;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;
use thiserror::Error;

use crate::domain::secret::Secret;
use cluster::{Cluster, Durability};
use folder::{Folder, private_folder};

/// The role Postroom connects as: it owns its databases and may make more, but is no superuser.
pub const ROLE: &str = "postroom";
/// The database that is made together with the cluster.
pub const DATABASE: &str = "postroom";

/// Why there is no private cluster.
#[derive(Debug, Error)]
pub enum PrivatePostgresError {
    /// Nothing to run it with.
    #[error(
        "PostgreSQL 15 or later is not installed: run `apt-get install postgresql`, or name a database by --database-url"
    )]
    NotInstalled,
    /// The cluster is older or newer than what is installed.
    #[error(
        "the cluster was made by PostgreSQL {major}, whose programs are missing: run `apt-get install postgresql-{major}`"
    )]
    VersionMissing {
        /// The major version that made the cluster.
        major: u32,
    },
    /// We are root, and nobody can be lent to the cluster.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as"
    )]
    NoUser,
    /// The cluster's user cannot get to the data folder.
    #[error(
        "{path} cannot be entered by the user {user}, as whom PostgreSQL runs: run `chmod o+x {path}`, or choose another --data-dir"
    )]
    NotReachable {
        /// The first folder on the way that bars it.
        path: PathBuf,
        /// The cluster's user.
        user: String,
    },
    /// The cluster is somebody else's.
    #[error("{path} belongs to {owner}: run as that user or as root, or choose another --data-dir")]
    WrongOwner {
        /// The folder in question.
        path: PathBuf,
        /// Its owner's name.
        owner: String,
    },
    /// No folder is short enough.
    #[error("no folder for the socket of {path} has a path short enough: set TMPDIR to a short one")]
    SocketPath {
        /// The cluster's folder.
        path: PathBuf,
    },
    /// Another process did not give a lock back in time.
    #[error("another process has been starting or stopping the private PostgreSQL for too long ({path})")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it wrote.
        said: String,
    },
    /// The operating system's generator of random numbers failed.
    #[error("no random numbers for a password")]
    Random,
    /// The program is ending, so that this was not even begun.
    #[error("the program is ending")]
    Interrupted,
    /// A file, folder or program could not be used.
    #[error("{path}: {source}")]
    File {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Our share in a running private cluster.
///
/// End it by [`PrivatePostgres::stop`]. A drop without it does the same, only that it blocks the thread for
/// the tenths of a second that takes, and that an error is merely logged. After a SIGKILL of ours the cluster runs on, and the
/// next start attaches to it. It is never a child of this process, so no zombie can come of it.
pub struct PrivatePostgres {
    cluster: Cluster,
    password: Secret,
    share: Option<Share>,
}

/// What is given back at the end.
enum Share {
    /// The shared lock among all who use the cluster.
    User(File),
    /// The shell that ends a throw-away cluster as soon as its standard input closes.
    Watchman(Child),
}

/// Joins the private cluster in `data_dir`: makes it if it is missing, starts it if it does not run.
///
/// # Errors
///
/// Each names what is in the way and what to do about it.
pub async fn start(data_dir: &Path) -> Result<PrivatePostgres, PrivatePostgresError> {
    let data_dir = data_dir.to_owned();
    unblock(move || PrivatePostgres::join(&data_dir)).await
}

/// Starts a cluster in a new temporary folder, for tests and demonstrations: not durable, and removed with
/// all it holds when it is stopped or this process ends, in whatever way it ends.
///
/// # Errors
///
/// As of [`start`].
pub async fn start_throwaway() -> Result<PrivatePostgres, PrivatePostgresError> {
    unblock(PrivatePostgres::throw_away).await
}

/// The folder that is used unless the operator names one: `/var/lib/postroom` for root, else `postroom` in
/// the user's folder for data. Nothing when the user has no home.
#[must_use]
pub fn default_data_dir() -> Option<PathBuf> {
    if Uid::effective().is_root() {
        return Some(PathBuf::from("/var/lib/postroom"));
    }
    directories::ProjectDirs::from("", "", "postroom").map(|folders| folders.data_dir().to_owned())
}

impl PrivatePostgres {
    /// The URL of the database `postroom`. It holds the password: never log it.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The URL of another database of this cluster. It holds the password: never log it.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let password = String::from_utf8_lossy(self.password.expose()).into_owned();
        let host = percent_encoded(&self.socket_dir().to_string_lossy());
        format!("postgres://{ROLE}:{password}@localhost/{}?host={host}", percent_encoded(database))
    }

    /// The folder of the Unix socket, for `psql --host`.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.cluster.socket
    }

    /// Makes one more database, a copy of `template` if one is named (to which nobody may be connected then).
    ///
    /// # Errors
    ///
    /// [`PrivatePostgresError::Program`] with the server's words, such as that the name is taken.
    pub async fn create_database(
        &self,
        name: &str,
        template: Option<&str>,
    ) -> Result<(), PrivatePostgresError> {
        let mut command = self.cluster.command("createdb");
        command.env("PGPASSWORD", String::from_utf8_lossy(self.password.expose()).as_ref());
        command.env("PGCONNECT_TIMEOUT", "10");
        command.arg("--host").arg(self.socket_dir()).args(["--username", ROLE]);
        command.args(template.map(|template| format!("--template={template}")));
        command.arg("--").arg(name);
        unblock(move || programs::run(&mut command)).await
    }

    /// Leaves the cluster; the last one to leave stops it, open connections or not.
    ///
    /// # Errors
    ///
    /// When it did not stop in time, for instance. Nothing is left to do for the caller then.
    pub async fn stop(mut self) -> Result<(), PrivatePostgresError> {
        unblock(move || self.leave()).await
    }

    fn join(data_dir: &Path) -> Result<Self, PrivatePostgresError> {
        let folder = Folder::open(data_dir)?;
        let starting = folder.lock_starting()?;
        let users = folder.join_users()?;
        let (cluster, password) = Cluster::run(folder, Durability::Full)?;
        drop(starting);
        Ok(Self { cluster, password, share: Some(Share::User(users)) })
    }

    fn throw_away() -> Result<Self, PrivatePostgresError> {
        let name = format!("postroom-{}", folder::hex(&cluster::random::<8>()?));
        let path = std::env::temp_dir().join(name);
        let user = user::ClusterUser::of(&path)?;
        private_folder(&path, &user)?;
        // The watchman comes first, so that there is no moment in which we could die and leave something.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHMAN, "postroom-watchman"]).arg(&path);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0);
        user.run_as(&mut command);
        let watchman = command.spawn().map_err(folder::file_error(Path::new("/bin/sh")))?;
        let mut started = Started { watchman: Some(watchman) };
        let folder = Folder::open(&path)?;
        let (cluster, password) = Cluster::run(folder, Durability::None)?;
        Ok(Self { cluster, password, share: started.watchman.take().map(Share::Watchman) })
    }

    fn leave(&mut self) -> Result<(), PrivatePostgresError> {
        match self.share.take() {
            None => Ok(()),
            Some(Share::Watchman(mut watchman)) => dismiss(&mut watchman),
            Some(Share::User(users)) => {
                let _starting = self.cluster.folder.lock_starting()?;
                // Asked for while nobody can join: either others hold their share, or we are the last.
                match users.try_lock() {
                    Ok(()) => self.cluster.stop(),
                    Err(_others) => Ok(()),
                }
            }
        }
    }
}

/// Waits for the end of us (its input closes), then ends the cluster and removes the folder it was given.
/// `immediate` spares the last checkpoint of what is thrown away.
const WATCHMAN: &str = r#"trap '' HUP INT TERM
cat >/dev/null
pid="$(head -n 1 "$1/postgres/cluster/postmaster.pid" 2>/dev/null)"
socket="$(sed -n 5p "$1/postgres/cluster/postmaster.pid" 2>/dev/null)"
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
fi
rm -rf "$1"
case "$socket" in */postroom-*) rmdir "$socket" ;; esac
"#;

/// A watchman whose cluster may still fail to start: he is dismissed then, which cleans up.
struct Started {
    watchman: Option<Child>,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.watchman.as_mut().map(dismiss) {
            tracing::warn!(%error, "a throw-away cluster may be left over");
        }
    }
}

fn dismiss(watchman: &mut Child) -> Result<(), PrivatePostgresError> {
    drop(watchman.stdin.take());
    watchman.wait().map(drop).map_err(folder::file_error(Path::new("/bin/sh")))
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(%error, "the private PostgreSQL may still be running");
        }
    }
}

impl fmt::Debug for PrivatePostgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PrivatePostgres")
            .field("socket", &self.cluster.socket)
            .finish_non_exhaustive()
    }
}

/// Runs what waits for processes and locks beside the runtime. If the caller is dropped meanwhile, the work
/// goes on to its end, and a cluster that nobody takes over is left again by its own drop.
async fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrivatePostgresError> + Send + 'static,
) -> Result<T, PrivatePostgresError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(PrivatePostgresError::Interrupted),
        },
    }
}

/// Everything but unreserved characters (RFC 3986, 2.3) as `%XX`.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_folder_travels_in_a_url() {
        assert_eq!(percent_encoded("/var/lib/post room/ä&?"), "%2Fvar%2Flib%2Fpost%20room%2F%C3%A4%26%3F");
    }
}
