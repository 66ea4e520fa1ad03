//! Debian's Postfix as a peer: submission with STARTTLS and AUTH, implicit TLS with AUTH, everything relayed onward.
//! It runs from a directory of its own, as root or, under fakeroot, as any user; the system's own Postfix is not touched.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::acceptor::Acceptor;
use crate::postfix_auth::{self, Login};

/// Debian's place for it.
const MASTER: &str = "/usr/lib/postfix/sbin/master";
/// For a user who is not root.
const FAKEROOT: &str = "/usr/bin/fakeroot";
/// A master takes about two seconds on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Even where this process is killed, Postfix ends after so many seconds.
const LIFE_SECONDS: &str = "900";

/// Owners as Postfix wants them; under fakeroot they are so in its eyes only.
///
/// The parent is `timeout`, which leads a process group of its own; master signals all of that group when it stops.
const SCRIPT: &str = r#"set -e; cd "$1"
echo "$PPID" > group
chown postfix data queue/active queue/bounce queue/corrupt queue/defer queue/deferred queue/flush queue/hold \
    queue/incoming queue/private queue/saved queue/trace
chown postfix:postdrop queue/maildrop queue/public
exec "$2" -d -c "$1/etc""#;

/// A running Postfix; it stops and its directory goes when this is dropped.
pub(crate) struct Postfix {
    /// Takes mail after STARTTLS and AUTH.
    pub(crate) submission: SocketAddr,
    /// Takes mail after AUTH, TLS from the start.
    pub(crate) implicit_tls: SocketAddr,
    /// PEM file of the CA that signed its certificate for `localhost`.
    pub(crate) ca_file: PathBuf,
    process: Child,
    directory: TempDir,
    _auth: Acceptor,
}

impl Postfix {
    /// Starts it and waits until both ports answer. All accepted mail goes to `relay_to`.
    pub(crate) fn start(relay_to: SocketAddr, user: &str, password: &str) -> Self {
        require_packages();
        let directory = TempDir::with_prefix("postfix-").expect("a temporary directory");
        let path = directory.path();
        // Its processes run as the user postfix.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        let auth = Acceptor::start(move |connection| drop(postfix_auth::serve(&connection, &login)));
        let (submission, implicit_tls) = (free_address(), free_address());
        make_directories(path);
        make_certificates(&path.join("etc"));
        write(&path.join("etc/main.cf"), &main_cf(path, relay_to, auth.address()));
        write(&path.join("etc/master.cf"), &master_cf(submission, implicit_tls));
        let process = spawn(path);
        let ca_file = path.join("etc/ca.pem");
        let mut postfix = Self { submission, implicit_tls, ca_file, process, directory, _auth: auth };
        postfix.wait_until_ready();
        postfix
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("output"), read("mail.log")].concat()).into_owned()
    }

    /// The process group of Postfix, once it has one.
    fn group(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.directory.path().join("group")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + START_LIMIT;
        let is_open = |address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        while !(is_open(self.submission) && is_open(self.implicit_tls)) {
            let exited = self.process.try_wait().expect("a child process");
            assert!(exited.is_none(), "Postfix ended at once: {exited:?}\n{}", self.log());
            assert!(Instant::now() < end, "Postfix does not answer\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let end = Instant::now() + STOP_LIMIT;
        let mut signal = Signal::SIGTERM;
        // Gone when no process of its group is left to be signalled; then fakeroot ends by itself.
        while self.group().is_some_and(|group| killpg(group, signal).is_ok()) {
            drop(self.process.try_wait());
            if Instant::now() > end {
                signal = Signal::SIGKILL;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.process.wait());
    }
}

fn require_packages() {
    let mut missing = Vec::new();
    if !Path::new(MASTER).exists() {
        missing.push("postfix");
    }
    if !Uid::effective().is_root() && !Path::new(FAKEROOT).exists() {
        missing.push("fakeroot");
    }
    assert!(
        missing.is_empty(),
        "this test needs Debian packages: DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The tree that `postfix check` would make, with its modes.
fn make_directories(path: &Path) {
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
        fs::create_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("permissions");
    }
}

/// A CA and a certificate for `localhost` and 127.0.0.1 that it signed.
fn make_certificates(directory: &Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Postroom test CA");
    let ca_key = KeyPair::generate().expect("a key");
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(names)
        .expect("valid names")
        .signed_by(&key, &issuer)
        .expect("a signed certificate");
    write(&directory.join("ca.pem"), &ca_certificate.pem());
    write(&directory.join("certificate.pem"), &certificate.pem());
    write(&directory.join("key.pem"), &key.serialize_pem());
    fs::set_permissions(directory.join("key.pem"), fs::Permissions::from_mode(0o600)).expect("permissions");
}

fn main_cf(path: &Path, relay_to: SocketAddr, auth: SocketAddr) -> String {
    let path = path.display();
    let mut text = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {path}/queue\n\
         data_directory = {path}/data\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         maillog_file = {path}/mail.log\n\
         maillog_file_prefixes = {path}\n\
         relayhost = [{}]:{}\n\
         smtpd_tls_cert_file = {path}/etc/certificate.pem\n\
         smtpd_tls_key_file = {path}/etc/key.pem\n\
         smtpd_sasl_path = inet:{auth}\n",
        relay_to.ip(),
        relay_to.port()
    );
    for (name, value) in [
        // The last four let fakeroot go on in its processes.
        ("import_environment", "MAIL_CONFIG LANG=C LD_PRELOAD LD_LIBRARY_PATH FAKEROOTKEY FAKED_MODE"),
        ("myhostname", "postfix.test"),
        ("mydestination", ""),
        ("mynetworks", ""),
        ("alias_maps", ""),
        ("alias_database", ""),
        ("local_recipient_maps", ""),
        ("inet_interfaces", "127.0.0.1"),
        ("inet_protocols", "ipv4"),
        ("disable_dns_lookups", "yes"),
        ("default_destination_recipient_limit", "2000"),
        ("smtpd_recipient_limit", "2000"),
        ("message_size_limit", "41943040"),
        ("mailbox_size_limit", "0"),
        ("local_header_rewrite_clients", ""),
        ("notify_classes", ""),
        ("smtp_tls_security_level", "none"),
        ("smtpd_tls_auth_only", "yes"),
        ("smtpd_sasl_auth_enable", "yes"),
        ("smtpd_sasl_type", "dovecot"),
        ("smtpd_relay_restrictions", "permit_sasl_authenticated, reject"),
        // Answers to errors at once; a test has no time.
        ("smtpd_error_sleep_time", "0"),
        ("smtpd_soft_error_limit", "1000"),
        ("smtpd_hard_error_limit", "1000"),
    ] {
        let _infallible = writeln!(text, "{name} = {value}");
    }
    text
}

fn master_cf(submission: SocketAddr, implicit_tls: SocketAddr) -> String {
    format!(
        "{submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n\
         {implicit_tls} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
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

/// Starts the master; away from the group of the tests, so that an interrupt there lets it be stopped in order.
fn spawn(path: &Path) -> Child {
    let output = fs::File::create(path.join("output")).expect("a file for its output");
    let errors = output.try_clone().expect("a second handle");
    let mut command = Command::new(if Uid::effective().is_root() { "env" } else { FAKEROOT });
    command.args(["timeout", "--kill-after=5", LIFE_SECONDS, "sh", "-c", SCRIPT, "sh"]).arg(path).arg(MASTER);
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    command.spawn().expect("env, or fakeroot")
}
