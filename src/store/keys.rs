//! Access keys; only their SHA-256 is stored.

use std::num::NonZeroU32;

use sqlx::{PgConnection, query, query_as, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, audit, sites};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::audit::{Actor, Deed, Note};
use crate::domain::clock::Clock;
use crate::domain::site::SiteId;

/// What stands for all sites.
const ALL_SITES: &str = "-";
/// Sites that are told of a key in one transaction: it holds up what they record, for some tenths of a second.
const SITES: i64 = 100;

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct Key {
    /// What it is and may do.
    pub caller: Caller,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was revoked.
    pub revoke_time: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_use_time: Option<OffsetDateTime>,
}

struct KeyRow {
    site_id: String,
    key_id: Uuid,
    roles: Vec<String>,
    create_time: OffsetDateTime,
    expire_time: Option<OffsetDateTime>,
    revoke_time: Option<OffsetDateTime>,
    last_use_time: Option<OffsetDateTime>,
    calls_per_second: Option<i32>,
}

impl TryFrom<KeyRow> for Key {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let KeyRow {
            site_id,
            key_id,
            roles,
            create_time,
            expire_time,
            revoke_time,
            last_use_time,
            calls_per_second,
        } = row;
        let scope = scope_of(&site_id)?;
        let roles = roles
            .iter()
            .map(|name| Role::from_name(name).ok_or(StoreError::Corrupt("role")))
            .collect::<Result<_, _>>()?;
        let calls_per_second = calls_per_second
            .map(|rate| u32::try_from(rate).and_then(NonZeroU32::try_from))
            .transpose()
            .map_err(|_| StoreError::Corrupt("calls_per_second"))?;
        let caller = Caller { key_id, scope, roles, expire_time, calls_per_second };
        Ok(Self { caller, create_time, revoke_time, last_use_time })
    }
}

/// Stores a key, and notes in the log `audit` of each site that it reaches now that it was made: at the command line,
/// since nothing else makes keys. False where its site is not there.
///
/// # Errors
/// When the database does not answer. Sites may then have been told of a key for all sites that there is not; there is
/// none of which a site was not told.
pub async fn create(store: &Store, caller: &Caller, hash: &[u8; 32]) -> Result<bool, StoreError> {
    let note = Note { by: Actor::CommandLine, deed: Deed::MakeKey(caller.clone()) };
    let last = note_to_most(store, &caller.scope, &note).await?;
    let Caller { key_id, scope, roles, expire_time, calls_per_second } = caller;
    let roles: Vec<String> = roles.iter().map(|role| role.name().to_owned()).collect();
    let mut transaction = store.begin().await?;
    if let Scope::Site(site) = scope {
        // One that goes takes its keys with it; the next of its id is not for this one.
        let there = query!(
            "select from sites where site_id = $1 and delete_time is null for key share",
            site.as_str()
        );
        if there.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(false);
        }
    }
    query!(
        "insert into keys (site_id, key_id, hash, roles, expire_time, calls_per_second)
         values ($1, $2, $3, $4, $5, $6)",
        scope_name(scope),
        key_id,
        hash.as_slice(),
        &roles,
        *expire_time,
        calls_per_second.map(|rate| i32::try_from(rate.get()).unwrap_or(i32::MAX)),
    )
    .execute(&mut *transaction)
    .await?;
    append_to(&mut transaction, &store.clock, &last, &note).await?;
    transaction.commit().await?;
    Ok(true)
}

/// The key of this hash, if it counts now.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, hash: &[u8; 32]) -> Result<Option<Key>, StoreError> {
    let row = query_as!(
        KeyRow,
        "select site_id, key_id, roles, create_time, expire_time, revoke_time, last_use_time, calls_per_second
         from keys
         where hash = $1
           and revoke_time is null
           and (expire_time is null or expire_time > now())",
        hash.as_slice(),
    )
    .fetch_optional(&store.pool)
    .await?;
    row.map(Key::try_from).transpose()
}

