//! An account whose password does not open: what is wrong with it, and an entry for its people in the log of its sessions.

use uuid::Uuid;

use super::Context;
use crate::domain::account::Account;
use crate::domain::log::{Chunk, Entry, EntryKind, LogId};
use crate::store::parking::Trouble;
use crate::store::queue::Lane;
use crate::store::{StoreError, accounts, passwords, settings};

/// An account whose password does not open.
pub(super) struct Unopened {
    account: Account,
    pub(super) trouble: Trouble,
}

impl Unopened {
    /// Tries once more, now that the version is known to which it belongs; `None` where it opens, or the account is gone.
    pub(super) async fn find(context: &Context, lane: &Lane) -> Result<Option<Self>, StoreError> {
        let Context { store, .. } = context;
        let Lane { site, account } = lane;
        let Some(account) = accounts::find(store, site, *account).await? else { return Ok(None) };
        match passwords::open(store, site, account.id).await {
            Ok(_) => Ok(None),
            Err(StoreError::Vault(error)) => {
                let trouble = Trouble::unopened(&error, account.version);
                Ok(Some(Self { account, trouble }))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds an entry to the log of the account's sessions, where logs are kept. Where it is parked already only a probe is
    /// news.
    pub(super) async fn tell(&self, context: &Context, lane: &Lane, probing: bool) -> Result<(), StoreError> {
        let Self { account, trouble } = self;
        let Some(settings) = settings::find(&context.store, &account.site).await? else { return Ok(()) };
        let is_news = probing || account.parking.is_none();
        if is_news && settings.effective.save_logs {
            let time = context.store.clock().now();
            let entry = Entry { time, kind: EntryKind::Error, text: trouble.error.clone() };
            let chunk = Chunk {
                site: account.site.clone(),
                log: LogId::send(account.profile.ownership.origin, account.id),
                session: Some(Uuid::now_v7()),
                message: None,
                entries: vec![entry],
            };
            context.record(lane, None, Some(chunk)).await;
        }
        Ok(())
    }
}
