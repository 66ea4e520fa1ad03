//! CASES 55: connections to the database break before a question reached it, or after it was done and before its answer
//! came back.

use std::time::Duration;

use postroom::api::proto::OnUncertain;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::caller::Kinds;
use crate::catcher::Mood;
use crate::postgres::Cluster;
use crate::proxy::Proxy;
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// The longest the catcher takes for a letter, in milliseconds.
const SLOW: u32 = 10;
/// How often it is looked whether all is accepted.
const LOOK: Duration = Duration::from_millis(100);
/// How long the letters may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

/// What to do, how often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Letters
    #[arg(long, default_value_t = 5_000)]
    letters: usize,
    /// Round trips that are broken off, of 100,000
    #[arg(long, default_value_t = 300)]
    share: u32,
    /// The same of those that are a COMMIT
    #[arg(long, default_value_t = 5_000)]
    share_of_commits: u32,
}

/// Hands letters in while answers of the database are lost.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let mut world = World::new(wishes, &QUICK).await?;
    let proxy = Proxy::start(world.cluster.socket_file()).await?;
    world.program.use_url(Cluster::url_over(proxy.port()));
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("commits", &nature).await?;
    world.catcher.behave(Mood { slow: SLOW, ..Mood::default() });
    let small = Kinds::small(std::slice::from_ref(&site), nature.accounts);
    let kinds = Kinds { recipients: 2, mailings: 10, ..small };
    let callers = world.callers(CALLERS, &kinds);
    proxy.lose(options.share, options.share_of_commits);
    callers.allow(options.letters);
    while callers.open() > 0 {
        sleep(LOOK).await;
    }
    // Most of the way: the last ones may wait for a lease.
    let most = options.letters * 19 / 20;
    let mut count = world.catcher.count();
    timeout(PATIENCE, count.wait_for(|count| *count >= most)).await??;
    proxy.lose(0, 0);
    let verdict = world.judge(callers, &[site]).await?;
    let lost = proxy.lost();
    println!(
        "{} questions and {} answers were lost, {} of them to COMMIT",
        lost.questions, lost.answers, lost.commits
    );
    if lost.answers == 0 || lost.commits == 0 {
        return Err("no answer was lost: nothing was tried".into());
    }
    if verdict.doubles() > 0 {
        return Err(format!("{} doubled by lost answers of the database", verdict.doubles()).into());
    }
    Ok(())
}
