//! `postroom site create|delete|list`: straight on the store, so that it works before the first key exists.

use std::time::Duration;

use clap::Subcommand;
use tokio::time::sleep;

use super::Failure;
use super::open::with_store;
use crate::config::StoreOptions;
use crate::domain::site::SiteId;
use crate::store::departures::{self, Begun};
use crate::store::sites::Created;
use crate::store::{Store, sites};

/// Sites are listed in pages of so many.
const PAGE: i64 = 500;
/// Time between two looks at a site that is being deleted.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a site
    Create {
        /// Id of the site, [a-z0-9][a-z0-9-]{0,62}
        id: String,
        /// A name for people
        #[arg(long, default_value = "")]
        display_name: String,
        #[command(flatten)]
        store: StoreOptions,
    },
    /// Delete a site with all that belongs to it, its keys among it; ends when nothing of it is left
    Delete {
        /// Id of the site
        id: String,
        /// Also where letters wait: they go with it
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        store: StoreOptions,
    },
    /// List the sites
    List {
        #[command(flatten)]
        store: StoreOptions,
    },
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { id, display_name, store } => {
            let id = parse(&id)?;
            with_store(store, async |store| create(store, &id, &display_name).await).await
        }
        Command::Delete { id, force, store } => {
            let id = parse(&id)?;
            with_store(store, async |store| delete(store, &id, force).await).await
        }
        Command::List { store } => with_store(store, list).await,
    }
}

fn parse(id: &str) -> Result<SiteId, Failure> {
    SiteId::parse(id).ok_or_else(|| format!("`{id}` is no site id: [a-z0-9][a-z0-9-]{{0,62}}").into())
}

async fn create(store: &Store, id: &SiteId, display_name: &str) -> Result<(), Failure> {
    match sites::create(store, id, display_name).await? {
        Created::Created(site) => println!("{}", site.id.name()),
        Created::Exists => return Err(format!("{} exists already", id.name()).into()),
        Created::Going => return Err(format!("{} is still being deleted, try again", id.name()).into()),
    }
    Ok(())
}

/// Deletes a site and waits until nothing of it is left: no server may be running that would see to it.
async fn delete(store: &Store, id: &SiteId, force: bool) -> Result<(), Failure> {
    match departures::begin(store, id, force).await? {
        Begun::Going { waiting } => {
            eprintln!("{} is gone for every caller, with {waiting} letters that waited", id.name());
        }
        // Broken off before, perhaps.
        Begun::NotFound if departures::is_going(store, id).await? => {}
        Begun::NotFound => return Err(format!("there is no {}", id.name()).into()),
        Begun::MailWaits(count) => {
            return Err(format!("{count} letters of {} wait; with --force they go with it", id.name()).into());
        }
    }
    while departures::is_going(store, id).await? {
        if departures::list(store).await?.contains(id) {
            departures::finish(store, id).await?;
        }
        sleep(LOOK).await;
    }
    println!("{}", id.name());
    Ok(())
}

async fn list(store: &Store) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = sites::list(store, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        last.id.as_str().clone_into(&mut after);
        for site in &page {
            println!("{}\t{}", site.id.name(), site.display_name);
        }
    }
}
