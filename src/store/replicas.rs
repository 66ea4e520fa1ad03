//! Replicas: running servers that say they are alive, and what each of them has leased.

use std::time::Duration;

use sqlx::{query, query_scalar};
use uuid::Uuid;

use super::queue::interval;
use super::{Store, StoreError};
use crate::domain::site::SiteId;

/// A replica that is silent for so long has lost its leases (DESIGN 6: 20 to 30 s).
pub const LEASE: Duration = Duration::from_secs(25);

/// A replica that is silent for so long is gone: whatever keys of the vault it had matters to nobody. Longer than
/// [`LEASE`], so that a server that only stumbled is still counted.
const GONE: Duration = Duration::from_secs(30);

/// Says that a replica is alive, for the first time or again, and which keys of the vault it has; hears the same of the
/// others, and lets the vault seal under a key that all have.
///
/// # Errors
/// When the database does not answer.
pub async fn heartbeat(store: &Store, replica: Uuid) -> Result<(), StoreError> {
    let others = query_scalar!(
        r#"with beat as (
             insert into replicas (replica_id, vault_keys) values ($1, $2)
             on conflict (replica_id) do update set heartbeat_time = now(), vault_keys = $2
         )
         select vault_keys as "vault_keys!"
         from replicas
         where replica_id <> $1
           and heartbeat_time > now() - $3::interval
           and vault_keys is not null"#,
        replica,
        &store.vault.announcement(),
        interval(GONE),
    )
    .fetch_all(&store.pulse)
    .await?;
    store.vault.agree(&others);
    Ok(())
}

/// Hears which keys of the vault the running servers have, before this one is heard itself.
///
/// # Errors
/// When the database does not answer.
pub async fn hear_keys(store: &Store) -> Result<(), StoreError> {
    let others: Vec<_> = keys_of_replicas(store).await?.into_iter().filter_map(|(_, keys)| keys).collect();
    store.vault.agree(&others);
    Ok(())
}

/// The running servers, and the keys of the vault that each has, the one under which it seals first; `None` where it does
/// not tell.
///
/// # Errors
/// When the database does not answer.
pub async fn keys_of_replicas(store: &Store) -> Result<Vec<(Uuid, Option<Vec<String>>)>, StoreError> {
    let rows = query!(
        "select replica_id, vault_keys
         from replicas
         where heartbeat_time > now() - $1::interval
         order by replica_id",
        interval(GONE),
    )
    .fetch_all(&store.pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.replica_id, row.vault_keys)).collect())
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
