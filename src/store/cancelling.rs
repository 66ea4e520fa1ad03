//! Cancelling: letters that wait end at once, those under way when their attempt does.

use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::closing::{self, Letter, persistently};
use super::selection::{self, Selection};
use super::{Store, StoreError};
use crate::domain::message::{Ending, MessageState};
use crate::domain::site::SiteId;

/// What became of an attempt to cancel a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled, or will be when the attempt under way ends, or is closed as it is.
    Done,
    /// There is none.
    NotFound,
    /// It is final in this state.
    Final(MessageState),
}

/// Cancels one letter.
///
/// # Errors
/// When the database does not answer.
pub async fn cancel(store: &Store, site: &SiteId, message: Uuid) -> Result<Cancelled, StoreError> {
    persistently(|| cancel_once(store, site, message)).await
}

async fn cancel_once(store: &Store, site: &SiteId, message: Uuid) -> Result<Cancelled, StoreError> {
    let mut transaction = store.begin().await?;
    let Some(letter) = closing::lock(&mut transaction, site, &[message]).await?.pop() else {
        return Ok(Cancelled::NotFound);
    };
    match (letter.state, letter.final_time) {
        (MessageState::Queued | MessageState::Sending, _) | (MessageState::Uncertain, None) => {}
        (MessageState::Cancelled, _) => return Ok(Cancelled::Done),
        (state, _) => return Ok(Cancelled::Final(state)),
    }
    end(&mut transaction, site, vec![letter]).await?;
    transaction.commit().await?;
    store.changes.recorded(site, &[message]);
    Ok(Cancelled::Done)
}

/// Cancels the letters of a selection, whose states are among queued, sending and uncertain; how many.
///
/// # Errors
/// When the database does not answer; those cancelled until then stay so.
pub async fn cancel_all(store: &Store, site: &SiteId, selection: &Selection) -> Result<u64, StoreError> {
    let mut count = 0;
    if selection.wants(MessageState::Queued) || selection.wants(MessageState::Sending) {
        let mut after = Uuid::nil();
        loop {
            let ids = selection::open(store, site, selection, after).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            count += cancel_group(store, site, selection, &ids).await?;
        }
    }
    if selection.wants(MessageState::Uncertain) {
        let held = Selection { states: vec![MessageState::Uncertain], ..selection.clone() };
        let mut after = Uuid::nil();
        loop {
            let ids = selection::closed(store, site, &held, None, after).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            count += cancel_group(store, site, selection, &ids).await?;
        }
    }
    Ok(count)
}

async fn cancel_group(
    store: &Store,
    site: &SiteId,
    selection: &Selection,
    ids: &[Uuid],
) -> Result<u64, StoreError> {
    persistently(|| cancel_group_once(store, site, selection, ids)).await
}

async fn cancel_group_once(
    store: &Store,
    site: &SiteId,
    selection: &Selection,
    ids: &[Uuid],
) -> Result<u64, StoreError> {
    let mut transaction = store.begin().await?;
    let mut letters = closing::lock(&mut transaction, site, ids).await?;
    letters.retain(|letter| match (letter.state, &letter.place) {
        (MessageState::Queued, Some(place)) if place.under_way => {
            selection.wants(MessageState::Sending) && !place.cancelled
        }
        (MessageState::Queued, Some(_)) => selection.wants(MessageState::Queued),
        (MessageState::Uncertain, None) => {
            selection.wants(MessageState::Uncertain) && letter.final_time.is_none()
        }
        _ => false,
    });
    let ids: Vec<Uuid> = letters.iter().map(|letter| letter.message).collect();
    end(&mut transaction, site, letters).await?;
    transaction.commit().await?;
    store.changes.recorded(site, &ids);
    Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX))
}

/// Ends locked letters that wait, marks those under way, closes those that are held as they are.
async fn end(connection: &mut PgConnection, site: &SiteId, letters: Vec<Letter>) -> Result<(), StoreError> {
    let (mut waiting, mut under_way, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for letter in letters {
        match &letter.place {
            Some(place) if place.under_way => under_way.push(letter.message),
            Some(_) => waiting.push((letter, Ending::Cancelled)),
            None => held.push(letter.message),
        }
    }
    query!(
        "update queue set cancelled = true where site_id = $1 and message_id = any($2)",
        site.as_str(),
        &under_way,
    )
    .execute(&mut *connection)
    .await?;
    query!(
        "update messages
         set final_time = now()
         where site_id = $1
           and message_id = any($2)
           and state = 'uncertain'
           and final_time is null",
        site.as_str(),
        &held,
    )
    .execute(&mut *connection)
    .await?;
    closing::close(connection, site, waiting).await?;
    Ok(())
}
