//! Memory of the servers and size of the tables over time, and the report of it all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection as _, query_as};

use crate::Outcome;
use crate::caller::Ledger;
use crate::verdict::Verdict;
use crate::world::World;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;
/// Rows of the tables in the report, at most.
const ROWS: usize = 20;

/// A table of the database at one moment.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    live: i64,
    dead: i64,
    /// With its indexes and long values.
    bytes: i64,
}

/// One moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Duration,
    /// Resident bytes of each server that runs.
    resident: Vec<u64>,
    tables: Vec<Table>,
    accepted: usize,
    taken: usize,
}

/// All of them.
pub(super) struct Samples {
    begun: Instant,
    samples: Vec<Sample>,
}

impl Samples {
    /// The first one.
    pub(super) async fn begin(world: &World) -> Outcome<Self> {
        let mut samples = Self { begun: Instant::now(), samples: Vec::new() };
        samples.take(world, 0).await?;
        Ok(samples)
    }

    /// One more.
    pub(super) async fn take(&mut self, world: &World, accepted: usize) -> Outcome<()> {
        let mut connection = world.cluster.connect("postroom").await?;
        let query = query_as(
            "select relname::text, n_live_tup, n_dead_tup, pg_total_relation_size(relid)
             from pg_stat_user_tables
             order by relname",
        );
        let rows: Vec<(String, i64, i64, i64)> = query.fetch_all(&mut connection).await?;
        connection.close().await?;
        let tables = rows.into_iter().map(|(name, live, dead, bytes)| Table { name, live, dead, bytes });
        let resident = world.replicas.iter().flatten().filter_map(|replica| replica.resident().ok());
        self.samples.push(Sample {
            at: self.begun.elapsed(),
            resident: resident.collect(),
            tables: tables.collect(),
            accepted,
            taken: *world.catcher.count().borrow(),
        });
        Ok(())
    }

    /// What there is to tell.
    pub(super) fn report(
        self,
        world: &World,
        ledger: &Ledger,
        faults: &BTreeMap<&'static str, usize>,
        minutes: f64,
    ) -> Report {
        let faults = faults.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Report {
            seed: world.wishes.seed,
            minutes,
            faults,
            callers: crate::verdict::of_callers(ledger),
            samples: self.samples,
        }
    }
}

/// The report of a soak.
pub(super) struct Report {
    seed: u64,
    minutes: f64,
    faults: BTreeMap<String, usize>,
    callers: String,
    samples: Vec<Sample>,
}

impl Report {
    /// Prints it, and writes it into this folder as Markdown and as JSON.
    pub(super) fn write(&self, folder: &Path, outcome: Result<&Verdict, &str>) -> Outcome<()> {
        let text = self.markdown(outcome)?;
        println!("{text}");
        fs::create_dir_all(folder)?;
        fs::write(folder.join("soak.md"), text)?;
        fs::write(folder.join("soak.json"), format!("{}\n", self.json(outcome)))?;
        Ok(())
    }

    fn markdown(&self, outcome: Result<&Verdict, &str>) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "# Soak: {} minutes, seed {}\n", self.minutes, self.seed)?;
        match outcome {
            Ok(verdict) => {
                writeln!(text, "| what | letters |\n|---|---:|")?;
                writeln!(text, "| accepted | {} |", verdict.accepted)?;
                for (state, count) in &verdict.states {
                    writeln!(text, "| of them {state} | {count} |")?;
                }
                writeln!(text, "| transactions taken by the mail server | {} |", verdict.transactions)?;
                writeln!(text, "| **lost** | **{}** |", verdict.lost.len() + verdict.claimed.len())?;
                writeln!(text, "| **copies too many** | **{}** |", verdict.doubles())?;
                for (cause, count) in &verdict.doubled {
                    writeln!(text, "| of them: {cause} | {count} |")?;
                }
                writeln!(text, "| of them at sites that hold | {} |", verdict.doubled_though_held)?;
                writeln!(text, "| most attempts of a letter | {} |", verdict.most_attempts)?;
            }
            Err(error) => writeln!(text, "NOT as it must be: {error}")?,
        }
        writeln!(text, "\nCallers: {}.\n", self.callers)?;
        writeln!(text, "| event | times |\n|---|---:|")?;
        for (fault, count) in &self.faults {
            writeln!(text, "| {fault} | {count} |")?;
        }
        writeln!(text, "\nMemory and tables over time (MiB; rows that are dead and wait for vacuum):\n")?;
        let names = self.largest();
        write!(text, "| min | accepted | taken | servers, resident |")?;
        for name in &names {
            write!(text, " {name} | dead |")?;
        }
        writeln!(text, "\n|---:|---:|---:|---|{}", "---:|---:|".repeat(names.len()))?;
        let every = self.samples.len().div_ceil(ROWS).max(1);
        let last = self.samples.len().saturating_sub(1);
        for (_, sample) in self.samples.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last) {
            let resident: Vec<_> =
                sample.resident.iter().map(|bytes| format!("{:.1}", mib(*bytes))).collect();
            let minutes = sample.at.as_secs_f64() / 60.0;
            write!(
                text,
                "| {minutes:.1} | {} | {} | {} |",
                sample.accepted,
                sample.taken,
                resident.join(", ")
            )?;
            for name in &names {
                let table = sample.tables.iter().find(|table| &table.name == name);
                let (bytes, dead) = table.map_or((0, 0), |table| (table.bytes, table.dead));
                write!(text, " {:.2} | {dead} |", mib(u64::try_from(bytes).unwrap_or_default()))?;
            }
            writeln!(text)?;
        }
        Ok(text)
    }

    /// The queue and the largest other tables.
    fn largest(&self) -> Vec<String> {
        let Some(last) = self.samples.last() else { return Vec::new() };
        let mut tables: Vec<&Table> = last.tables.iter().filter(|table| table.name != "queue").collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        let others = tables.into_iter().take(4).map(|table| table.name.clone());
        ["queue".to_owned()].into_iter().chain(others).collect()
    }

    fn json(&self, outcome: Result<&Verdict, &str>) -> Value {
        let samples: Vec<Value> = self.samples.iter().map(of_sample).collect();
        let verdict = match outcome {
            Ok(verdict) => json!({
                "accepted": verdict.accepted,
                "states": verdict.states,
                "transactions": verdict.transactions,
                "lost": verdict.lost.len() + verdict.claimed.len(),
                "doubled": verdict.doubles(),
                "doubled_by_cause":
                    verdict.doubled.iter().map(|(cause, count)| (cause.to_string(), *count)).collect::<BTreeMap<_, _>>(),
                "doubled_though_held": verdict.doubled_though_held,
                "most_attempts": verdict.most_attempts,
            }),
            Err(error) => json!({ "error": error }),
        };
        json!({
            "seed": self.seed,
            "minutes": self.minutes,
            "verdict": verdict,
            "faults": self.faults,
            "callers": self.callers,
            "samples": samples,
        })
    }
}

fn of_sample(sample: &Sample) -> Value {
    let tables: BTreeMap<&str, Value> = sample
        .tables
        .iter()
        .map(|table| {
            (table.name.as_str(), json!({ "live": table.live, "dead": table.dead, "bytes": table.bytes }))
        })
        .collect();
    json!({
        "seconds": sample.at.as_secs(),
        "resident": sample.resident,
        "accepted": sample.accepted,
        "taken": sample.taken,
        "tables": tables,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
