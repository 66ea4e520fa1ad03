//! The cluster's place in the data folder: its paths, its locks, its socket. Nothing here starts a process.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use super::PrivatePostgresError;
use super::user::ClusterUser;

/// Only the cluster's user may enter. Root may anyway.
const PRIVATE: u32 = 0o700;
/// The data folder itself when root makes it: the cluster's user passes through, nobody looks around.
const PASSAGE: u32 = 0o711;
/// What a Unix socket's address can hold on Linux, in bytes, less the closing zero.
const SOCKET_PATH_MAX: usize = 107;
/// The socket's file name; the number is PostgreSQL's default port and names nothing but this file.
const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// How often a lock is asked for again. `flock` has no deadline, so we ask.
const LOCK_STEP: Duration = Duration::from_millis(20);
/// How long others may hold the start lock: a start that replays its log has five minutes.
const LOCK_WAIT: Duration = Duration::from_secs(330);
/// The line of `postmaster.pid` that names the socket's folder, counted from zero.
const PID_FILE_SOCKET_LINE: usize = 4;

/// All paths of one private cluster.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// Holds the locks and the cluster's folder; other parts of Postroom keep their files here too.
    data: PathBuf,
    /// Belongs to the cluster's user, with all that is in it.
    pub(super) root: PathBuf,
}

impl Folder {
    /// Makes the data folder if need be.
    pub(super) fn open(data_dir: &Path) -> Result<Self, PrivatePostgresError> {
        let mode = if nix::unistd::Uid::effective().is_root() { PASSAGE } else { PRIVATE };
        let at = file_error(data_dir);
        DirBuilder::new().recursive(true).mode(mode).create(data_dir).map_err(&at)?;
        let data = fs::canonicalize(data_dir).map_err(&at)?;
        let root = data.join("postgres");
        Ok(Self { data, root })
    }

    /// Makes the cluster's folder for `user`, or finds it.
    pub(super) fn prepare(&self, user: &ClusterUser) -> Result<(), PrivatePostgresError> {
        user.must_reach(&self.data)?;
        private_folder(&self.root, user)
    }

    /// The cluster, by a path relative to `root`: `pg_ctl` hands it to a shell within quotes only.
    pub(super) const CLUSTER: &str = "cluster";
    /// Where `initdb` works until all is done.
    pub(super) const UNFINISHED: &str = "cluster.unfinished";
    /// What the postmaster says before its own log is open.
    pub(super) const START_LOG: &str = "start.log";
    /// The password of both roles, in hexadecimal.
    pub(super) const PASSWORD: &str = "password";

    /// The major version that made the cluster; nothing when there is none yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>, PrivatePostgresError> {
        let path = self.root.join(Self::CLUSTER).join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PrivatePostgresError::File { path, source }),
        }
    }

    /// Waits for the lock under which a cluster is made, started or stopped.
    pub(super) fn lock_starting(&self) -> Result<File, PrivatePostgresError> {
        let path = self.data.join("postgres.start.lock");
        let file = lock_file(&path)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(PrivatePostgresError::File { path, source }),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(PrivatePostgresError::Busy { path });
                }
                Err(TryLockError::WouldBlock) => sleep(LOCK_STEP),
            }
        }
    }

    /// Joins those who use the cluster. Whoever calls holds the start lock, so no last one is just leaving.
    pub(super) fn join_users(&self) -> Result<File, PrivatePostgresError> {
        let path = self.data.join("postgres.users.lock");
        let file = lock_file(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(PrivatePostgresError::Busy { path }),
            Err(TryLockError::Error(source)) => Err(PrivatePostgresError::File { path, source }),
        }
    }

    /// The socket's folder of a cluster that may be running: as its own pid file says, since another
    /// process may have chosen it under another temporary folder.
    pub(super) fn running_socket(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.root.join(Self::CLUSTER).join("postmaster.pid")).ok()?;
        let line = text.lines().nth(PID_FILE_SOCKET_LINE)?;
        line.starts_with('/').then(|| PathBuf::from(line))
    }

    /// Makes the socket's folder: beside the cluster, or below a temporary folder where that path is too long.
    pub(super) fn make_socket_folder(&self, user: &ClusterUser) -> Result<PathBuf, PrivatePostgresError> {
        let hash = digest(&SHA256, self.root.as_os_str().as_bytes());
        let short = format!("postroom-{}", hex(hash.as_ref().get(..8).unwrap_or_default()));
        let choices =
            [self.root.join("socket"), std::env::temp_dir().join(&short), Path::new("/tmp").join(short)];
        let Some(path) = choices.into_iter().find(|path| fits_a_socket(path)) else {
            return Err(PrivatePostgresError::SocketPath { path: self.root.clone() });
        };
        private_folder(&path, user)?;
        Ok(path)
    }

    /// Writes a file that only the cluster's user may read, whole or not at all.
    pub(super) fn write(
        &self,
        name: &str,
        text: &str,
        user: &ClusterUser,
    ) -> Result<(), PrivatePostgresError> {
        let path = self.root.join(name);
        let unfinished = path.with_extension("unfinished");
        remove_file(&unfinished)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(file_error(&unfinished))?;
        user.give(&unfinished)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(file_error(&unfinished))?;
        self.rename(&unfinished, &path)
    }

    /// Renames within `root`, and lasts through a power cut.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), PrivatePostgresError> {
        fs::rename(from, to).map_err(file_error(from))?;
        File::open(&self.root).and_then(|root| root.sync_all()).map_err(file_error(&self.root))
    }
}

/// Makes a folder for `user` alone, or takes his over. Somebody else's at that place is refused: below a
/// temporary folder anybody may have made it first.
pub(super) fn private_folder(path: &Path, user: &ClusterUser) -> Result<(), PrivatePostgresError> {
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(file_error(path)(error)),
        _ => {}
    }
    if !user.takes(path)? {
        return Err(PrivatePostgresError::WrongOwner { path: path.into(), owner: "somebody else".into() });
    }
    fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(file_error(path))
}

/// Removes a file; that it was not there is fine.
pub(super) fn remove_file(path: &Path) -> Result<(), PrivatePostgresError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// Names the path at which something went wrong.
pub(super) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> PrivatePostgresError + use<> {
    let path = path.to_owned();
    move |source| PrivatePostgresError::File { path: path.clone(), source }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn lock_file(path: &Path) -> Result<File, PrivatePostgresError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(file_error(path))
}

fn fits_a_socket(folder: &Path) -> bool {
    let printable = folder.to_str().is_some_and(|text| !text.contains(char::is_control));
    printable && folder.join(SOCKET_FILE).as_os_str().len() <= SOCKET_PATH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_paths_do_not_hold_a_socket() {
        assert!(fits_a_socket(Path::new("/var/lib/postroom/postgres/socket")));
        assert!(fits_a_socket(Path::new(&format!(
            "/{}",
            "x".repeat(SOCKET_PATH_MAX - 2 - SOCKET_FILE.len())
        ))));
        assert!(!fits_a_socket(Path::new(&format!(
            "/{}",
            "x".repeat(SOCKET_PATH_MAX - 1 - SOCKET_FILE.len())
        ))));
        assert!(!fits_a_socket(Path::new("/new\nline")));
    }

    #[test]
    fn hex_is_two_digits_a_byte() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
