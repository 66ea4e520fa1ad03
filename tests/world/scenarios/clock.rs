//! CASES 56: clocks of servers that are off by an hour, and a clock of the database that steps back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom::api::proto::OnUncertain;
use tokio::time::sleep;

use crate::Outcome;
use crate::caller::Kinds;
use crate::catcher::Mood;
use crate::postgres::Cluster;
use crate::process::Folder;
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// How the catcher is: letters are under way at any moment, and some are to come again.
const MOOD: Mood = Mood {
    slow: 40,
    mail_later: 0,
    recipient_later: 1_000,
    recipient_never: 0,
    dot_later: 300,
    dot_never: 0,
    cut_before: 0,
    cut_after: 0,
};
/// Letters a tenth of a second.
const PACE: usize = 5;

/// What to do with the clocks.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How far the clocks of servers are off, in seconds
    #[arg(long, default_value_t = 3_600)]
    off: u32,
    /// How far the database's clock steps back, in seconds; letters that wait are sent so much later
    #[arg(long, default_value_t = 40)]
    step: u32,
    /// How long the load runs between two events, in seconds
    #[arg(long, default_value_t = 15)]
    calm: u64,
}

/// First the clocks of servers, then that of the database.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let library = library()?;
    println!("-- servers {} s ahead, {} s behind, and right", options.off, options.off);
    servers(wishes, options, &library).await?;
    println!("-- the database's clock steps {} s back", options.step);
    database(wishes, options, &library, false).await?;
    println!("-- and that much forward again");
    database(wishes, options, &library, true).await
}

async fn servers(wishes: &Wishes, options: Options, library: &str) -> Outcome<()> {
    let mut world = World::new(wishes, &QUICK).await?;
    for (number, sign) in ["+", "-"].into_iter().enumerate() {
        let off = format!("FAKETIME={sign}{}s", options.off);
        // Clocks that are off run as fast as others.
        world.start_in(number, &["env", library, &off, "FAKETIME_DONT_FAKE_MONOTONIC=1"]).await?;
    }
    world.start(2).await?;
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("clocks", &nature).await?;
    world.catcher.behave(MOOD);
    let kinds = Kinds { later: 20, ..Kinds::small(std::slice::from_ref(&site), nature.accounts) };
    let callers = world.callers(CALLERS, &kinds);
    for _ in 0..options.calm * 10 {
        callers.allow(PACE);
        sleep(Duration::from_millis(100)).await;
    }
    no_doubles(&world, callers, &site).await
}

async fn database(wishes: &Wishes, options: Options, library: &str, forward: bool) -> Outcome<()> {
    let folder = Folder::new()?;
    let mut cluster = Cluster::make(folder.path(), "primary", &[]).await?;
    let control = folder.path().join("clock");
    set(&cluster, &control, 0)?;
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", control.display());
    cluster.wrap(&["env", library, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
    cluster.start().await?;
    cluster.create_database().await?;
    let mut world = World::over(wishes, &QUICK, folder, cluster).await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("clocks", &nature).await?;
    world.catcher.behave(MOOD);
    let callers = world.callers(CALLERS, &Kinds::small(std::slice::from_ref(&site), nature.accounts));
    let steps = if forward { [-i64::from(options.step), 0] } else { [0, -i64::from(options.step)] };
    set(&world.cluster, &control, steps[0])?;
    for (number, step) in steps.into_iter().enumerate() {
        set(&world.cluster, &control, step)?;
        let before = *world.catcher.count().borrow();
        for _ in 0..options.calm * 10 {
            callers.allow(PACE);
            sleep(Duration::from_millis(100)).await;
        }
        let sent = *world.catcher.count().borrow() - before;
        println!(
            "clock {step} s: {sent} letters in {} s{}",
            options.calm,
            if number == 0 { "" } else { ", behind the step" }
        );
    }
    no_doubles(&world, callers, &site).await
}

/// Puts the database's clock off by so many seconds.
fn set(cluster: &Cluster, control: &Path, seconds: i64) -> Outcome<()> {
    let new = control.with_extension("new");
    fs::write(&new, format!("{seconds:+}"))?;
    cluster.give(&new)?;
    Ok(fs::rename(new, control)?)
}

async fn no_doubles(world: &World, callers: crate::caller::Callers, site: &str) -> Outcome<()> {
    let verdict = world.judge(callers, &[site.to_owned()]).await?;
    if verdict.doubles() > 0 {
        return Err(format!("{} doubled by clocks", verdict.doubles()).into());
    }
    Ok(())
}

/// What has a program believe in other times: Debian's libfaketime.
fn library() -> Outcome<String> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let file: Option<PathBuf> =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
    let file = file.ok_or("libfaketime is missing: run `scripts/setup world`")?;
    Ok(format!("LD_PRELOAD={}", file.display()))
}
