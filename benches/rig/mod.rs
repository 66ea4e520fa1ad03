//! What the benches of the server share: a server over a database of its own in a throw-away PostgreSQL, and its key.

use std::error::Error;
use std::sync::Arc;

use postroom::api::CheckLimits;
use postroom::app::{self, AppError, AppOptions};
use postroom::config::EgressConfig;
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::clock::Clock;
use postroom::private_postgres::PrivatePostgres;
use postroom::shutdown::Shutdown;
use postroom::smtp::egress::Policy;
use postroom::store::{Store, keys};
use postroom::vault::Vault;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;

use crate::authorised::{Authorisation, Authorised};

/// A running server.
pub(crate) struct Rig {
    /// URL of its database.
    pub(crate) database_url: String,
    /// Clients of it are made over this.
    pub(crate) channel: Authorised,
    address: String,
    authorisation: Authorisation,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), AppError>>,
    _vault_folder: TempDir,
}

impl Rig {
    /// Starts one over a new database of this name.
    pub(crate) async fn start(
        cluster: &PrivatePostgres,
        name: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        cluster.create_database(name, None).await?;
        let database_url = cluster.url_of(name);
        let folder = tempfile::tempdir()?;
        let vault = Arc::new(Vault::create_file(&folder.path().join("vault.keys"))?);
        let store = Store::open(&database_url, Arc::clone(&vault), Clock::default())?;
        store.migrate().await?;
        let key = new_key()?;
        let caller = Caller::new(Scope::AllSites, vec![Role::Admin]);
        keys::create(&store, &caller, &key_hash(key.expose())).await?;
        store.close().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shutdown = Shutdown::new();
        let options = AppOptions {
            egress: EgressConfig {
                policy: Policy {
                    allow: vec!["127.0.0.0/8".parse()?],
                    ports: vec!["1-65535".parse()?],
                    ..Policy::default()
                },
                plaintext_auth_hosts: Vec::new(),
            },
            check_limits: CheckLimits { per_site: 10_000, per_host: 10_000 },
            reflection: false,
            ..AppOptions::new(database_url.clone(), vault)
        };
        let serving = tokio::spawn(app::run(listener, options, shutdown.clone()));
        let authorisation = Authorisation::by(std::str::from_utf8(key.expose())?)?;
        let address = format!("http://{address}");
        let channel = connect(&address, &authorisation)?;
        Ok(Self { database_url, channel, address, authorisation, shutdown, serving, _vault_folder: folder })
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> Result<Authorised, Box<dyn Error + Send + Sync>> {
        connect(&self.address, &self.authorisation)
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self { channel, shutdown, serving, .. } = self;
        drop(channel);
        shutdown.begin();
        serving.await??;
        Ok(())
    }
}

fn connect(address: &str, authorisation: &Authorisation) -> Result<Authorised, Box<dyn Error + Send + Sync>> {
    let channel = Endpoint::try_from(address.to_owned())?.connect_lazy();
    Ok(authorisation.over(channel))
}
