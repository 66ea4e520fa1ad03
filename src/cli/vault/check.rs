//! `postroom vault check`: every stored secret is opened, and what it holds is told to nobody.

use std::collections::{BTreeMap, HashSet};

use super::tell_unopened;
use crate::cli::Failure;
use crate::store::Store;
use crate::store::sealed::{self, Column};

/// Secrets that are read at once.
const PAGE: i64 = 1_000;

/// What was found of one column.
#[derive(Default)]
struct Found {
    /// How many values are under each key, and how many of them do not open.
    by_key: BTreeMap<String, (u64, u64)>,
    /// How many are no envelope at all.
    broken: u64,
}

impl Found {
    fn unopened(&self) -> u64 {
        self.broken + self.by_key.values().map(|(_, unopened)| unopened).sum::<u64>()
    }
}

/// Prints a line for each column and key, then one for each key; fails where something does not open.
pub(super) async fn run(store: &Store) -> Result<(), Failure> {
    let (mut in_use, mut unopened) = (HashSet::new(), 0);
    for column in Column::ALL {
        let found = look_through(store, column).await?;
        unopened += found.unopened();
        let Found { by_key, broken } = found;
        let name = column.name();
        if broken > 0 {
            println!("{name}\tno key\t{broken} broken");
        }
        for (key, (count, unopened)) in by_key {
            let trouble = match unopened {
                0 => String::new(),
                count if store.vault().has(&key) => format!(", {count} broken"),
                _ => ", the key is missing".to_owned(),
            };
            println!("{name}\t{key}\t{count} sealed{trouble}");
            in_use.insert(key);
        }
    }
    for (index, key) in store.vault().key_ids().iter().enumerate() {
        let use_of_it = match (index, in_use.contains(key)) {
            (0, _) => "first: seals",
            (_, true) => "needed: `postroom vault rotate` seals anew what is under it",
            (_, false) => {
                "seals nothing any more: may go, and with it page tokens, codes and request ids that were made while it was first"
            }
        };
        println!("{key}\t{use_of_it}");
    }
    if unopened > 0 {
        return Err(format!("{unopened} stored secrets do not open").into());
    }
    Ok(())
}

async fn look_through(store: &Store, column: Column) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut last = None;
    loop {
        let page = sealed::page(store, column, last.as_ref(), None, PAGE).await?;
        for value in &page {
            let opened = value.prove(store);
            let count = u64::from(opened.is_err());
            match value.key_id() {
                Ok(key) => {
                    let of_key = found.by_key.entry(key.to_owned()).or_default();
                    of_key.0 += 1;
                    of_key.1 += count;
                }
                Err(_) => found.broken += 1,
            }
            if let Err(error) = opened {
                tell_unopened(value, &error);
            }
        }
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok(found);
        }
    }
}
