//! CASES 51, 53: one of two servers is killed at a random moment, again and again, and now and then the database is
//! stopped at once.

use std::time::{Duration, Instant};

use postroom::api::proto::OnUncertain;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::caller::Kinds;
use crate::catcher::Mood;
use crate::chronicle::Event;
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 32;
/// The longest the catcher takes for a letter, in milliseconds: letters are under way at any moment.
const SLOW: u32 = 40;
/// Letters that come between two kills, at most; the moment is drawn.
const LETTERS_BETWEEN: usize = 60;
/// How long the scenario waits for them.
const QUIET: Duration = Duration::from_secs(3);
/// The longest the database stays away, in milliseconds; each time is drawn.
const AWAY: u32 = 1_500;

/// What to do, how often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Letters
    #[arg(long, default_value_t = 10_000)]
    letters: usize,
    /// Kills of a server
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Immediate stops of the database
    #[arg(long, default_value_t = 20)]
    stops: usize,
}

/// Both ways of dealing with letters of which nobody knows whether they were taken.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    for on_uncertain in [OnUncertain::Resend, OnUncertain::Hold] {
        println!("-- {}", on_uncertain.as_str_name());
        once(wishes, options, on_uncertain).await?;
    }
    Ok(())
}

async fn once(wishes: &Wishes, options: Options, on_uncertain: OnUncertain) -> Outcome<()> {
    let Options { letters, kills, stops } = options;
    let begun = Instant::now();
    let mut draws = StdRng::seed_from_u64(wishes.seed);
    let mut world = World::new(wishes, &QUICK).await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(on_uncertain, 4);
    let site = world.make_site("kills", &nature).await?;
    world.catcher.behave(Mood { slow: SLOW, ..Mood::default() });
    let kinds = Kinds::small(std::slice::from_ref(&site), nature.accounts);
    let callers = world.callers(CALLERS, &kinds);
    let mut count = world.catcher.count();
    for kill in 0..kills {
        callers.allow(letters * (kill + 1) / kills - letters * kill / kills);
        // Some letters later, and then at any moment of the one under way.
        let wanted = *count.borrow() + draws.random_range(1..=LETTERS_BETWEEN);
        // In vain where all that is left is leased by a server that was killed; then the kill itself is the next event.
        let _ = timeout(QUIET, count.wait_for(|count| *count >= wanted)).await;
        sleep(Duration::from_micros(draws.random_range(0..u64::from(SLOW) * 1_000))).await;
        let stops_now = stops * (kill + 1) / kills > stops * kill / kills;
        if stops_now {
            world.chronicle.note(Event::DatabaseGone);
            world.cluster.stop_immediately().await?;
            sleep(Duration::from_millis(draws.random_range(0..=AWAY).into())).await;
        }
        let number = draws.random_range(0..2);
        world.kill(number).await?;
        if stops_now {
            world.cluster.start().await?;
            world.chronicle.note(Event::DatabaseBack);
        }
        world.start(number).await?;
        if (kill + 1) % 20 == 0 {
            println!("{} kills, {} letters taken, {:?}", kill + 1, *count.borrow(), begun.elapsed());
        }
    }
    world.judge(callers, &[site]).await?;
    println!("took {:?}", begun.elapsed());
    Ok(())
}
