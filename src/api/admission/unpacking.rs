//! Compressed requests are unpacked by turns: a bomb keeps a thread busy until it is found out (some 100 ms for 26 MiB), and
//! fifty at once would keep all of them from everybody else.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// All turns of the server: half of its threads at once.
pub(super) struct Unpacking(Arc<Semaphore>);

impl Unpacking {
    pub(super) fn new() -> Self {
        let threads = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((threads / 2).max(1))))
    }

    /// Those of one call.
    pub(super) fn of_call(&self) -> (Queue, Turn) {
        let turn = Turn::default();
        (Queue { turn: turn.clone(), turns: PollSemaphore::new(Arc::clone(&self.0)) }, turn)
    }
}

/// Where a call's body waits for its turn.
pub(super) struct Queue {
    turns: PollSemaphore,
    turn: Turn,
}

impl Queue {
    /// Ready when it is this call's turn, which lasts until [`Turn::over`].
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let permit = ready!(self.turns.poll_acquire(context));
        self.turn.set(permit);
        Poll::Ready(())
    }

    /// The message was unpacked.
    pub(super) fn over(&self) {
        self.turn.over();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.turn.over();
    }
}

/// The turn of a call, in the extensions of its request. Who asks for the next message ends it; a handler that does other
/// things first must end it itself.
#[derive(Clone, Default)]
pub(in crate::api) struct Turn(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Turn {
    /// The message was unpacked: it is the turn of others.
    pub(in crate::api) fn over(&self) {
        self.set(None);
    }

    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}
