//! `postroom migrate`.

use super::Failure;
use super::open::with_store;
use crate::config::StoreOptions;

/// Brings the schema up to date and says so.
pub(super) async fn run(options: StoreOptions) -> Result<(), Failure> {
    with_store(options, async |_| {
        println!("the schema is up to date");
        Ok(())
    })
    .await
}
