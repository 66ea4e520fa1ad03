//! The schema, brought up to date by whoever may. The role of a server need not be allowed to.

use std::collections::HashMap;

use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection, query_as};

use super::{Store, StoreError};

/// SQLSTATE of what a role may not do, and of a table that is not there.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const UNDEFINED_TABLE: &str = "42P01";

impl Store {
    /// Brings the schema up to date; where it is, nothing is written, and no right is needed to change it. Two servers
    /// that start at once wait for one another (advisory lock).
    ///
    /// # Errors
    /// When the database does not answer, when a migration does not fit, and [`StoreError::Schema`] where it would have to
    /// be changed and the role may not.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await.map_err(unencrypted)?.detach();
        let result = migrate(&mut connection).await;
        connection.close().await?;
        result
    }
}

async fn migrate(connection: &mut PgConnection) -> Result<(), StoreError> {
    // Embedded, forward only. A schema that is newer than this binary is fine: it was expanded, not contracted.
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    if is_current(connection, &migrator).await? {
        return Ok(());
    }
    connection.execute("set statement_timeout = 0; set lock_timeout = 0").await?;
    match migrator.run_direct(None, connection, false).await {
        Err(error) if is_forbidden(&error) => {
            let applied = applied(connection).await?.map_or(0, |applied| applied.len());
            let text = format!(
                "the database's schema is not up to date ({applied} of {} migrations), and this role may not change it: run \
                 `postroom migrate` as the owner of the schema",
                migrator.iter().count()
            );
            Err(StoreError::Schema(text))
        }
        done => Ok(done?),
    }
}

/// Whether every migration of this binary is applied, as it stands here.
async fn is_current(connection: &mut PgConnection, migrator: &Migrator) -> Result<bool, StoreError> {
    let Some(applied) = applied(connection).await? else { return Ok(false) };
    let is_applied = |version: i64, checksum: &[u8]| {
        applied.get(&version).is_some_and(|(known, success)| *success && known == checksum)
    };
    Ok(migrator.iter().all(|migration| is_applied(migration.version, &migration.checksum)))
}

/// The migrations that were applied, with their checksums and whether they came to their end; `None` where there was none
/// or nobody may tell.
async fn applied(connection: &mut PgConnection) -> Result<Option<HashMap<i64, (Vec<u8>, bool)>>, StoreError> {
    // The migrator's own table: no macro knows it, since the schema that they are checked against has none.
    let found =
        query_as::<_, (i64, Vec<u8>, bool)>("select version, checksum, success from _sqlx_migrations")
            .fetch_all(connection)
            .await;
    match found {
        Ok(rows) => Ok(Some(
            rows.into_iter().map(|(version, checksum, success)| (version, (checksum, success))).collect(),
        )),
        Err(error) if has_code(&error, &[UNDEFINED_TABLE, INSUFFICIENT_PRIVILEGE]) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_forbidden(error: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    matches!(error, Execute(error) | ExecuteMigration(error, _) if has_code(error, &[INSUFFICIENT_PRIVILEGE]))
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

/// At a start, an encryption that cannot be had is a matter of configuration, and no use waiting for.
fn unencrypted(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Tls(_) => StoreError::Encryption(error),
        // What rustls finds wrong with a certificate.
        sqlx::Error::Io(ref cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Encryption(error)
        }
        error => error.into(),
    }
}
