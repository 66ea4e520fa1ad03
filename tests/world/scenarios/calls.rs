//! CASES 50: calls that are given up at a random moment, again and again: their letter is stored once or not at all, and the
//! same request id tells which.

use postroom::api::proto::OnUncertain;

use crate::Outcome;
use crate::caller::Kinds;
use crate::site::Nature;
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// How often each call is given up before somebody waits for the answer.
const GIVEN_UP: u32 = 4;

/// What to do, how often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Letters
    #[arg(long, default_value_t = 3_000)]
    letters: usize,
}

/// Gives calls up.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let mut world = World::new(wishes, &QUICK).await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, 4);
    let site = world.make_site("calls", &nature).await?;
    let kinds = Kinds { given_up: GIVEN_UP, ..Kinds::small(std::slice::from_ref(&site), nature.accounts) };
    let callers = world.callers(CALLERS, &kinds);
    callers.allow(options.letters);
    let ledger = callers.finish().await;
    let verdict = world.judge_ledger(&ledger, &[site]).await?;
    if ledger.again.get("given up").is_none_or(|count| *count < options.letters) {
        return Err("hardly a call was given up: nothing was tried".into());
    }
    if verdict.doubles() > 0 {
        return Err(format!("{} doubled by calls that were given up", verdict.doubles()).into());
    }
    Ok(())
}
