//! Nodemailer's pool, in a Node of its own; it remembers nothing and tries nothing again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::Outcome;
use crate::letters::Letters;

/// Sessions for the rate. Node has one thread; more of them do not make it faster.
const CONNECTIONS: usize = 20;

/// Letters a second.
pub(crate) async fn rate(letters: &Letters, to: SocketAddr, count: usize) -> Outcome<f64> {
    let seconds: f64 = run(letters, to, "rate", count, CONNECTIONS, Duration::ZERO).await?;
    Ok(f64::from(u32::try_from(count)?) / seconds)
}

/// Sends one by one with this gap between two; the seconds from each call to the server's reply to the letter, which is
/// about a tenth of a millisecond more than to its receipt.
pub(crate) async fn one_by_one(
    letters: &Letters,
    to: SocketAddr,
    count: usize,
    gap: Duration,
) -> Outcome<Vec<f64>> {
    run(letters, to, "latency", count, 1, gap).await
}

/// Its version, where it is installed.
pub(crate) fn version() -> Outcome<String> {
    let text = std::fs::read_to_string(tools().join("node_modules/nodemailer/package.json"))?;
    let package: serde_json::Value = serde_json::from_str(&text)?;
    Ok(package["version"].as_str().ok_or("no version")?.to_owned())
}

/// Where scripts/setup puts it.
fn tools() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/nodemailer")
}

async fn run<T: DeserializeOwned>(
    letters: &Letters,
    to: SocketAddr,
    what: &str,
    count: usize,
    connections: usize,
    gap: Duration,
) -> Outcome<T> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("text");
    std::fs::write(&file, letters.text(0))?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/compare/nodemailer.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(tools()).arg(to.ip().to_string()).arg(to.port().to_string());
    command
        .args([what, &count.to_string(), &connections.to_string(), &gap.as_millis().to_string()])
        .arg(&file);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(format!("Nodemailer failed ({}); run scripts/setup bench", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
