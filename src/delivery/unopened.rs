//! Tells an account's people that its password does not open, in the log of its sessions.

use uuid::Uuid;

use super::Context;
use crate::domain::log::{Chunk, Entry, EntryKind, LogId};
use crate::store::queue::Lane;
use crate::store::{StoreError, accounts, settings};

/// Adds an entry to the log of the account's sessions, where logs are kept. Where it is parked already only a probe is
/// news.
pub(super) async fn tell(context: &Context, lane: &Lane, error: &str, probing: bool) {
    match chunk(context, lane, error, probing).await {
        Ok(Some(chunk)) => context.record(lane, None, Some(chunk)).await,
        Ok(None) => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "an account's log cannot be told that its password does not open");
        }
    }
}

async fn chunk(
    context: &Context,
    lane: &Lane,
    error: &str,
    probing: bool,
) -> Result<Option<Chunk>, StoreError> {
    let Context { store, .. } = context;
    let Lane { site, account } = lane;
    let Some(account) = accounts::find(store, site, *account).await? else { return Ok(None) };
    let Some(settings) = settings::find(store, site).await? else { return Ok(None) };
    let is_news = probing || account.parking.is_none();
    if !is_news || !settings.effective.save_logs {
        return Ok(None);
    }
    let entry = Entry { time: store.clock().now(), kind: EntryKind::Error, text: error.to_owned() };
    Ok(Some(Chunk {
        site: site.clone(),
        log: LogId::send(account.profile.ownership.origin, account.id),
        session: Some(Uuid::now_v7()),
        message: None,
        entries: vec![entry],
    }))
}
