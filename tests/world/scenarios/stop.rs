//! CASES 52: two servers are replaced one after the other under load, as a rollout does.

use std::time::{Duration, Instant};

use postroom::api::proto::OnUncertain;
use tokio::time::sleep;

use crate::Outcome;
use crate::caller::Kinds;
use crate::catcher::Mood;
use crate::chronicle::Event;
use crate::site::Nature;
use crate::world::{Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// The longest the catcher takes for a letter, in milliseconds.
const SLOW: u32 = 40;
/// How long a stop may wait for calls and sessions, in seconds.
const GRACE: u64 = 30;
/// Letters that are accepted between two stops.
const BETWEEN: usize = 300;
/// How long they may take on a busy machine.
const WITHIN: Duration = Duration::from_mins(2);

/// What to do, how often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Restarts of each of the two servers
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Stops and starts one server after the other; an error where one was cut off, or a letter was lost or doubled.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let grace = format!("{GRACE}s");
    let mut world =
        World::new(wishes, &["--drain-wait", "1s", "--shutdown-grace", &grace, "--retry-floor", "0s"])
            .await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("stop", &nature).await?;
    world.catcher.behave(Mood { slow: SLOW, ..Mood::default() });
    let small = Kinds::small(std::slice::from_ref(&site), nature.accounts);
    let kinds = Kinds { recipients: 3, mailings: 20, ..small };
    let callers = world.callers(CALLERS, &kinds);
    let mut longest = Duration::ZERO;
    for round in 0..options.rounds {
        for number in 0..2 {
            callers.allow(2 * BETWEEN);
            let start = Instant::now();
            while callers.open() > BETWEEN {
                if start.elapsed() > WITHIN {
                    return Err(
                        format!("{} letters are not accepted within {WITHIN:?}", callers.open()).into()
                    );
                }
                sleep(Duration::from_millis(5)).await;
            }
            let replica = world.replicas[number].take().ok_or("no server to stop")?;
            world.chronicle.note(Event::Stopped);
            let start = Instant::now();
            // The load balancer hears of it by the health, a moment later.
            let leaving = async {
                sleep(Duration::from_millis(500)).await;
                world.balancer.leave(number);
            };
            let (status, ()) = tokio::join!(replica.stop(Duration::from_secs(GRACE + 30)), leaving);
            let (status, took) = (status?, start.elapsed());
            longest = longest.max(took);
            if !status.success() || took > Duration::from_secs(GRACE) {
                return Err(
                    format!("round {round}: server {number} ended with {status} after {took:?}").into()
                );
            }
            world.start(number).await?;
        }
    }
    println!("the longest stop took {longest:?}, of which 1 s waits for load balancers");
    let verdict = world.judge(callers, &[site]).await?;
    if verdict.doubles() > 0 {
        return Err(format!("{} doubled by stops in order", verdict.doubles()).into());
    }
    Ok(())
}
