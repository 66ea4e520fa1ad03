//! From a signal to the end: soft stop (drain), hard stop (let go), and an exit that nothing can hold up.
//! What is drained, and how, is the business of those who listen.

use std::io;
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
    /// `drain_wait` and `grace` after the first. The process exits a few seconds after the hard stop, even if the runtime hangs.
    ///
    /// For the command line alone. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// When the signals cannot be trapped.
    pub fn on_signals(drain_wait: Duration, grace: Duration) -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let told = shutdown.clone();
        // Nobody waits for this task: it ends with the process, and has nothing to lose.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = told.soft.cancelled() => {}
            }
            tracing::info!("shutting down; a second signal cuts it short");
            exit_after(drain_wait + grace + LAST_MOMENT);
            told.begin();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(drain_wait + grace) => {}
                () = told.hard.cancelled() => {}
            }
            exit_after(LAST_MOMENT);
            told.cut();
        });
        Ok(shutdown)
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

/// Ends the process after `time` from a thread of its own, which no blocked runtime can hold up.
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
    use super::*;

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
    fn hard_stop_includes_the_soft_one() {
        let shutdown = Shutdown::new();
        shutdown.cut();
        assert!(shutdown.soft().is_cancelled());
    }
}
