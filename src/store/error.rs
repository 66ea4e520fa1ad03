//! What can go wrong with the database, as far as a caller can act on it.

use crate::metrics::{StoreTrouble, store_failed};
use crate::vault::VaultError;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer or cannot be written; try again later.
    #[error("the database does not answer or cannot be written")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused a statement: a fault of ours.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// There is no encrypted connection to the database, or not to the one that was meant.
    #[error(
        "no encrypted connection to the database; in its URL, sslrootcert=FILE names the authority of its certificate, and \
         sslmode=disable goes without encryption"
    )]
    Encryption(#[source] sqlx::Error),
    /// The schema would have to be changed, by somebody else.
    #[error("{0}")]
    Schema(String),
    /// A migration failed.
    #[error("the schema cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is stored cannot be opened with the keys that the vault has: nothing may be begun with it.
    #[error("{0}")]
    Keys(String),
    /// A stored value is not what was ever written.
    #[error("the stored {0} cannot be read")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether two transactions stood in each other's way, and this one was broken off: it may be begun anew.
    pub(super) fn is_deadlock(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code == "40P01")
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let is_outage = is_outage(&error);
        store_failed(match error {
            sqlx::Error::PoolTimedOut => StoreTrouble::PoolTimeout,
            _ if is_outage => StoreTrouble::Unavailable,
            _ => StoreTrouble::Refused,
        });
        if is_outage { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// Whether the error comes from the database's state and not from what was asked of it.
pub(super) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Classes of SQLSTATE: connection exception, insufficient resources, operator intervention (shutdown, statement
        // timeout), system error; and read-only transaction, lock not available, serialization failure and deadlock.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                || ["25006", "55P03", "40001", "40P01"].contains(&code.as_ref())
        }),
        _ => false,
    }
}

/// The name of the constraint that an error reports, if it reports one.
pub(super) fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|error| error.constraint())
}
