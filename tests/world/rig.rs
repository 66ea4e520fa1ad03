//! The world misbehaves: servers, databases and mail servers as separate processes, which are killed, stopped, cut off,
//! filled up and put out of step; and ledgers that tell what became of every letter. README.md beside this file says which
//! case is proven where.

mod caller;
mod catcher;
mod chronicle;
mod postgres;
mod process;
mod proxy;
mod replica;
mod scenarios;
mod site;
mod verdict;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use rand::RngExt as _;

use self::scenarios::{
    calls, clock, dead_host, disk_full, failover, kills, lost_commit, migrations, soak, stop,
};
use self::world::Wishes;

/// What a scenario comes to; its errors are for people.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The exit code after Ctrl-C: that of a shell.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// The program to try, instead of the one that was built with this
    #[arg(long, global = true, default_value = env!("CARGO_BIN_EXE_postroom"))]
    program: PathBuf,
    /// Folder for the servers' own logs
    #[arg(long, global = true)]
    logs: Option<PathBuf>,
    /// Where all draws begin; drawn itself, and told, if it is not given
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Given by cargo
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Scenario {
    /// CASES 50: calls given up at a random moment
    Calls(calls::Options),
    /// CASES 51, 53: servers killed and the database stopped at once, again and again
    Kills(kills::Options),
    /// CASES 52: two servers replaced one after the other under load
    Stop(stop::Options),
    /// CASES 53: a primary killed and its standby promoted; databases that can only be read
    Failover(failover::Options),
    /// CASES 53: the database's file system is full for a while; as root
    DiskFull(disk_full::Options),
    /// CASES 55: answers of the database that never come
    LostCommit(lost_commit::Options),
    /// CASES 56: clocks that are off, and one that steps back
    Clock(clock::Options),
    /// CASES 58: very many letters for a dead host
    DeadHost(dead_host::Options),
    /// CASES 61: servers that start at once on an empty database
    Migrations,
    /// Everything at once, drawn at random
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.scenario, Scenario::DiskFull(_))
        && let Err(error) = disk_full::with_own_mounts()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    run(arguments)
}

#[tokio::main]
async fn run(arguments: Arguments) -> ExitCode {
    let Arguments { scenario, program, logs, seed, bench: _ } = arguments;
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let wishes = Wishes { program, logs, seed };
    let start = Instant::now();
    let running = async {
        match scenario {
            Scenario::Calls(options) => calls::run(&wishes, options).await,
            Scenario::Kills(options) => kills::run(&wishes, options).await,
            Scenario::Stop(options) => stop::run(&wishes, options).await,
            Scenario::Failover(options) => failover::run(&wishes, options).await,
            Scenario::DiskFull(options) => disk_full::run(&wishes, options).await,
            Scenario::LostCommit(options) => lost_commit::run(&wishes, options).await,
            Scenario::Clock(options) => clock::run(&wishes, options).await,
            Scenario::DeadHost(options) => dead_host::run(&wishes, options).await,
            Scenario::Soak(options) => soak::run(&wishes, options).await,
            Scenario::Migrations => migrations::run(&wishes).await,
        }
    };
    // Whatever ends it, everything that was begun is dropped here, and cleans up behind itself.
    tokio::select! {
        outcome = running => match outcome {
            Ok(()) => {
                println!("as it must be, after {:?}", start.elapsed());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("NOT as it must be (seed {seed}): {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}
