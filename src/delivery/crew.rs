//! The workers of one account, and what the dispatcher tells them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::store::queue::DueMail;

/// What the workers of one account share.
#[derive(Default)]
pub(super) struct Signals {
    due: Notify,
    other_mail: AtomicBool,
    in_table: AtomicBool,
    idle: AtomicUsize,
    with_mailings: AtomicUsize,
    with_session: AtomicUsize,
}

impl Signals {
    /// Tells that mail became due. Whether other mail would have to wait for mailings: nobody idles, and those who work have
    /// some in hand.
    pub(super) fn tell(&self, mail: DueMail) -> bool {
        let DueMail { other_mail, in_table } = mail;
        if other_mail {
            self.other_mail.store(true, Ordering::Relaxed);
        }
        if in_table {
            self.in_table.store(true, Ordering::Relaxed);
        }
        self.due.notify_one();
        other_mail && self.idle.load(Ordering::Relaxed) == 0 && self.with_mailings.load(Ordering::Relaxed) > 0
    }

    /// Whether there may be other mail that should overtake the mailings in hand; the first who asks gets it.
    pub(super) fn take_other_mail(&self) -> bool {
        self.other_mail.swap(false, Ordering::Relaxed)
    }

    /// Whether somebody would get it.
    pub(super) fn has_other_mail(&self) -> bool {
        self.other_mail.load(Ordering::Relaxed)
    }

    /// Whether there may be mail to claim; the first who asks gets it.
    pub(super) fn take_in_table(&self) -> bool {
        self.in_table.swap(false, Ordering::Relaxed)
    }

    /// Wakes another worker: there is more than one can do at once.
    pub(super) fn wake(&self) {
        self.due.notify_one();
    }

    /// Idles until mail is due.
    pub(super) async fn idle(&self) {
        let _idling = Counted::new(&self.idle);
        self.due.notified().await;
    }

    /// Whether a worker of the account has a session open.
    pub(super) fn has_session(&self) -> bool {
        self.with_session.load(Ordering::Relaxed) > 0
    }

    /// Counts somebody as having a session open until what is returned is dropped.
    pub(super) fn holds_session(self: &Arc<Self>) -> HoldsSession {
        self.with_session.fetch_add(1, Ordering::Relaxed);
        HoldsSession(Arc::clone(self))
    }

    /// Counts somebody as working on mailings until what is returned is dropped.
    pub(super) fn works_on_mailings(&self) -> Counted<'_> {
        Counted::new(&self.with_mailings)
    }
}

/// Counts somebody until it is dropped.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a session as open until it is dropped.
pub(super) struct HoldsSession(Arc<Signals>);

impl Drop for HoldsSession {
    fn drop(&mut self) {
        self.0.with_session.fetch_sub(1, Ordering::Relaxed);
    }
}
