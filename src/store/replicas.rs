//! Replicas: running servers that say they are alive, and what each of them has leased.

use std::time::Duration;

use sqlx::query;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::site::SiteId;

/// A replica that is silent for so long has lost its leases (DESIGN 6: 20 to 30 s).
pub const LEASE: Duration = Duration::from_secs(25);

/// Says that a replica is alive, for the first time or again.
///
/// # Errors
/// When the database does not answer.
pub async fn heartbeat(store: &Store, replica: Uuid) -> Result<(), StoreError> {
    query!(
        "insert into replicas (replica_id) values ($1)
         on conflict (replica_id) do update set heartbeat_time = now()",
        replica,
    )
    .execute(&store.pulse)
    .await?;
    Ok(())
}

/// Signs a replica off, so that whatever it still leased is free at once; forgets replicas silent for a day.
///
/// # Errors
/// When the database does not answer.
pub async fn sign_off(store: &Store, replica: Uuid) -> Result<(), StoreError> {
    query!(
        "delete from replicas where replica_id = $1 or heartbeat_time < now() - interval '1 day'",
        replica
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// A lease, as it stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leased {
    /// Whose letter it is.
    pub site: SiteId,
    /// The letter.
    pub message: Uuid,
    /// Number of the attempt that was claimed.
    pub attempt: i32,
}

/// Everything that a replica has leased. Reads the whole queue: for the rare case that there is doubt.
///
/// # Errors
/// When the database does not answer.
pub async fn leased_by(store: &Store, replica: Uuid) -> Result<Vec<Leased>, StoreError> {
    let rows = query!("select site_id, message_id, attempt from queue where leased_by = $1", replica)
        .fetch_all(&store.pool)
        .await?;
    rows.into_iter()
        .map(|row| {
            let site = SiteId::parse(&row.site_id).ok_or(StoreError::Corrupt("site id"))?;
            Ok(Leased { site, message: row.message_id, attempt: row.attempt })
        })
        .collect()
}
