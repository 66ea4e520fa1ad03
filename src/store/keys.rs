//! Access keys; only their SHA-256 is stored.

use sqlx::{query, query_as};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::site::SiteId;

/// What stands for all sites.
const ALL_SITES: &str = "-";

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct Key {
    /// What it is and may do.
    pub caller: Caller,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was revoked.
    pub revoke_time: Option<OffsetDateTime>,
}

struct KeyRow {
    site_id: String,
    key_id: Uuid,
    roles: Vec<String>,
    create_time: OffsetDateTime,
    expire_time: Option<OffsetDateTime>,
    revoke_time: Option<OffsetDateTime>,
}

impl TryFrom<KeyRow> for Key {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let KeyRow { site_id, key_id, roles, create_time, expire_time, revoke_time } = row;
        let scope = if site_id == ALL_SITES {
            Scope::AllSites
        } else {
            Scope::Site(SiteId::parse(&site_id).ok_or(StoreError::Corrupt("site id"))?)
        };
        let roles = roles
            .iter()
            .map(|name| Role::from_name(name).ok_or(StoreError::Corrupt("role")))
            .collect::<Result<_, _>>()?;
        Ok(Self { caller: Caller { key_id, scope, roles, expire_time }, create_time, revoke_time })
    }
}

/// Stores a key.
///
/// # Errors
/// When the database does not answer.
pub async fn create(store: &Store, caller: &Caller, hash: &[u8; 32]) -> Result<(), StoreError> {
    let Caller { key_id, scope, roles, expire_time } = caller;
    let roles: Vec<String> = roles.iter().map(|role| role.name().to_owned()).collect();
    query!(
        "insert into keys (site_id, key_id, hash, roles, expire_time) values ($1, $2, $3, $4, $5)",
        scope_name(scope),
        key_id,
        hash.as_slice(),
        &roles,
        *expire_time,
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// The caller behind a key of this hash, if the key counts now.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, hash: &[u8; 32]) -> Result<Option<Caller>, StoreError> {
    let row = query_as!(
        KeyRow,
        "select site_id, key_id, roles, create_time, expire_time, revoke_time
         from keys
         where hash = $1
           and revoke_time is null
           and (expire_time is null or expire_time > now())",
        hash.as_slice(),
    )
    .fetch_optional(&store.pool)
    .await?;
    row.map(|row| Key::try_from(row).map(|key| key.caller)).transpose()
}

/// All keys, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(store: &Store) -> Result<Vec<Key>, StoreError> {
    query_as!(
        KeyRow,
        "select site_id, key_id, roles, create_time, expire_time, revoke_time from keys order by create_time, key_id"
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(Key::try_from)
    .collect()
}

/// Revokes a key; whether there was one that counted.
///
/// # Errors
/// When the database does not answer.
pub async fn revoke(store: &Store, key_id: Uuid) -> Result<bool, StoreError> {
    let revoked =
        query!("update keys set revoke_time = now() where key_id = $1 and revoke_time is null", key_id)
            .execute(&store.pool)
            .await?;
    Ok(revoked.rows_affected() > 0)
}

fn scope_name(scope: &Scope) -> &str {
    match scope {
        Scope::AllSites => ALL_SITES,
        Scope::Site(site) => site.as_str(),
    }
}
