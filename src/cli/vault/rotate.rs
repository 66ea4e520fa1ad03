//! `postroom vault rotate`: every stored secret that is not under the first key is sealed anew, beside running servers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::tell_unopened;
use crate::cli::Failure;
use crate::cli::open::with_store;
use crate::config::{KEY_DATA, StoreOptions, VaultKeys};
use crate::store::sealed::{self, Column, Resealed};
use crate::store::{Store, replicas};
use crate::vault::Vault;

/// Secrets that are sealed anew at once: few, so that a letter to one of their accounts waits for milliseconds.
const PAGE: i64 = 200;
/// Time between two looks at what the servers have.
const LOOK: Duration = Duration::from_millis(200);

/// Adds a key where that is wanted, waits until every server seals under the first, and seals the rest anew. Broken off, it
/// goes on with the next run.
pub(super) async fn run(new_key: bool, wait: Duration, options: StoreOptions) -> Result<(), Failure> {
    let keys = options.clone().into_config()?.vault_keys;
    let file = match (new_key, keys) {
        (false, _) => None,
        (true, VaultKeys::Given(path) | VaultKeys::Made(path)) => Some(path),
        (true, VaultKeys::Environment(_)) => {
            let text = format!("--new-key needs a key file: keys in {KEY_DATA} are yours to change");
            return Err(text.into());
        }
    };
    with_store(options, async |store| {
        sealed::demand_keys(store).await?;
        if let Some(path) = &file {
            Vault::add_key(path)?;
            store.vault().refresh()?;
            // The only one that seals here is the new one, whoever knows it: it waits for them.
            store.vault().agree(&[]);
        }
        let first = store.vault().key_ids().into_iter().next().unwrap_or_default();
        if file.is_some() {
            eprintln!("{first} is the first key of the file now");
        }
        wait_for_servers(store, &first, wait).await?;
        // What is sealed under a key that is no longer in the file is lost with this process.
        store.vault().refresh()?;
        if store.vault().key_ids().first() != Some(&first) {
            return Err(
                "the key file was changed meanwhile, and no secret was sealed anew: run it again".into()
            );
        }
        rotate(store, &first).await
    })
    .await
}

/// Waits until every running server seals under this key. Until then nothing is sealed under it: who lacks it could not
/// open that.
async fn wait_for_servers(store: &Store, first: &str, wait: Duration) -> Result<(), Failure> {
    let end = Instant::now() + wait;
    let own = store.vault().announcement();
    let own = &own[..1];
    let mut is_told = false;
    loop {
        let servers = replicas::keys_of_replicas(store).await?;
        let seals = |keys: &Option<Vec<String>>| keys.as_ref().is_some_and(|keys| keys.starts_with(own));
        let lacking: Vec<_> = servers.into_iter().filter(|(_, keys)| !seals(keys)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let lines = lacking.iter().map(|(server, keys)| match keys {
                None => format!("server {server} does not tell its keys: it is of an older version"),
                Some(keys) if keys.contains(&own[0]) => {
                    format!("server {server} has {first} and seals under {}", keys.join(", "))
                }
                Some(keys) => format!("server {server} has not {}, but {}", own[0], keys.join(", ")),
            });
            let lines = lines.collect::<Vec<_>>().join("\n");
            return Err(format!(
                "no secret was sealed anew, since not every server seals under {first}:\n{lines}\n\
                 Give every server the same keys in the same order, then run `postroom vault rotate` again, without --new-key"
            )
            .into());
        }
        if !is_told {
            eprintln!("waiting until {} servers seal under {first}", lacking.len());
            is_told = true;
        }
        sleep(LOOK).await;
    }
}

async fn rotate(store: &Store, first: &str) -> Result<(), Failure> {
    let mut all = Resealed::default();
    for column in Column::ALL {
        let mut total = 0;
        for key in sealed::key_ids(store, column).await? {
            if key != first {
                total += sealed::count(store, column, &key).await?;
            }
        }
        // Whoever changed a secret at the same moment may have sealed it under another key; the last pass finds nothing.
        loop {
            let pass = rotate_column(store, column, first, total, all.count).await?;
            all.count += pass.count;
            all.changed += pass.changed;
            all.unopened = pass.unopened;
            if pass.count == 0 && pass.changed == 0 {
                break;
            }
        }
    }
    for (value, error) in &all.unopened {
        tell_unopened(value, error);
    }
    println!(
        "{} secrets sealed anew under {first}, {} changed by others meanwhile, {} left that do not open",
        all.count,
        all.changed,
        all.unopened.len()
    );
    if all.unopened.is_empty() {
        return Ok(());
    }
    Err(format!("{} stored secrets do not open", all.unopened.len()).into())
}

/// Goes through a column once.
async fn rotate_column(
    store: &Store,
    column: Column,
    first: &str,
    total: i64,
    before: usize,
) -> Result<Resealed, Failure> {
    let mut done = Resealed::default();
    let mut last = None;
    loop {
        let page = sealed::page(store, column, last.as_ref(), Some(first), PAGE).await?;
        let Some(end) = page.last().cloned() else { return Ok(done) };
        let Resealed { count, changed, unopened } = sealed::reseal(store, page).await?;
        done.count += count;
        done.changed += changed;
        done.unopened.extend(unopened);
        eprintln!("{}: {} of {total} sealed anew", column.name(), before + done.count);
        last = Some(end);
    }
}
