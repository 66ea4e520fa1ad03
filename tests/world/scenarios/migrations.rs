//! CASES 61: servers that start at once on an empty database migrate it once.

use std::time::Duration;

use sqlx::{Connection as _, query_as};

use crate::Outcome;
use crate::scenarios::failover::until_ready;
use crate::world::{QUICK, Wishes, World};

/// Databases, one after the other.
const ROUNDS: usize = 5;
/// How long a stop may take.
const STOP: Duration = Duration::from_mins(1);

/// Starts three servers at once on an empty database, again and again.
pub(crate) async fn run(wishes: &Wishes) -> Outcome<()> {
    let mut world = World::new(wishes, &QUICK).await?;
    for round in 0..ROUNDS {
        world.cluster.empty_database().await?;
        let program = &world.program;
        let (first, second, third) =
            tokio::join!(program.start(0, &[]), program.start(1, &[]), program.start(2, &[]));
        world.replicas = vec![Some(first?), Some(second?), Some(third?)];
        until_ready(&world, true).await?;
        let mut connection = world.cluster.connect("postroom").await?;
        let query = query_as("select count(*), count(*) filter (where success) from _sqlx_migrations");
        let (count, done): (i64, i64) = query.fetch_one(&mut connection).await?;
        connection.close().await?;
        println!("round {round}: {done} of {count} migrations are done, three servers are ready");
        let expected =
            i64::try_from(std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))?.count())?;
        if (count, done) != (expected, expected) {
            return Err(format!("{done} of {count} migrations are done, there are {expected}").into());
        }
        for replica in world.replicas.drain(..).flatten() {
            let status = replica.stop(STOP).await?;
            if !status.success() {
                return Err(format!("a server ended with {status}").into());
            }
        }
    }
    Ok(())
}
