//! Postfix's `smtp-source`, which writes letters to a mail server over as many sessions as it is told.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::Outcome;
use crate::letters::{Letters, sender};

/// Sends so many letters over so many sessions, which stay open; how long until the last was accepted.
pub(crate) async fn send(
    letters: &Letters,
    to: SocketAddr,
    count: usize,
    sessions: usize,
) -> Outcome<Duration> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("letter");
    std::fs::write(&file, letters.file(0))?;
    let program = "/usr/sbin/smtp-source";
    let program = if Path::new(program).exists() { program } else { "smtp-source" };
    let mut command = Command::new(program);
    command.args(["-d", "-s", &sessions.to_string(), "-m", &count.to_string(), "-f", &sender(0)]);
    // -N: a number before each recipient, so that no two are the same.
    command.args(["-N", "-t", "reader@customers.example", "-F"]).arg(&file).arg(to.to_string());
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).kill_on_drop(true).status().await?;
    if status.success() { Ok(start.elapsed()) } else { Err(format!("smtp-source: {status}").into()) }
}
