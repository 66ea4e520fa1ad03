//! The private PostgreSQL of this test process, databases of a test's own in it, and stores over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use postroom::domain::clock::Clock;
use postroom::private_postgres::{self, PrivatePostgres};
use postroom::store::{PoolLimits, Store};
use postroom::vault::Vault;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::PATIENCE;

/// Databases are copied from this one, whose schema is up to date.
const TEMPLATE: &str = "template_postroom";

/// Limits for a machine that does much else: nobody is turned away because he waited for a connection. Tests of outages
/// take those of production.
pub(crate) fn patient() -> PoolLimits {
    PoolLimits { acquire_timeout: PATIENCE, statement_timeout: 2 * PATIENCE, ..PoolLimits::default() }
}

/// A patient store over a database.
pub(crate) fn open_store(url: &str, vault: Arc<Vault>) -> Store {
    Store::open_with(url, &patient(), vault, Clock::default()).expect("a store")
}

/// The cluster of this test process; it ends with the process.
pub(crate) async fn cluster() -> &'static PrivatePostgres {
    static CLUSTER: OnceCell<PrivatePostgres> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let cluster = private_postgres::start_throwaway().await.expect("a private PostgreSQL");
            cluster.create_database(TEMPLATE, None).await.expect("a template");
            let (_keys, vault) = vault();
            let store = open_store(&cluster.url_of(TEMPLATE), vault);
            store.migrate().await.expect("migrations");
            store.close().await;
            cluster
        })
        .await
}

/// URL of a database of its own.
pub(crate) async fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let cluster = cluster().await;
    cluster.create_database(&name, Some(TEMPLATE)).await.expect("a database");
    cluster.url_of(&name)
}

/// A vault with a key of its own, and the folder that holds its file.
pub(crate) fn vault() -> (TempDir, Arc<Vault>) {
    let folder = tempfile::tempdir().expect("a folder");
    let vault = Vault::create_file(&folder.path().join("vault.keys")).expect("a vault");
    (folder, Arc::new(vault))
}
