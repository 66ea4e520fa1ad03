//! Processes and folders that end with the rig, in whatever way it ends.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Outcome;

/// How long a process that was told to end may take before the rig goes on without it.
const END: Duration = Duration::from_secs(20);

/// A program as this user, or as ourselves. It dies with the rig, also where the rig is killed; a Ctrl-C at the terminal
/// is the rig's to answer.
pub(crate) fn command(program: impl AsRef<OsStr>, user: Option<&User>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(program).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("POSTROOM_") || name.starts_with("PG"))
    {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Runs a command to its end; what it printed.
pub(crate) async fn run(command: &mut Command) -> Outcome<String> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{:?}: {}", command.as_std(), String::from_utf8_lossy(&said)).into())
}

/// Whom programs run as that refuse root; nobody in particular where we are not root.
pub(crate) fn unprivileged() -> Outcome<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let found = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
    found.map(Some).ok_or_else(|| "there is neither a user `postgres` nor `nobody`".into())
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, signal: Signal) -> Outcome<()> {
    let pid = child.id().ok_or("the process has ended")?;
    kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
    Ok(())
}

/// Ends a child by this signal, at once where it does not obey. Blocks: for drops.
pub(crate) fn end(child: &mut Child, by: Signal) {
    // An error means that it has ended already.
    let _ = signal(child, by);
    let start = Instant::now();
    while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
        if start.elapsed() > END {
            let _ = child.start_kill();
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that others may pass through, gone when dropped.
pub(crate) struct Folder(Option<TempDir>);

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix("postroom-world").permissions(Permissions::from_mode(0o711)).tempdir()?;
        Ok(Self(Some(made)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(folder) = self.0.take() else { return };
        let path = folder.keep();
        let start = Instant::now();
        // Whoever was killed a moment ago may still write a last file.
        while std::fs::remove_dir_all(&path).is_err() && path.exists() {
            if start.elapsed() > END {
                eprintln!("{} could not be removed", path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Resident bytes of a process, with its share of nothing: what the kernel calls RSS.
pub(crate) fn resident(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
