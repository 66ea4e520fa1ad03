//! What happens at random.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::Outcome;
use crate::catcher::Mood;
use crate::chronicle::Event;
use crate::world::World;

/// How long a server that is asked to stop may take.
const STOP: Duration = Duration::from_secs(90);

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A server is killed, and started anew.
    Kill,
    /// A server is asked to stop, and started anew.
    Restart,
    /// The database stops at once, and is started anew.
    DatabaseCrash,
    /// The database is restarted as for an upgrade.
    DatabaseRestart,
    /// Both a server and the database go.
    Both,
    /// The mail server takes its time.
    Slow,
    /// It puts senders, recipients and letters off.
    Later,
    /// It refuses recipients and letters for good.
    Never,
    /// It cuts connections, before and behind the dot.
    Cuts,
    /// It is well again.
    Well,
}

impl Fault {
    /// One of them; trouble with the mail server comes more often than with all the rest.
    pub(super) fn draw(draws: &mut StdRng) -> Self {
        match draws.random_range(0..20) {
            0..3 => Self::Kill,
            3 => Self::Restart,
            4 => Self::DatabaseCrash,
            5 => Self::DatabaseRestart,
            6 => Self::Both,
            7..9 => Self::Slow,
            9..12 => Self::Later,
            12..14 => Self::Never,
            14..17 => Self::Cuts,
            _ => Self::Well,
        }
    }

    /// Its name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "server killed",
            Self::Restart => "server restarted",
            Self::DatabaseCrash => "database stopped at once",
            Self::DatabaseRestart => "database restarted",
            Self::Both => "server killed while the database is away",
            Self::Slow => "mail server slow",
            Self::Later => "mail server answers 4xx",
            Self::Never => "mail server answers 5xx",
            Self::Cuts => "mail server cuts connections",
            Self::Well => "mail server well",
        }
    }

    /// Lets it happen; returns when whoever went is back.
    pub(super) async fn happen(self, world: &mut World, draws: &mut StdRng) -> Outcome<()> {
        let number = draws.random_range(0..world.replicas.len());
        let away = Duration::from_millis(draws.random_range(0..3_000));
        match self {
            Self::Kill => {
                world.kill(number).await?;
                sleep(away / 4).await;
                world.start(number).await
            }
            Self::Restart => {
                let replica = world.replicas[number].take().ok_or("no server to stop")?;
                world.chronicle.note(Event::Stopped);
                let status = replica.stop(STOP).await?;
                if !status.success() {
                    return Err(format!("a server that was asked to stop ended with {status}").into());
                }
                world.start(number).await
            }
            Self::DatabaseCrash | Self::DatabaseRestart | Self::Both => {
                world.chronicle.note(Event::DatabaseGone);
                if matches!(self, Self::DatabaseRestart) {
                    world.cluster.stop().await?;
                } else {
                    world.cluster.stop_immediately().await?;
                }
                sleep(away).await;
                if matches!(self, Self::Both) {
                    world.kill(number).await?;
                }
                world.cluster.start().await?;
                world.chronicle.note(Event::DatabaseBack);
                if matches!(self, Self::Both) { world.start(number).await } else { Ok(()) }
            }
            Self::Slow | Self::Later | Self::Never | Self::Cuts | Self::Well => {
                world.catcher.behave(self.mood(draws));
                Ok(())
            }
        }
    }

    /// How the mail server is then; in ten thousandths of its answers.
    fn mood(self, draws: &mut StdRng) -> Mood {
        let well = Mood { slow: 5, ..Mood::default() };
        match self {
            Self::Slow => Mood { slow: draws.random_range(50..1_000), ..well },
            Self::Later => Mood {
                mail_later: draws.random_range(0..500),
                recipient_later: draws.random_range(0..2_000),
                dot_later: draws.random_range(0..1_000),
                ..well
            },
            Self::Never => Mood {
                recipient_never: draws.random_range(0..500),
                dot_never: draws.random_range(0..200),
                ..well
            },
            Self::Cuts => {
                Mood { cut_before: draws.random_range(0..300), cut_after: draws.random_range(0..300), ..well }
            }
            _ => well,
        }
    }
}

/// The end of all faults.
pub(super) async fn end(world: &mut World, servers: usize) -> Outcome<()> {
    world.catcher.behave(Mood::default());
    for number in 0..servers {
        if world.replicas.get(number).is_none_or(Option::is_none) {
            world.start(number).await?;
        }
    }
    Ok(())
}
