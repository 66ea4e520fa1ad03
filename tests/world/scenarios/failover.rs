//! CASES 53: the database fails over to its synchronous standby, and what was the address of a primary leads to one that
//! can only be read.

use std::time::{Duration, Instant};

use postroom::api::proto::OnUncertain;
use tokio::time::sleep;

use crate::Outcome;
use crate::caller::{Callers, Kinds};
use crate::catcher::Mood;
use crate::chronicle::Event;
use crate::postgres::Cluster;
use crate::process::Folder;
use crate::proxy::Proxy;
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// The longest the catcher takes for a letter, in milliseconds.
const SLOW: u32 = 20;
/// How soon it must go on once there is a primary (CASES 53).
const RISE: Duration = Duration::from_secs(15);
/// How long the load runs before, between and behind the events.
const CALM: Duration = Duration::from_secs(5);
/// How long whoever watches the primary takes to notice.
const NOTICED: Duration = Duration::from_secs(2);
/// How often it is looked whether readiness fell or rose.
const LOOK: Duration = Duration::from_millis(20);
/// How long the rig waits for what must come much sooner.
const PATIENCE: Duration = Duration::from_mins(2);

/// How the primary goes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Its connections are not closed: the machine itself is gone
    #[arg(long)]
    silent: bool,
}

/// A failover, then an address that leads to a standby, then a primary that was made read-only.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    // Outlives those who live in it; the other one goes with the world.
    let standbys = Folder::new()?;
    let folder = Folder::new()?;
    let mut primary = Cluster::make(folder.path(), "primary", &[]).await?;
    primary.start().await?;
    primary.create_database().await?;
    let follow = |leader: &Cluster| {
        format!("primary_conninfo=host={} user=postgres application_name=standby", leader.socket().display())
    };
    let mut standby = Cluster::standby_of(&primary, standbys.path(), "standby", &[&follow(&primary)]).await?;
    standby.start().await?;
    for statement in ["alter system set synchronous_standby_names = 'standby'", "select pg_reload_conf()"] {
        primary.execute(statement).await?;
    }
    let proxy = Proxy::start(primary.socket_file()).await?;
    let mut world = World::over(wishes, &QUICK, folder, primary).await?;
    world.program.use_url(Cluster::url_over(proxy.port()));
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("failover", &nature).await?;
    world.catcher.behave(Mood { slow: SLOW, ..Mood::default() });
    let kinds = Kinds::small(std::slice::from_ref(&site), nature.accounts);
    let callers = world.callers(CALLERS, &kinds);
    // As many as they can hand in, until the end.
    callers.allow(usize::MAX / 2);
    sleep(CALM).await;

    let is_synchronous =
        "do $$ begin if not exists (select from pg_stat_replication where sync_state = 'sync') then
        raise 'there is no synchronous standby'; end if; end $$";
    world.cluster.execute(is_synchronous).await?;
    if options.silent {
        proxy.freeze();
    }
    world.chronicle.note(Event::DatabaseGone);
    world.cluster.kill().await?;
    let fell = until_ready(&world, false).await?;
    sleep(NOTICED).await;
    let promoted = Instant::now();
    standby.promote().await?;
    println!("the promotion itself took {:?}", promoted.elapsed());
    proxy.lead_to(standby.socket_file());
    let took = goes_on(&world, &callers, promoted).await?;
    world.chronicle.note(Event::DatabaseBack);
    println!("failover: readiness fell after {fell:?}, writing again {took:?} after the promotion began");
    sleep(CALM).await;

    // The address leads to a standby: connections are answered, nothing can be written.
    let mut second = Cluster::standby_of(&standby, standbys.path(), "second", &[&follow(&standby)]).await?;
    second.start().await?;
    world.chronicle.note(Event::DatabaseGone);
    proxy.lead_to(second.socket_file());
    let fell = until_ready(&world, false).await?;
    sleep(CALM).await;
    let back = Instant::now();
    proxy.lead_to(standby.socket_file());
    let took = goes_on(&world, &callers, back).await?;
    world.chronicle.note(Event::DatabaseBack);
    println!("standby at the address: readiness fell after {fell:?}, writing again after {took:?}");
    sleep(CALM).await;

    // The primary stays, its connections too; only writing is refused.
    world.chronicle.note(Event::DatabaseGone);
    for statement in ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"] {
        standby.execute(statement).await?;
    }
    let fell = until_ready(&world, false).await?;
    sleep(CALM).await;
    let back = Instant::now();
    let off = "set default_transaction_read_only = off";
    for statement in ["alter system reset default_transaction_read_only", "select pg_reload_conf()"] {
        standby.execute_after(off, statement).await?;
    }
    let took = goes_on(&world, &callers, back).await?;
    world.chronicle.note(Event::DatabaseBack);
    println!("read-only primary: readiness fell after {fell:?}, writing again after {took:?}");
    sleep(CALM).await;
    callers.enough();
    let verdict = world.judge(callers, &[site]).await?;
    if verdict.doubles() > 0 {
        return Err(format!("{} doubled although no server was killed", verdict.doubles()).into());
    }
    Ok(())
}

/// Waits until all servers say that they are ready, or that they are not; how long that took.
pub(crate) async fn until_ready(world: &World, wanted: bool) -> Outcome<Duration> {
    let start = Instant::now();
    for replica in world.replicas.iter().flatten() {
        while replica.ready().await != Some(wanted) {
            if start.elapsed() > PATIENCE {
                return Err(format!("readiness of server {} is not {wanted}", replica.number).into());
            }
            sleep(LOOK).await;
        }
    }
    Ok(start.elapsed())
}

/// Waits until letters are accepted and the servers are ready again; how long that took since then. An error where it is
/// longer than it may be.
pub(crate) async fn goes_on(world: &World, callers: &Callers, since: Instant) -> Outcome<Duration> {
    while callers.ledger().last.is_none_or(|last| last <= since) {
        if since.elapsed() > PATIENCE {
            return Err("nothing is accepted any more".into());
        }
        sleep(LOOK).await;
    }
    until_ready(world, true).await?;
    let took = since.elapsed();
    if took > RISE { Err(format!("it took {took:?} until all was well again").into()) } else { Ok(took) }
}
