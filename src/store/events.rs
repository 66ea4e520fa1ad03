//! Events of a site: what changed, a row a transaction, kept for a day.

use sqlx::query;
use sqlx::types::Json;

use super::{StoreError, positions};
use crate::domain::event::Event;
use crate::domain::site::SiteId;

/// Tells of what changed, inside the transaction that changes it.
pub(super) async fn append(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    events: &[Event],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    positions::lock(&mut *connection, site).await?;
    query!("insert into events (site_id, items) values ($1, $2)", site.as_str(), Json(events) as _)
        .execute(connection)
        .await?;
    Ok(())
}
