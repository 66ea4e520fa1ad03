//! Debian's Postfix from a directory of its own, as root or, under fakeroot, as any user: it takes mail of this machine and
//! relays all of it. The system's own Postfix is not touched.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::Outcome;

/// Debian's place for it.
const MASTER: &str = "/usr/lib/postfix/sbin/master";
const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_secs(10);
/// Even where this process is killed, Postfix ends after so many seconds.
const LIFE_SECONDS: &str = "1800";
/// How often its queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Directories of its queue with letters that are still to be sent.
const WAITING: [&str; 4] = ["maildrop", "incoming", "active", "deferred"];

/// Owners as Postfix wants them; under fakeroot they are so in its eyes only.
///
/// The parent is `timeout`, which leads a process group of its own; master signals all of that group when it stops.
const SCRIPT: &str = r#"set -e; cd "$1"
chown postfix data queue/active queue/bounce queue/corrupt queue/defer queue/deferred queue/flush queue/hold \
    queue/incoming queue/private queue/saved queue/trace
chown postfix:postdrop queue/maildrop queue/public
exec "$2" -d -c "$1/etc""#;

/// A running Postfix; it stops and its directory goes when this is dropped.
pub(crate) struct Postfix {
    /// What comes in here is relayed.
    pub(crate) relaying: SocketAddr,
    /// What comes in here is put on hold: accepted, and nothing else.
    pub(crate) holding: SocketAddr,
    process: Child,
    directory: TempDir,
}

impl Postfix {
    /// Starts it and waits until both ports answer. All mail goes to `relay_to`.
    pub(crate) async fn start(relay_to: SocketAddr) -> Outcome<Self> {
        let directory = crate::folder()?;
        let path = directory.path();
        // Its processes run as the user postfix.
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        let (relaying, holding) = (free_address()?, free_address()?);
        make_directories(path)?;
        fs::write(path.join("etc/main.cf"), main_cf(path, relay_to))?;
        fs::write(path.join("etc/master.cf"), master_cf(relaying, holding))?;
        let process = spawn(path)?;
        let mut postfix = Self { relaying, holding, process, directory };
        let deadline = Instant::now() + START;
        while TcpStream::connect(relaying).is_err() || TcpStream::connect(holding).is_err() {
            if postfix.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("Postfix does not answer: {}", postfix.log()).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(postfix)
    }

    /// The process from which all of it descends.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until its queue is empty.
    pub(crate) async fn wait_until_empty(&self) -> Outcome<()> {
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            let waiting: usize = WAITING.iter().map(|name| letters(&self.queue(name))).sum();
            if waiting == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{waiting} letters are left in Postfix's queue").into());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Letters on hold.
    pub(crate) fn held(&self) -> usize {
        letters(&self.queue("hold"))
    }

    fn queue(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("queue").join(name)
    }

    fn log(&self) -> String {
        let read = |name| fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("output"), read("mail.log")].concat()).into_owned()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let Ok(group) = self.process.id().try_into().map(Pid::from_raw) else { return };
        let end = Instant::now() + STOP;
        let mut signal = Signal::SIGTERM;
        // Gone when no process of its group is left to be signalled.
        while killpg(group, signal).is_ok() {
            drop(self.process.try_wait());
            if Instant::now() > end {
                signal = Signal::SIGKILL;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.process.wait());
    }
}

/// Files below a directory, which Postfix may have hashed.
fn letters(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => letters(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// A port that was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The tree that `postfix check` would make, with its modes.
fn make_directories(path: &Path) -> Outcome<()> {
    for (name, mode) in [
        ("etc", 0o755),
        ("data", 0o700),
        ("queue", 0o755),
        ("queue/active", 0o700),
        ("queue/bounce", 0o700),
        ("queue/corrupt", 0o700),
        ("queue/defer", 0o700),
        ("queue/deferred", 0o700),
        ("queue/flush", 0o700),
        ("queue/hold", 0o700),
        ("queue/incoming", 0o700),
        ("queue/maildrop", 0o730),
        ("queue/pid", 0o755),
        ("queue/private", 0o700),
        ("queue/public", 0o710),
        ("queue/saved", 0o700),
        ("queue/trace", 0o700),
    ] {
        let directory = path.join(name);
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn main_cf(path: &Path, relay_to: SocketAddr) -> String {
    let path = path.display();
    let mut text = format!(
        "queue_directory = {path}/queue\n\
         data_directory = {path}/data\n\
         maillog_file = {path}/mail.log\n\
         maillog_file_prefixes = {path}\n\
         relayhost = [{}]:{}\n",
        relay_to.ip(),
        relay_to.port()
    );
    for (name, value) in [
        ("compatibility_level", "3.6"),
        ("mail_owner", "postfix"),
        ("setgid_group", "postdrop"),
        // The last four let fakeroot go on in its processes.
        ("import_environment", "MAIL_CONFIG LANG=C LD_PRELOAD LD_LIBRARY_PATH FAKEROOTKEY FAKED_MODE"),
        ("myhostname", "postfix.bench"),
        ("mydestination", ""),
        ("mynetworks", "127.0.0.0/8"),
        ("alias_maps", ""),
        ("alias_database", ""),
        ("local_recipient_maps", ""),
        ("inet_interfaces", "127.0.0.1"),
        ("inet_protocols", "ipv4"),
        ("disable_dns_lookups", "yes"),
        ("smtpd_peername_lookup", "no"),
        ("smtp_tls_security_level", "none"),
        ("smtpd_relay_restrictions", "permit_mynetworks, reject"),
        // Otherwise callers are slowed down on purpose as soon as they are faster than delivery.
        ("in_flow_delay", "0"),
    ] {
        // Nothing is refused by a String.
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

fn master_cf(relaying: SocketAddr, holding: SocketAddr) -> String {
    format!(
        "{relaying} inet n - n - - smtpd\n\
         {holding} inet n - n - - smtpd -o smtpd_client_restrictions=static:HOLD\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         proxymap unix - - n - - proxymap\n\
         smtp unix - - n - - smtp\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

/// Starts the master; away from our own process group, so that an interrupt there lets it be stopped in order.
fn spawn(path: &Path) -> Outcome<Child> {
    let output = fs::File::create(path.join("output"))?;
    let errors = output.try_clone()?;
    let (program, first): (_, &[&str]) =
        if Uid::effective().is_root() { ("timeout", &[]) } else { ("fakeroot", &["timeout"]) };
    let mut command = Command::new(program);
    command
        .args(first)
        .args(["--kill-after=5", LIFE_SECONDS, "sh", "-c", SCRIPT, "sh"])
        .arg(path)
        .arg(MASTER);
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    Ok(command.spawn()?)
}
