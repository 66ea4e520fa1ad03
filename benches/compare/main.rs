//! Postroom beside Postfix, Nodemailer and bare SMTP clients, on one machine in one run. Prints a table and keeps it in
//! benches/results; asserts nothing about figures. benches/README.md tells what each line means.

mod accept;
#[path = "../authorised/mod.rs"]
mod authorised;
mod end_to_end;
mod latency;
mod letters;
mod machine;
mod nodemailer;
#[path = "../one_session/mod.rs"]
mod one_session;
mod postfix;
mod postroom;
mod processes;
mod replicas;
mod report;
#[path = "../served/mod.rs"]
#[expect(dead_code, reason = "shared with the bench of abuse, which uses all of it")]
mod served;
mod session;
#[path = "../../tests/api/sink.rs"]
#[expect(dead_code, reason = "shared with tests/api, which uses all of it")]
mod sink;
mod smtp_client;
#[path = "../smtp_sink/mod.rs"]
mod smtp_sink;
mod source;
mod tail;
#[path = "../tailing/mod.rs"]
mod tailing;
mod waiting;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::postroom::domain::clock::Clock;
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use serde::Serialize;
use tempfile::TempDir;
use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use self::letters::Letters;
use self::machine::Machine;
use self::report::Line;
use self::smtp_sink::SmtpSink;

/// As the program has it: one session is measured in this process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Callers at once, and sessions of those who speak SMTP to Postfix.
pub(crate) const CALLERS: usize = 32;
/// How long letters may take to come before a run is given up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
/// How often the sink is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Compares Postroom with its peers.
#[derive(Parser)]
struct Options {
    /// Fewer letters and less time
    #[arg(long)]
    quick: bool,
    /// Only these measures
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Letters in a run of Postroom; the others get a part of that
    #[arg(long)]
    letters: Option<usize>,
    /// How long a snapshot is held while letters go on [default: 10, with --quick 1]
    #[arg(long, value_name = "MINUTES")]
    snapshot_minutes: Option<u64>,
    /// Folder for the queues and the database; its disk is what is measured
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    EndToEnd,
    Accept,
    Session,
    Idle,
    Loaded,
    Tail,
    Replicas,
    Waiting,
}

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) letters: Arc<Letters>,
    pub(crate) letters_of_postroom: usize,
    pub(crate) letters_of_others: usize,
    /// For latency at idle.
    pub(crate) letters_one_by_one: usize,
    /// For latency under load.
    pub(crate) loaded_for: Duration,
    /// For tails: letters to a slow server.
    pub(crate) slow_letters: usize,
    /// Letters that wait, more each time.
    pub(crate) waiting: Vec<usize>,
    /// How long a snapshot is held.
    pub(crate) snapshot: Duration,
}

#[derive(Serialize)]
struct Results<'a> {
    time: String,
    quick: bool,
    letters: usize,
    machine: &'a Machine,
    lines: &'a [Line],
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    FOLDER.set(options.folder.clone()).map_err(|_| "the folder is set already")?;
    tokio::select! {
        // Dropped half way, all that was started ends.
        result = run(&options) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn run(options: &Options) -> Outcome<()> {
    let letters = options.letters.unwrap_or(if options.quick { 8_000 } else { 20_000 });
    let plan = Plan {
        letters: Arc::new(Letters::new()),
        letters_of_postroom: letters,
        letters_of_others: (letters * 3 / 20).max(1),
        letters_one_by_one: if options.quick { 300 } else { 1_000 },
        loaded_for: Duration::from_secs(if options.quick { 5 } else { 20 }),
        slow_letters: if options.quick { 4 } else { 10 },
        waiting: if options.quick { vec![0, 100_000] } else { vec![0, 100_000, 1_000_000] },
        snapshot: Duration::from_mins(options.snapshot_minutes.unwrap_or(if options.quick { 1 } else { 10 })),
    };
    let machine = Machine::describe(&options.folder)?;
    println!("{}", machine.in_words());
    let mut lines = Vec::new();
    for measure in Measure::value_variants() {
        if !options.only.is_empty() && !options.only.contains(measure) {
            continue;
        }
        let start = Instant::now();
        let more = match measure {
            Measure::EndToEnd => end_to_end::measure(&plan).await?,
            Measure::Accept => accept::measure(&plan).await?,
            Measure::Session => session::measure(&plan).await?,
            Measure::Idle => latency::idle(&plan).await?,
            Measure::Loaded => {
                let full = match end_to_end::measured(&lines) {
                    Some(rate) => rate,
                    None => end_to_end::rate(&plan).await?,
                };
                latency::loaded(&plan, full).await?
            }
            Measure::Tail => tail::measure(&plan).await?,
            Measure::Replicas => replicas::measure(&plan).await?,
            Measure::Waiting => waiting::measure(&plan).await?,
        };
        eprintln!("{measure:?} took {:.0} s", start.elapsed().as_secs_f64());
        lines.extend(more);
    }
    let table = report::table(&lines);
    println!("{table}");
    let name = match (options.only.is_empty(), options.quick) {
        (true, false) => "full",
        (true, true) => "quick",
        (false, _) => "part",
    };
    let time = clock().now().format(&Rfc3339)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    std::fs::create_dir_all(&folder)?;
    let words = format!("{time}, {letters} letters\n\n{}\n{table}", machine.in_words());
    std::fs::write(folder.join(format!("{name}.md")), words)?;
    let results = Results { time, quick: options.quick, letters, machine: &machine, lines: &lines };
    let json = serde_json::to_string_pretty(&results)?;
    std::fs::write(folder.join(format!("{name}.json")), json + "\n")?;
    eprintln!("kept in benches/results/{name}.md and {name}.json");
    Ok(())
}

static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// A new folder on the disk that is measured.
pub(crate) fn folder() -> Outcome<TempDir> {
    let parent = FOLDER.get().ok_or("no folder")?;
    Ok(tempfile::Builder::new().prefix("postroom-bench").tempdir_in(parent)?)
}

/// The time of day.
pub(crate) fn clock() -> Clock {
    Clock::default()
}

/// Waits until the sink has taken so many letters.
pub(crate) async fn wait_for(sink: &SmtpSink, letters: usize) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    while sink.letters()? < letters {
        if Instant::now() > deadline {
            return Err(format!("only {} of {letters} letters came", sink.letters()?).into());
        }
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

pub(crate) fn per_second(letters: usize, elapsed: Duration) -> f64 {
    u32::try_from(letters).map_or(f64::INFINITY, f64::from) / elapsed.as_secs_f64()
}
