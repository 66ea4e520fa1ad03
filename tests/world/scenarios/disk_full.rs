//! CASES 53: the file system of the database is full, and after a while has room again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use postroom::api::proto::OnUncertain;
use tokio::time::sleep;

use crate::Outcome;
use crate::caller::Kinds;
use crate::catcher::Mood;
use crate::chronicle::Event;
use crate::postgres::Cluster;
use crate::process::Folder;
use crate::scenarios::failover::{goes_on, until_ready};
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Size of the file system: room for the cluster, its log and some thousand letters.
const SIZE: &str = "size=400m";
/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "POSTROOM_WORLD_OWN_MOUNTS";
/// Callers at once.
const CALLERS: usize = 16;
/// The longest the catcher takes for a letter, in milliseconds: some are waiting when the disk is full.
const SLOW: u32 = 100;
/// How long the load runs before.
const CALM: Duration = Duration::from_secs(5);
/// How long the disk stays full, once readiness has fallen.
const FULL: Duration = Duration::from_secs(15);
/// What was claimed before the disk was full may be sent within this.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// What is full.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// The write-ahead log lies elsewhere: PostgreSQL does not give up, and what needs no room goes on
    #[arg(long)]
    log_elsewhere: bool,
}

/// Goes on in a process with mounts of its own: nothing stays mounted, however it ends.
pub(crate) fn with_own_mounts() -> Outcome<()> {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err("a file system of its own can only be mounted by root".into());
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.env(OWN_MOUNTS, "1").exec().into())
}

/// A mounted file system, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Outcome<Self> {
        fs::create_dir(&path)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "postroom-world"]).arg(&path).status()?;
        if mounted.success() { Ok(Self(path)) } else { Err("tmpfs cannot be mounted".into()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Fills it, takes the room away whenever there is some again, and gives it back.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let disk = Folder::new()?;
    let mount = Mount::new(disk.path().join("disk"))?;
    let folder = Folder::new()?;
    // Segments of the log are written anew all the time, so that it needs room as well.
    let settings = ["max_wal_size=48MB", "min_wal_size=32MB", "shared_buffers=32MB"];
    let elsewhere = Folder::new()?;
    let log = options.log_elsewhere.then(|| elsewhere.path().join("log"));
    let mut cluster = Cluster::make_with_log(&mount.0, "primary", &settings, log.as_deref()).await?;
    cluster.start().await?;
    cluster.create_database().await?;
    let mut world = World::over(wishes, &QUICK, folder, cluster).await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("disk", &nature).await?;
    world.catcher.behave(Mood { slow: SLOW, ..Mood::default() });
    let small = Kinds::small(std::slice::from_ref(&site), nature.accounts);
    // Many of them become due while the disk is full.
    let kinds = Kinds { text: 8_192, later: 60, ..small };
    let callers = world.callers(CALLERS, &kinds);
    callers.allow(usize::MAX / 2);
    sleep(CALM).await;

    let filler = mount.0.join("filler");
    let begun = Instant::now();
    world.chronicle.note(Event::DatabaseGone);
    let (mut last, mut fallen, mut restarts) = (0, None, 0);
    let mut refused = None;
    let (mut taken, mut is_told) = (None, false);
    while fallen.is_none_or(|at: Instant| at.elapsed() < FULL) {
        fill(&filler)?;
        restarts += watch_over(&mut world.cluster)?;
        let again = callers.ledger().again.values().sum();
        if again > last && refused.is_none() {
            refused = Some(begun.elapsed());
        }
        last = again;
        let ready = world.replica()?.ready().await != Some(false);
        if !ready && fallen.is_none() {
            (fallen, is_told) = (Some(Instant::now()), true);
            println!("full: first call again after {refused:?}, readiness fell after {:?}", begun.elapsed());
        }
        if taken.is_none() && fallen.is_some_and(|at| at.elapsed() > UNDER_WAY) {
            taken = Some(*world.catcher.count().borrow());
        }
        if fallen.is_none() && begun.elapsed() > 4 * FULL {
            println!(
                "readiness did not fall within {:?}; calls again {:?}",
                begun.elapsed(),
                callers.ledger().again
            );
            fallen = Some(Instant::now());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let sent = *world.catcher.count().borrow() - taken.unwrap_or_default();
    fs::remove_file(&filler)?;
    let freed = Instant::now();
    restarts += watch_over(&mut world.cluster)?;
    let took = goes_on(&world, &callers, freed).await?;
    world.chronicle.note(Event::DatabaseBack);
    println!(
        "{sent} letters sent while it was full; PostgreSQL gave up {restarts} times; all well {took:?} after there was room"
    );
    sleep(CALM).await;
    callers.enough();
    until_ready(&world, true).await?;
    let (slowest, without) = {
        let ledger = callers.ledger();
        (ledger.slowest_no, ledger.without_retry_info)
    };
    println!("slowest UNAVAILABLE {slowest:?}, without RetryInfo {without}");
    let verdict = world.judge(callers, &[site]).await?;
    if !is_told {
        return Err("readiness did not fall".into());
    }
    if verdict.doubles() > 0 || sent > 0 {
        return Err(
            format!("{} doubled, {sent} sent while nothing could be recorded", verdict.doubles()).into()
        );
    }
    Ok(())
}

/// Takes whatever room there is.
fn fill(filler: &Path) -> Outcome<()> {
    let mut file = File::options().create(true).append(true).open(filler)?;
    for size in [1 << 20, 1 << 12] {
        let block = vec![b'x'; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Starts the database again where it gave up, as its supervisor does; 1 where it did.
fn watch_over(cluster: &mut Cluster) -> Outcome<usize> {
    if cluster.runs() {
        return Ok(0);
    }
    // In vain as long as there is no room; then the next look tries again.
    cluster.launch()?;
    Ok(1)
}
