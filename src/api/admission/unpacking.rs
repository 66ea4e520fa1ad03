//! Compressed requests are unpacked by turns: a bomb keeps a thread busy until it is found out (some 100 ms for 26 MiB), and
//! fifty at once would keep all of them from everybody else.

use std::sync::Arc;
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

    /// Where one call waits for its turns.
    pub(super) fn queue(&self) -> Queue {
        Queue { turns: PollSemaphore::new(Arc::clone(&self.0)), turn: None }
    }
}

/// Where a call's body waits for its turn.
pub(super) struct Queue {
    turns: PollSemaphore,
    turn: Option<OwnedSemaphorePermit>,
}

impl Queue {
    /// Ready when it is this call's turn, which lasts until [`Queue::over`].
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.turn = ready!(self.turns.poll_acquire(context));
        Poll::Ready(())
    }

    /// The message was unpacked: it is the turn of others.
    pub(super) fn over(&mut self) {
        self.turn = None;
    }
}
