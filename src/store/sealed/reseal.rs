//! Sealing anew, under the vault's first key, beside whoever changes the same values.

use sqlx::query;

use super::{Column, Sealed};
use crate::domain::audit::{Actor, Deed, Note};
use crate::store::{Store, StoreError, audit};
use crate::vault::VaultError;

/// What became of values that were to be sealed anew.
#[derive(Debug, Default)]
pub struct Resealed {
    /// So many are under the vault's sealing key now.
    pub count: usize,
    /// So many were changed or deleted by somebody else meanwhile, and are left as they are.
    pub changed: usize,
    /// Those that do not open, left as they are.
    pub unopened: Vec<(Sealed, VaultError)>,
}

/// Opens values and seals them anew, those of a site in one transaction, in which its log `audit` is told. A value that
/// was changed since it was read is left alone. No version is raised: sessions go on.
///
/// # Errors
/// When the database does not answer; then those of earlier sites are done.
pub async fn reseal(store: &Store, values: Vec<Sealed>) -> Result<Resealed, StoreError> {
    let mut done = Resealed::default();
    let mut values = values.into_iter().peekable();
    while let Some(first) = values.next() {
        let mut of_site = vec![first];
        while let Some(next) = values.next_if(|value| is_beside(&of_site[0], value)) {
            of_site.push(next);
        }
        reseal_of_site(store, of_site, &mut done).await?;
    }
    Ok(done)
}

fn is_beside(first: &Sealed, value: &Sealed) -> bool {
    (first.column, &first.site) == (value.column, &value.site)
}

async fn reseal_of_site(store: &Store, values: Vec<Sealed>, done: &mut Resealed) -> Result<(), StoreError> {
    let (mut rows, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
    let Some((column, site)) = values.first().map(|first| (first.column, first.site.clone())) else {
        return Ok(());
    };
    for value in values {
        match store.vault.open(&value.place(), &value.value) {
            Ok(secret) => {
                new.push(store.vault.seal(&value.place(), &secret)?);
                rows.push(value.row);
                old.push(value.value);
            }
            Err(error) => done.unopened.push((value, error)),
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut transaction = store.begin().await?;
    let changed = match column {
        Column::AccountPassword => {
            // Locked in the order of their ids, as everybody does who locks several.
            query!(
                r#"with locked as (
                     select a.account_id, n.new
                     from unnest($2::bigint[], $3::bytea[], $4::bytea[]) as n (account_id, old, new)
                     join accounts a on a.site_id = $1 and a.account_id = n.account_id and a.sealed_password = n.old
                     order by a.account_id
                     for no key update of a
                 )
                 update accounts a
                 set sealed_password = locked.new
                 from locked
                 where a.site_id = $1
                   and a.account_id = locked.account_id"#,
                site.as_str(),
                &rows,
                &old,
                &new,
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected()
        }
    };
    let count = usize::try_from(changed).unwrap_or(usize::MAX);
    if count > 0 {
        let note = Note { by: Actor::CommandLine, deed: Deed::Reseal(count) };
        audit::append(&mut transaction, &store.clock, &site, &note).await?;
    }
    transaction.commit().await?;
    done.count += count;
    done.changed += rows.len().saturating_sub(count);
    Ok(())
}