/// Notes that a key is used now, to the minute.
///
/// # Errors
/// When the database does not answer or cannot be written.
pub async fn record_use(store: &Store, hash: &[u8; 32]) -> Result<(), StoreError> {
    query!(
        "update keys
         set last_use_time = now()
         where hash = $1
           and (last_use_time is null or last_use_time < now() - interval '1 minute')",
        hash.as_slice()
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}

/// Hashes of the keys that count and were made since then, oldest first, each with its time: at most so many.
///
/// # Errors
/// When the database does not answer.
pub async fn made_since(
    store: &Store,
    since: OffsetDateTime,
    limit: i64,
) -> Result<Vec<([u8; 32], OffsetDateTime)>, StoreError> {
    query!(
        "select hash, create_time
         from keys
         where create_time >= $1
           and revoke_time is null
           and (expire_time is null or expire_time > now())
         order by create_time
         limit $2",
        since,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(|row| {
        let hash = row.hash.try_into().map_err(|_| StoreError::Corrupt("hash of a key"))?;
        Ok((hash, row.create_time))
    })
    .collect()
}

/// All keys, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(store: &Store) -> Result<Vec<Key>, StoreError> {
    query_as!(
        KeyRow,
        "select site_id, key_id, roles, create_time, expire_time, revoke_time, last_use_time, calls_per_second
         from keys
         order by create_time, key_id"
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(Key::try_from)
    .collect()
}

/// Revokes a key, and notes that in the log `audit` of each site that it reached; whether there was one that counted.
///
/// # Errors
/// When the database does not answer. Sites may then have been told of it although the key still counts.
pub async fn revoke(store: &Store, key_id: Uuid) -> Result<bool, StoreError> {
    let found = query_scalar!("select site_id from keys where key_id = $1 and revoke_time is null", key_id)
        .fetch_optional(&store.pool)
        .await?;
    let Some(scope) = found.as_deref().map(scope_of).transpose()? else { return Ok(false) };
    let note = Note { by: Actor::CommandLine, deed: Deed::RevokeKey { key: key_id, scope: scope.clone() } };
    let last = note_to_most(store, &scope, &note).await?;
    let mut transaction = store.begin().await?;
    let revoked =
        query!("update keys set revoke_time = now() where key_id = $1 and revoke_time is null", key_id)
            .execute(&mut *transaction)
            .await?;
    if revoked.rows_affected() == 0 {
        return Ok(false);
    }
    append_to(&mut transaction, &store.clock, &last, &note).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Notes a deed about a key to the sites that it reaches, but for the last [`SITES`] of them, which are left to the
/// transaction of the deed itself; answers these.
async fn note_to_most(store: &Store, scope: &Scope, note: &Note) -> Result<Vec<SiteId>, StoreError> {
    if let Scope::Site(site) = scope {
        return Ok(vec![site.clone()]);
    }
    let (mut after, mut page) = (String::new(), Vec::new());
    loop {
        let next = sites::list(store, &after, SITES).await?;
        let Some(last) = next.last() else { return Ok(page) };
        last.id.as_str().clone_into(&mut after);
        let earlier = std::mem::replace(&mut page, next.into_iter().map(|site| site.id).collect());
        if !earlier.is_empty() {
            let mut transaction = store.begin().await?;
            append_to(&mut transaction, &store.clock, &earlier, note).await?;
            transaction.commit().await?;
        }
    }
}

/// Adds a note to the logs of these sites. They are locked in the order of their ids, as every call does, so that no two
/// wait for one another.
async fn append_to(
    connection: &mut PgConnection,
    clock: &Clock,
    sites: &[SiteId],
    note: &Note,
) -> Result<(), StoreError> {
    for site in sites {
        audit::append(&mut *connection, clock, site, note).await?;
    }
    Ok(())
}

fn scope_of(name: &str) -> Result<Scope, StoreError> {
    if name == ALL_SITES {
        return Ok(Scope::AllSites);
    }
    SiteId::parse(name).map(Scope::Site).ok_or(StoreError::Corrupt("site id"))
}

fn scope_name(scope: &Scope) -> &str {
    match scope {
        Scope::AllSites => ALL_SITES,
        Scope::Site(site) => site.as_str(),
    }
}
