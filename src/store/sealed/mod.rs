//! All that is sealed by the vault, whatever column it stands in: looked through, opened as a proof, sealed anew. A test
//! holds [`Column`] to the schema, so that no sealed column is forgotten.

mod demand;
mod reseal;

use sqlx::{query, query_scalar};

pub use self::demand::{demand_keys, missing_keys};
pub use self::reseal::{Resealed, reseal};
use super::{Store, StoreError, passwords};
use crate::domain::account::account_name;
use crate::domain::site::SiteId;
use crate::vault::{Place, VaultError, key_id};

/// A column whose values are sealed. Its name begins with `sealed_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// `accounts.sealed_password`.
    AccountPassword,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::AccountPassword];

    /// Table and column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccountPassword => "accounts.sealed_password",
        }
    }
}

/// A sealed value.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The column.
    pub column: Column,
    /// Whose it is.
    pub site: SiteId,
    /// The rest of the row's key.
    pub row: i64,
    value: Vec<u8>,
}

impl Sealed {
    /// The name of what it belongs to, such as `sites/shop/accounts/2`.
    #[must_use]
    pub fn owner(&self) -> String {
        match self.column {
            Column::AccountPassword => account_name(&self.site, self.row),
        }
    }

    /// The key under which it is sealed.
    ///
    /// # Errors
    /// [`VaultError::Broken`] where it is no envelope.
    pub fn key_id(&self) -> Result<&str, VaultError> {
        key_id(&self.value)
    }

    /// Whether it opens in its place. What it holds nobody is told.
    ///
    /// # Errors
    /// As of [`Vault::open`](crate::vault::Vault::open).
    pub fn prove(&self, store: &Store) -> Result<(), VaultError> {
        store.vault.open(&self.place(), &self.value).map(drop)
    }

    fn place(&self) -> Place<'_> {
        match self.column {
            Column::AccountPassword => passwords::place(&self.site, self.row),
        }
    }
}

/// Up to `limit` values of a column behind `after`, in the order of their rows; only those that are not under the key
/// `except`, where one is given.
///
/// # Errors
/// When the database does not answer.
pub async fn page(
    store: &Store,
    column: Column,
    after: Option<&Sealed>,
    except: Option<&str>,
    limit: i64,
) -> Result<Vec<Sealed>, StoreError> {
    let (site, row) = after.map_or(("", 0), |last| (last.site.as_str(), last.row));
    match column {
        Column::AccountPassword => query!(
            r#"select site_id, account_id, sealed_password as "sealed_password!"
               from accounts
               where sealed_password is not null
                 and (site_id, account_id) > ($1, $2)
                 and ($3::text is null or vault_key_id(sealed_password) <> $3)
               order by site_id, account_id
               limit $4"#,
            site,
            row,
            except,
            limit,
        )
        .fetch_all(&store.pool)
        .await?
        .into_iter()
        .map(|row| sealed(column, &row.site_id, row.account_id, row.sealed_password))
        .collect(),
    }
}

/// Up to `limit` values under one key.
async fn under(store: &Store, column: Column, key: &str, limit: i64) -> Result<Vec<Sealed>, StoreError> {
    match column {
        Column::AccountPassword => query!(
            r#"select site_id, account_id, sealed_password as "sealed_password!"
               from accounts
               where sealed_password is not null
                 and vault_key_id(sealed_password) = $1
               order by site_id, account_id
               limit $2"#,
            key,
            limit,
        )
        .fetch_all(&store.pool)
        .await?
        .into_iter()
        .map(|row| sealed(column, &row.site_id, row.account_id, row.sealed_password))
        .collect(),
    }
}

/// How many values of a column are under this key.
///
/// # Errors
/// When the database does not answer.
pub async fn count(store: &Store, column: Column, key: &str) -> Result<i64, StoreError> {
    let count = match column {
        Column::AccountPassword => {
            query_scalar!(
                r#"select count(*) as "count!"
               from accounts
               where sealed_password is not null
                 and vault_key_id(sealed_password) = $1"#,
                key,
            )
            .fetch_one(&store.pool)
            .await?
        }
    };
    Ok(count)
}

/// The ids of the keys under which values of a column are sealed, in order; the empty one stands for values that are no
/// envelope. Takes a step of the index for each.
///
/// # Errors
/// When the database does not answer.
pub async fn key_ids(store: &Store, column: Column) -> Result<Vec<String>, StoreError> {
    let ids = match column {
        Column::AccountPassword => {
            query_scalar!(
                r#"with recursive ids as (
                 (
                     select vault_key_id(sealed_password) as id
                     from accounts
                     where sealed_password is not null
                     order by vault_key_id(sealed_password)
                     limit 1
                 )
                 union all
                 select (
                     select vault_key_id(a.sealed_password)
                     from accounts a
                     where a.sealed_password is not null
                       and vault_key_id(a.sealed_password) > ids.id
                     order by vault_key_id(a.sealed_password)
                     limit 1
                 )
                 from ids
                 where ids.id is not null
             )
             select id as "id!" from ids where id is not null"#,
            )
            .fetch_all(&store.pool)
            .await?
        }
    };
    Ok(ids)
}

fn sealed(column: Column, site: &str, row: i64, value: Vec<u8>) -> Result<Sealed, StoreError> {
    let site = SiteId::parse(site).ok_or(StoreError::Corrupt("site id"))?;
    Ok(Sealed { column, site, row, value })
}
