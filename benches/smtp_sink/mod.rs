//! Postfix's `smtp-sink`, which takes all mail and forgets it, as a process of its own; it counts what it took.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
/// Its last line, `sess=N quit=N mesg=N` and a carriage return, is shorter than this.
const LINE_BYTES: usize = 128;

/// The sink, ended when dropped.
pub(crate) struct SmtpSink {
    child: Child,
    address: SocketAddr,
    counter: File,
}

impl SmtpSink {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// `NotFound` where Postfix is not installed.
    pub(crate) fn start() -> io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        // Debian keeps it in sbin, which is not in everybody's path.
        let program = "/usr/sbin/smtp-sink";
        let program = if Path::new(program).exists() { program } else { "smtp-sink" };
        // As root it wants to be told whom to become.
        let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "nobody"] } else { &[] };
        // A file and no pipe: nobody has to be woken up for each letter.
        let counter = tempfile::tempfile()?;
        let child = Command::new(program)
            .arg("-c")
            .args(user)
            .args([address.to_string(), "1000".to_owned()])
            .stdout(counter.try_clone()?)
            .stderr(Stdio::inherit())
            .spawn()?;
        let sink = Self { child, address, counter };
        let deadline = Instant::now() + START;
        while let Err(error) = TcpStream::connect(address) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(sink)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Letters taken so far.
    pub(crate) fn letters(&self) -> io::Result<usize> {
        let begin = self.counter.metadata()?.len().saturating_sub(LINE_BYTES as u64);
        let mut buffer = [0; LINE_BYTES];
        let read = self.counter.read_at(&mut buffer, begin)?;
        let text = String::from_utf8_lossy(&buffer[..read]);
        let number = text.rsplit_once("mesg=").and_then(|(_, rest)| rest.trim_end().parse().ok());
        Ok(number.unwrap_or(0))
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
