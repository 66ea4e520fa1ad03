//! What most scenarios need: a durable cluster, a catcher, servers over them, and the way from there to the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postroom::api::proto::OnUncertain;

use crate::Outcome;
use crate::caller::{Callers, Kinds, Ledger};
use crate::catcher::Catcher;
use crate::chronicle::{Chronicle, Event};
use crate::postgres::Cluster;
use crate::process::Folder;
use crate::replica::{Balancer, Program, Replica};
use crate::site::{self, Nature};
use crate::verdict::{self, Verdict};

/// How long what is on its way may take at the end, when nothing happens any more: a lease, and then some.
const SETTLING: Duration = Duration::from_mins(10);

/// Arguments of servers that stop and try again without waiting.
pub(crate) const QUICK: [&str; 4] = ["--drain-wait", "0s", "--retry-floor", "0s"];

/// What was asked for at the command line.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    /// The program to try.
    pub(crate) program: PathBuf,
    /// Where the servers' own logs go; nowhere, if it is not given.
    pub(crate) logs: Option<PathBuf>,
    /// Where all draws begin.
    pub(crate) seed: u64,
}

/// A small world. The fields are dropped in this order: first who uses something, then what is used.
pub(crate) struct World {
    pub(crate) replicas: Vec<Option<Replica>>,
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) program: Program,
    pub(crate) catcher: Catcher,
    pub(crate) cluster: Cluster,
    pub(crate) chronicle: Chronicle,
    pub(crate) wishes: Wishes,
    /// Sites that hold what is uncertain.
    held: Vec<String>,
    _folder: Folder,
}

impl World {
    /// A world with an empty database, and no server yet.
    pub(crate) async fn new(wishes: &Wishes, arguments: &[&str]) -> Outcome<Self> {
        let folder = Folder::new()?;
        let mut cluster = Cluster::make(folder.path(), "primary", &[]).await?;
        cluster.start().await?;
        cluster.create_database().await?;
        Self::over(wishes, arguments, folder, cluster).await
    }

    /// A world over a running cluster with an empty database.
    pub(crate) async fn over(
        wishes: &Wishes,
        arguments: &[&str],
        folder: Folder,
        cluster: Cluster,
    ) -> Outcome<Self> {
        let logs = wishes.logs.as_deref();
        let program =
            Program::prepare(&wishes.program, &cluster.url(), folder.path(), logs, arguments).await?;
        Ok(Self {
            replicas: Vec::new(),
            balancer: Arc::default(),
            program,
            catcher: Catcher::start(wishes.seed).await?,
            cluster,
            chronicle: Chronicle::default(),
            wishes: wishes.clone(),
            held: Vec::new(),
            _folder: folder,
        })
    }

    /// Starts a server at this place of the fleet.
    pub(crate) async fn start(&mut self, number: usize) -> Outcome<()> {
        self.start_in(number, &[]).await
    }

    /// The same by another program.
    pub(crate) async fn start_in(&mut self, number: usize, wrapper: &[&str]) -> Outcome<()> {
        let replica = self.program.start(number, wrapper).await?;
        self.balancer.join(&replica);
        if self.replicas.len() <= number {
            self.replicas.resize_with(number + 1, || None);
        }
        self.replicas[number] = Some(replica);
        Ok(())
    }

    /// Kills the server at this place.
    pub(crate) async fn kill(&mut self, number: usize) -> Outcome<()> {
        let replica = self.replicas[number].take().ok_or("no server to kill")?;
        self.chronicle.note(Event::Killed);
        // Callers find out by themselves, as with a load balancer that has not noticed yet.
        replica.kill().await
    }

    /// A server that runs.
    pub(crate) fn replica(&self) -> Outcome<&Replica> {
        self.replicas.iter().flatten().next().ok_or_else(|| "no server runs".into())
    }

    /// Makes a site with its accounts at the catcher.
    pub(crate) async fn make_site(&mut self, id: &str, nature: &Nature) -> Outcome<String> {
        let site = site::make(self.replica()?, id, nature, self.catcher.port()).await?;
        if nature.on_uncertain == OnUncertain::Hold {
            self.held.push(site.clone());
        }
        Ok(site)
    }

    /// Callers of these servers.
    pub(crate) fn callers(&self, count: usize, kinds: &Kinds) -> Callers {
        Callers::start(count, kinds, &self.balancer, self.wishes.seed)
    }

    /// Waits until everything has come to an end, and holds the ledgers against each other. An error where something is
    /// not as it must be.
    pub(crate) async fn judge(&self, callers: Callers, sites: &[String]) -> Outcome<Verdict> {
        self.judge_ledger(&callers.finish().await, sites).await
    }

    /// The same of callers that have finished.
    pub(crate) async fn judge_ledger(&self, ledger: &Ledger, sites: &[String]) -> Outcome<Verdict> {
        let settled = site::settle(self.replica()?, sites, SETTLING).await?;
        let letters = site::letters(self.replica()?, sites).await?;
        let verdict = Verdict::reach(ledger, &letters, &self.catcher, &self.chronicle, &self.held);
        println!("{verdict}");
        println!("{}", verdict::of_callers(ledger));
        println!(
            "{} kills, {} stops, {} outages of the database; settled {settled:?} after the last call",
            self.chronicle.count(Event::Killed),
            self.chronicle.count(Event::Stopped),
            self.chronicle.count(Event::DatabaseGone),
        );
        let faults = verdict.faults(ledger);
        if faults.is_empty() { Ok(verdict) } else { Err(faults.join("\n").into()) }
    }
}
