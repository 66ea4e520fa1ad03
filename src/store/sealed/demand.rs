//! What a start demands: that every key in use is there, and is the one it says it is.

use sqlx::{query, query_scalar};

use super::{Column, count, key_ids, under};
use crate::store::{Store, StoreError};
use crate::vault::is_key_id;

/// A key is the right one if it opens one of so many values: several, since one may be broken.
const PROOFS: i64 = 32;

/// Keys that stored values need and the vault lacks: id, column, number of values.
///
/// # Errors
/// When the database does not answer.
pub async fn missing_keys(store: &Store) -> Result<Vec<(String, Column, i64)>, StoreError> {
    let mut missing = Vec::new();
    for column in Column::ALL {
        for id in key_ids(store, column).await? {
            if is_key_id(&id) && !store.vault.has(&id) {
                missing.push((id.clone(), column, count(store, column, &id).await?));
            }
        }
    }
    Ok(missing)
}

/// Refuses to begin where a stored value is under a key that the vault lacks, or where a key opens nothing of what was
/// sealed under its id. Single values that are broken are told in the log: they hold up their account alone.
///
/// # Errors
/// [`StoreError::Keys`], and when the database does not answer.
pub async fn demand_keys(store: &Store) -> Result<(), StoreError> {
    let mut missing = missing_keys(store).await?;
    if !missing.is_empty() {
        // Another server may have added a key since the file was read.
        store.vault.refresh()?;
        missing = missing_keys(store).await?;
    }
    if !missing.is_empty() {
        let told = missing.iter().map(|(id, column, count)| format!("`{id}` ({count} in {})", column.name()));
        let told = told.collect::<Vec<_>>().join(", ");
        return Err(StoreError::Keys(format!(
            "the vault has no key {told}, under which secrets are sealed: put it back among the vault's keys; nothing was begun"
        )));
    }
    for column in Column::ALL {
        for id in key_ids(store, column).await? {
            if is_key_id(&id) {
                demand_right_key(store, column, &id).await?;
            } else {
                let count = count(store, column, &id).await?;
                tracing::error!(
                    count,
                    column = column.name(),
                    "sealed values are broken: `postroom vault check` lists them"
                );
            }
        }
    }
    Ok(())
}

/// A key that was seen to open something is known by its label from then on: what it does not open is damaged.
async fn demand_right_key(store: &Store, column: Column, id: &str) -> Result<(), StoreError> {
    let Some(label) = store.vault.label(id) else { return Ok(()) };
    let known = query_scalar!("select label from vault_keys where key_id = $1", id);
    let known = known.fetch_optional(&store.pool).await?;
    let other = |what: String| {
        Err(StoreError::Keys(format!(
            "the vault's key `{id}` does not open what was sealed under that id ({what}): it is another key, or all of it is \
             broken; nothing was begun"
        )))
    };
    if known.as_ref().is_some_and(|known| *known != label) {
        return other(format!("its fingerprint is not that of before, in {}", column.name()));
    }
    let values = under(store, column, id, PROOFS).await?;
    let broken: Vec<_> = values.iter().filter(|value| value.prove(store).is_err()).collect();
    // Meanwhile they may all have been sealed anew.
    if known.is_none() && !values.is_empty() {
        if broken.len() == values.len() {
            return other(format!("{} tried, in {}", values.len(), column.name()));
        }
        query!("insert into vault_keys (key_id, label) values ($1, $2) on conflict do nothing", id, label)
            .execute(&store.pool)
            .await?;
    }
    for value in broken {
        tracing::error!(value = value.owner(), column = column.name(), "a sealed value is broken");
    }
    Ok(())
}
