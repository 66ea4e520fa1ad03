//! The workers of one account, and what the dispatcher tells them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What the workers of one account share.
#[derive(Default)]
pub(super) struct Signals {
    due: Notify,
    other_mail: AtomicBool,
    idle: AtomicUsize,
}

impl Signals {
    /// Tells that mail became due; `other_mail`, that some of it is no part of a mailing. Whether somebody idles who
    /// will see to it at once.
    pub(super) fn tell(&self, other_mail: bool) -> bool {
        if other_mail {
            self.other_mail.store(true, Ordering::Relaxed);
        }
        self.due.notify_one();
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// Whether there may be other mail that should overtake the mailings in hand; the first who asks gets it.
    pub(super) fn take_other_mail(&self) -> bool {
        self.other_mail.swap(false, Ordering::Relaxed)
    }

    /// Idles until mail is due.
    pub(super) async fn idle(&self) {
        let _idling = Idling::new(&self.idle);
        self.due.notified().await;
    }
}

/// Counts somebody as idle until it is dropped.
struct Idling<'a>(&'a AtomicUsize);

impl<'a> Idling<'a> {
    fn new(idle: &'a AtomicUsize) -> Self {
        idle.fetch_add(1, Ordering::Relaxed);
        Self(idle)
    }
}

impl Drop for Idling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
