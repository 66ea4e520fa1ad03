//! Everything at once, drawn at random, for half an hour: load of every kind, and whatever can happen to the servers, the
//! database and the mail server. Ends with the ledgers held against each other, and what memory and tables did over time.

mod faults;
mod samples;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use postroom::api::proto::OnUncertain;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use self::faults::Fault;
use self::samples::Samples;
use crate::Outcome;
use crate::caller::{Callers, Kinds};
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Servers.
const SERVERS: usize = 2;
/// Callers at once.
const CALLERS: usize = 32;
/// Accounts of each site.
const ACCOUNTS: usize = 3;
/// Time between two samples, in seconds.
const SAMPLE: u64 = 10;
/// Time between two looks at load, faults and samples.
const STEP: Duration = Duration::from_millis(100);
/// Letters a second, at most, unless said otherwise; how many is drawn anew every few seconds.
const RATE: u32 = 120;
/// Waits between attempts, in milliseconds. Enough of them for every 4xx that is drawn.
const RETRIES: [u32; 30] = [700; 30];

/// For how long, and where the result goes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Minutes
    #[arg(long, env = "SOAK_MINUTES", default_value_t = 30.0)]
    minutes: f64,
    /// Letters a second, at most
    #[arg(long, default_value_t = RATE)]
    rate: u32,
    /// Folder for soak.md and soak.json
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results"))]
    results: PathBuf,
}

/// Load and faults until the time is over, then the verdict.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let Options { minutes, rate, results } = options;
    let mut world = World::new(wishes, &QUICK).await?;
    for number in 0..SERVERS {
        world.start(number).await?;
    }
    let nature = |on_uncertain, parts| Nature {
        parts,
        retries: RETRIES.to_vec(),
        ..Nature::new(on_uncertain, ACCOUNTS)
    };
    let mut sites = Vec::new();
    for (id, on_uncertain, parts) in [
        ("resend", OnUncertain::Resend, false),
        ("hold", OnUncertain::Hold, false),
        ("parts", OnUncertain::Resend, true),
        ("parts-hold", OnUncertain::Hold, true),
    ] {
        sites.push(world.make_site(id, &nature(on_uncertain, parts)).await?);
    }
    let kinds = Kinds {
        recipients: 4,
        text: 16 * 1_024,
        large: Some(50),
        mailings: 30,
        later: 5,
        ..Kinds::small(&sites, ACCOUNTS)
    };
    let callers = world.callers(CALLERS, &kinds);
    let mut samples = Samples::begin(&world).await?;
    let mut counts = BTreeMap::new();
    load(&mut world, &callers, &mut samples, &mut counts, minutes, rate).await?;

    faults::end(&mut world, SERVERS).await?;
    callers.enough();
    let ledger = callers.finish().await;
    let outcome = world.judge_ledger(&ledger, &sites).await;
    samples.take(&world, ledger.accepted.len()).await?;
    println!("faults {counts:?}");
    let report = samples.report(&world, &ledger, &counts, minutes);
    let told = outcome.as_ref().map_err(ToString::to_string);
    report.write(&results, told.as_ref().map(|verdict| *verdict).map_err(String::as_str))?;
    outcome.map(|_| ())
}

/// Hands letters in at a rate that changes, and lets one fault follow the other.
async fn load(
    world: &mut World,
    callers: &Callers,
    samples: &mut Samples,
    counts: &mut BTreeMap<&'static str, usize>,
    minutes: f64,
    most: u32,
) -> Outcome<()> {
    let mut draws = StdRng::seed_from_u64(world.wishes.seed);
    let begun = Instant::now();
    let end = Duration::from_secs_f64(minutes * 60.0);
    let (mut next_fault, mut next_rate, mut next_sample) = (begun, begun, begun);
    let (mut rate, mut due) = (0.0, 0.0);
    let mut last = begun;
    while begun.elapsed() < end {
        let now = Instant::now();
        if now >= next_rate {
            rate = f64::from(draws.random_range(0..=most));
            next_rate = now + Duration::from_secs(draws.random_range(2..10));
        }
        due += rate * (now - last).as_secs_f64();
        last = now;
        // Who cannot hand in fast enough does not pile up without end.
        if callers.open() < 10 * usize::try_from(most)? {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small number of letters"
            )]
            let letters = due as usize;
            callers.allow(letters);
        }
        due = due.fract();
        if now >= next_fault {
            let fault = Fault::draw(&mut draws);
            *counts.entry(fault.name()).or_default() += 1;
            fault.happen(world, &mut draws).await?;
            next_fault = Instant::now() + Duration::from_millis(draws.random_range(500..6_000));
        }
        if now >= next_sample {
            let accepted = callers.ledger().accepted.len();
            // The database may be away just now.
            if samples.take(world, accepted).await.is_ok() {
                next_sample = now + Duration::from_secs(SAMPLE);
            }
        }
        sleep(STEP).await;
    }
    Ok(())
}
