//! `postroom site create|list`: straight on the store, so that it works before the first key exists.

use clap::Subcommand;

use super::Failure;
use super::open::with_store;
use crate::config::StoreOptions;
use crate::domain::site::SiteId;
use crate::store::{Store, sites};

/// Sites are listed in pages of so many.
const PAGE: i64 = 500;

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
    /// List the sites
    List {
        #[command(flatten)]
        store: StoreOptions,
    },
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { id, display_name, store } => {
            let id = SiteId::parse(&id)
                .ok_or_else(|| format!("`{id}` is no site id: [a-z0-9][a-z0-9-]{{0,62}}"))?;
            with_store(store, async |store| create(store, &id, &display_name).await).await
        }
        Command::List { store } => with_store(store, list).await,
    }
}

async fn create(store: &Store, id: &SiteId, display_name: &str) -> Result<(), Failure> {
    let created = sites::create(store, id, display_name).await?;
    let site = created.ok_or_else(|| format!("{} exists already", id.name()))?;
    println!("{}", site.id.name());
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
