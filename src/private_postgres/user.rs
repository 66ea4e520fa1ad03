//! Whom the cluster runs as: PostgreSQL refuses root, so root lends it an unprivileged user.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::PrivatePostgresError;

/// In this order: Debian's own user for PostgreSQL, then the one every system has.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user who owns the cluster's files and runs its processes.
#[derive(Clone, Debug)]
pub(super) struct ClusterUser {
    uid: Uid,
    gid: Gid,
    /// Whether we are root and must become this user; otherwise it is ourselves.
    lent: bool,
}

impl ClusterUser {
    /// The user for a cluster in `folder`. A cluster that exists stays with its owner when root comes by.
    pub(super) fn of(folder: &Path) -> Result<Self, PrivatePostgresError> {
        let me = Uid::effective();
        let owner = match fs::symlink_metadata(folder) {
            Ok(found) => Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(PrivatePostgresError::File { path: folder.into(), source }),
        };
        match owner {
            Some((uid, _)) if !me.is_root() && uid != me => {
                Err(PrivatePostgresError::WrongOwner { path: folder.into(), owner: name_of(uid) })
            }
            Some((uid, gid)) if me.is_root() && !uid.is_root() => Ok(Self { uid, gid, lent: true }),
            _ if me.is_root() => Self::lend(),
            _ => Ok(Self { uid: me, gid: Gid::effective(), lent: false }),
        }
    }

    fn lend() -> Result<Self, PrivatePostgresError> {
        for name in CANDIDATES {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self { uid: user.uid, gid: user.gid, lent: true });
            }
        }
        Err(PrivatePostgresError::NoUser)
    }

    /// Makes `command` run as this user, without any of root's groups.
    pub(super) fn run_as(&self, command: &mut Command) {
        if self.lent {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Hands a file or folder over to this user.
    pub(super) fn give(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        if self.lent {
            chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
                .map_err(|source| PrivatePostgresError::File { path: path.into(), source })?;
        }
        Ok(())
    }

    /// Takes a folder for this user; false if `path` is somebody else's, or no folder (a link is none).
    ///
    /// Root's own is handed over: that is how we have just made it, or a start before us that was cut short.
    pub(super) fn takes(&self, path: &Path) -> Result<bool, PrivatePostgresError> {
        let found = fs::symlink_metadata(path)
            .map_err(|source| PrivatePostgresError::File { path: path.into(), source })?;
        if found.is_dir() && self.lent && found.uid() == 0 {
            self.give(path)?;
            return Ok(true);
        }
        Ok(found.is_dir() && found.uid() == self.uid.as_raw())
    }

    /// Refuses a folder that this user cannot reach, and names the first ancestor that bars the way.
    ///
    /// The kernel is asked, as that user, since modes alone do not tell (access lists, mount options).
    pub(super) fn must_reach(&self, folder: &Path) -> Result<(), PrivatePostgresError> {
        if !self.lent || self.can_enter(folder)? {
            return Ok(());
        }
        let mut ancestors: Vec<&Path> = folder.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            if !self.can_enter(ancestor)? {
                let user = name_of(self.uid);
                return Err(PrivatePostgresError::NotReachable { path: ancestor.into(), user });
            }
        }
        Ok(())
    }

    fn can_enter(&self, folder: &Path) -> Result<bool, PrivatePostgresError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 0"]).current_dir(folder).stdin(Stdio::null());
        self.run_as(&mut command);
        match command.status() {
            Ok(status) => Ok(status.success()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
            Err(source) => Err(PrivatePostgresError::File { path: folder.into(), source }),
        }
    }
}

fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
