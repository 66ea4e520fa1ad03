//! Which letters many are cancelled or retried by, and finding them in groups.

use sqlx::query_scalar;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::message::MessageState;
use crate::domain::site::SiteId;

/// Letters that are changed in one transaction: enough to share a commit, few enough that others need not wait long.
pub(super) const GROUP: i64 = 500;

/// Which letters of a site; all that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only of this account.
    pub account: Option<i64>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only in these states; never empty.
    pub states: Vec<MessageState>,
    /// Only accepted at this time or later.
    pub since: Option<OffsetDateTime>,
}

impl Selection {
    /// Whether letters in this state are wanted.
    pub(super) fn wants(&self, state: MessageState) -> bool {
        self.states.contains(&state)
    }
}

/// The next open letters behind an id, in the order of their ids.
pub(super) async fn open(
    store: &Store,
    site: &SiteId,
    selection: &Selection,
    after: Uuid,
) -> Result<Vec<Uuid>, StoreError> {
    let Selection { account, tag, states: _, since } = selection;
    let ids = query_scalar!(
        "select q.message_id
         from queue q
         join messages m on m.site_id = q.site_id and m.message_id = q.message_id
         where q.site_id = $1
           and q.message_id > $2
           and ($3::bigint is null or q.account_id = $3)
           and ($4::text is null or m.tags @> array[$4])
           and ($5::timestamptz is null or m.create_time >= $5)
         order by q.message_id
         limit $6",
        site.as_str(),
        after,
        *account,
        tag.as_deref(),
        *since,
        GROUP,
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(ids)
}

/// The next letters behind an id that are in one of the wanted states, in the order of their ids, and are held, or were
/// final before this time if there is one.
pub(super) async fn closed(
    store: &Store,
    site: &SiteId,
    selection: &Selection,
    final_before: Option<OffsetDateTime>,
    after: Uuid,
) -> Result<Vec<Uuid>, StoreError> {
    let Selection { account, tag, states, since } = selection;
    let states: Vec<String> = states.iter().map(|state| state.name().to_owned()).collect();
    let ids = query_scalar!(
        "select message_id
         from messages
         where site_id = $1
           and message_id > $2
           and ($3::bigint is null or account_id = $3)
           -- As the index of tags has it.
           and ($4::text is null or tags <> '{}' and tags @> array[$4])
           and ($5::timestamptz is null or create_time >= $5)
           and state = any($6)
           and (final_time is null or final_time < $7)
         order by message_id
         limit $8",
        site.as_str(),
        after,
        *account,
        tag.as_deref(),
        *since,
        &states,
        final_before,
        GROUP,
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(ids)
}
