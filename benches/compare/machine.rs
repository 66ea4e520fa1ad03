//! The machine, and the programs that were measured on it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Outcome;

/// How long the disk is asked to make writes durable.
const SYNCS: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Of the folder where the queues are.
    pub(crate) file_system: String,
    /// Writes of 4 KiB, one after the other, each made durable by `fdatasync`.
    pub(crate) syncs_per_second: f64,
    /// Processes that wanted to run in the minute before: what else goes on takes from every figure.
    pub(crate) load: f64,
    pub(crate) versions: Versions,
}

#[derive(Debug, Serialize)]
pub(crate) struct Versions {
    pub(crate) postroom: String,
    pub(crate) postgres: String,
    pub(crate) postfix: String,
    pub(crate) node: String,
    pub(crate) nodemailer: String,
    pub(crate) rustc: String,
}

impl Machine {
    pub(crate) fn describe(folder: &Path) -> Outcome<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: memory.trim_end_matches(" kB").parse::<u64>()? / 1024,
            kernel: said("uname", &["-sr"]),
            file_system: said("stat", &["--file-system", "--format=%T", &folder.to_string_lossy()]),
            syncs_per_second: syncs(folder)?,
            load: field("/proc/loadavg", "").split(' ').next().unwrap_or_default().parse()?,
            versions: Versions {
                postroom: said(env!("CARGO_BIN_EXE_postroom"), &["--version"]),
                postgres: said(
                    "sh",
                    &[
                        "-c",
                        "\"$(ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1 )\" --version",
                    ],
                ),
                postfix: said("/usr/sbin/postconf", &["-dh", "mail_version"]),
                node: said("node", &["--version"]),
                nodemailer: crate::nodemailer::version().unwrap_or_default(),
                rustc: said("rustc", &["--version"]),
            },
        })
    }

    /// In a few lines of Markdown.
    pub(crate) fn in_words(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, file_system, syncs_per_second, load, versions } = self;
        let Versions { postroom, postgres, postfix, node, nodemailer, rustc } = versions;
        format!(
            "- {cpu}, {cores} cores, {memory_mib} MiB, {kernel}, {file_system}, {syncs_per_second:.0} durable writes of 4 KiB a second, \
             load {load:.1} before the run\n\
             - {postroom}, {rustc}, {postgres}, Postfix {postfix}, Node {node}, Nodemailer {nodemailer}\n"
        )
    }
}

/// What a program says in its first line; nothing where it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn syncs(folder: &Path) -> Outcome<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let page = [0x5a; 4096];
    let start = Instant::now();
    let mut count = 0.0;
    while start.elapsed() < SYNCS {
        file.write_all(&page)?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(count / start.elapsed().as_secs_f64())
}
