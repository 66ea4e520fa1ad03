//! `postroom key create|list|revoke`: straight on the store, since a first key cannot be asked for with a key.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Failure;
use super::open::with_store;
use crate::config::StoreOptions;
use crate::domain::access::{Caller, Role, Scope, key_hash, new_key};
use crate::domain::site::SiteId;
use crate::store::keys::{self, Key};
use crate::store::{Store, sites};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, once
    Create {
        /// The site that the key belongs to, `sites/shop`; `sites/-` for all
        #[arg(long)]
        site: String,
        /// What the key may do; may be given several times
        #[arg(long, required = true)]
        role: Vec<RoleName>,
        /// When the key ends, such as 90d; never, if it is not given
        #[arg(long, value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// Most calls a second at one server; if it is not given, what the server allows every key
        #[arg(long, value_name = "CALLS")]
        calls_per_second: Option<NonZeroU32>,
        #[command(flatten)]
        store: StoreOptions,
    },
    /// List the keys, without the keys themselves
    List {
        #[command(flatten)]
        store: StoreOptions,
    },
    /// Revoke a key; within 5 seconds it is dead everywhere
    Revoke {
        /// Id of the key, as `list` shows it
        id: Uuid,
        #[command(flatten)]
        store: StoreOptions,
    },
}

/// A role as it is named on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    /// Everything
    Admin,
    /// Settings, accounts, messages and logs of its site
    Operator,
    /// Send, read messages, list accounts
    Sender,
    /// Read messages and logs
    Auditor,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Operator => Self::Operator,
            RoleName::Sender => Self::Sender,
            RoleName::Auditor => Self::Auditor,
        }
    }
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { site, role, expires_in, calls_per_second, store } => {
            let mut roles: Vec<Role> = role.into_iter().map(Role::from).collect();
            roles.sort_unstable();
            roles.dedup();
            let caller = Caller { calls_per_second, ..Caller::new(parse_scope(&site)?, roles) };
            with_store(store, async |store| {
                let key = create(store, caller, expires_in).await?;
                println!("{key}");
                Ok(())
            })
            .await
        }
        Command::List { store } => with_store(store, list).await,
        Command::Revoke { id, store } => with_store(store, async |store| revoke(store, id).await).await,
    }
}

/// Makes and stores a key; the key itself, which nobody can ask for again.
pub(super) async fn create(
    store: &Store,
    caller: Caller,
    expires_in: Option<Duration>,
) -> Result<String, Failure> {
    if expires_in == Some(Duration::ZERO) {
        return Err("--expires-in 0s: the key would be of no use".into());
    }
    if let Scope::Site(site) = &caller.scope
        && sites::find(store, site).await?.is_none()
    {
        return Err(format!("{} does not exist: `postroom site create {site}` makes it", site.name()).into());
    }
    store.synchronise().await?;
    let expire_time = expires_in
        .map(|time| time::Duration::try_from(time).map(|time| store.clock().now().saturating_add(time)))
        .transpose()?;
    let key = new_key()?;
    if !keys::create(store, &Caller { expire_time, ..caller }, &key_hash(key.expose())).await? {
        return Err("its site was deleted meanwhile".into());
    }
    Ok(String::from_utf8(key.expose().to_vec())?)
}

async fn list(store: &Store) -> Result<(), Failure> {
    store.synchronise().await?;
    for Key { caller, create_time, revoke_time, last_use_time } in keys::list(store).await? {
        let Caller { key_id, scope, roles, expire_time, calls_per_second } = caller;
        let site = match scope {
            Scope::AllSites => "sites/-".to_owned(),
            Scope::Site(site) => site.name(),
        };
        let roles = roles.into_iter().map(Role::name).collect::<Vec<_>>().join(",");
        let state = match (revoke_time, expire_time) {
            (Some(revoked), _) => format!("revoked {}", show(revoked)?),
            (None, Some(end)) if end <= store.clock().now() => format!("expired {}", show(end)?),
            (None, Some(end)) => format!("expires {}", show(end)?),
            (None, None) => "does not expire".to_owned(),
        };
        let used =
            last_use_time.map(show).transpose()?.map_or("not used".to_owned(), |time| format!("used {time}"));
        let pace = calls_per_second.map(|rate| format!("\t{rate} calls a second")).unwrap_or_default();
        println!("{key_id}\t{site}\t{roles}\tcreated {}\t{state}\t{used}{pace}", show(create_time)?);
    }
    Ok(())
}

async fn revoke(store: &Store, id: Uuid) -> Result<(), Failure> {
    if keys::revoke(store, id).await? {
        println!("revoked {id}");
        return Ok(());
    }
    Err(format!("there is no key {id} that could be revoked").into())
}

fn parse_scope(site: &str) -> Result<Scope, Failure> {
    if site == "sites/-" {
        return Ok(Scope::AllSites);
    }
    let id = site.strip_prefix("sites/").and_then(SiteId::parse);
    Ok(Scope::Site(id.ok_or_else(|| format!("`{site}` is neither sites/{{site}} nor sites/-"))?))
}

fn show(time: OffsetDateTime) -> Result<String, Failure> {
    Ok(time.replace_nanosecond(0)?.format(&Rfc3339)?)
}
