//! From a signal to the end: soft stop (drain), hard stop (let go), and an exit that nothing can hold up.
//! What is drained, and how, is the business of those who listen.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// After the hard stop everybody has this long to let go before the process exits whatever hangs. It is
/// also the time in which a private database may be stopped.
const LAST_MOMENT: Duration = Duration::from_secs(5);
/// The exit code of a process that had to be cut off: that of `timeout`.
const CUT_OFF: i32 = 124;

/// Tells all parts of the program to end, in two stages. Clones share the stages.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Shutdown {
    /// A shutdown that begins when it is told to, for tests and for parts of other programs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Traps SIGTERM and SIGINT: the first begins the soft stop, the second the hard stop, which also begins
    /// `drain_wait` and `grace` after the first. The process exits a few seconds after the hard stop, even if
    /// all its threads hang. For the command line alone.
    ///
    /// # Errors
    ///
    /// When the signals cannot be trapped.
    pub fn on_signals(drain_wait: Duration, grace: Duration) -> io::Result<Self> {
        let shutdown = Self::new();
        let told = shutdown.clone();
        let (trapped, is_trapped) = mpsc::sync_channel(1);
        // A thread and a runtime of its own: a blocked worker elsewhere must not keep a signal from being heard.
        thread::Builder::new().name("signals".into()).spawn(move || {
            let result = told.listen(drain_wait + grace, || _ = trapped.send(Ok(())));
            if let Err(error) = result {
                _ = trapped.send(Err(error));
            }
        })?;
        is_trapped.recv().unwrap_or_else(|closed| Err(io::Error::other(closed)))?;
        Ok(shutdown)
    }

    /// Waits for signals until the hard stop has begun; says so once they are trapped.
    fn listen(&self, time: Duration, trapped: impl FnOnce()) -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            trapped();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = self.soft.cancelled() => {}
            }
            exit_after(time + LAST_MOMENT);
            self.begin();
            tracing::info!("shutting down; a second signal cuts it short");
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(time) => {}
                () = self.hard.cancelled() => {}
            }
            exit_after(LAST_MOMENT);
            self.cut();
            Ok(())
        })
    }

    /// Begins the soft stop, if it has not begun.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Begins the hard stop, and with it the soft one.
    pub fn cut(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Cancelled when the drain begins: take nothing new on, finish what runs.
    #[must_use]
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when there is no more time: let go at once.
    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }
}

/// Ends the process after `time` from a thread of its own, which nothing that hangs can hold up.
fn exit_after(time: Duration) {
    let spawned = thread::Builder::new().name("deadline".into()).spawn(move || {
        thread::sleep(time);
        // No tracing here: its lock may be what hangs.
        std::process::exit(CUT_OFF);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to keep the deadline of the shutdown");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    /// Tells the process that another test starts to hang.
    const HANG: &str = "POSTROOM_TEST_HANG";

    #[tokio::test]
    async fn stages_come_in_their_order() {
        let shutdown = Shutdown::new();
        let listener = shutdown.clone();
        assert!(!listener.soft().is_cancelled());
        shutdown.begin();
        listener.soft().cancelled().await;
        assert!(!listener.hard().is_cancelled());
        shutdown.cut();
        listener.hard().cancelled().await;
    }

    #[test]
    fn process_that_hangs_is_cut_off() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "shutdown::tests::first_signal_begins_the_soft_stop", "--nocapture"]);
        command.env(HANG, "1");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("soft stop")));
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(process, Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(CUT_OFF));
    }

    /// By itself, or as the process that hangs after its soft stop.
    #[tokio::test]
    async fn first_signal_begins_the_soft_stop() {
        let shutdown = Shutdown::on_signals(Duration::from_hours(1), Duration::from_hours(1)).unwrap();
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        shutdown.soft().cancelled().await;
        assert!(!shutdown.hard().is_cancelled());
        println!("soft stop");
        while std::env::var_os(HANG).is_some() {
            thread::park();
        }
    }

    #[test]
    fn hard_stop_includes_the_soft_one() {
        let shutdown = Shutdown::new();
        shutdown.cut();
        assert!(shutdown.soft().is_cancelled());
    }
}
