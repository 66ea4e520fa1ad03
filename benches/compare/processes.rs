//! What processes cost: CPU time and memory, read from /proc.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// `/proc` tells times in hundredths of a second (`USER_HZ`) on every machine that Rust's Linux targets run on.
const TICKS_A_SECOND: u64 = 100;

/// One process, as `/proc/PID/stat` tells of it.
struct Stat {
    parent: u32,
    /// Its own, and that of its children that have ended.
    ticks: u64,
}

/// CPU time that a process, its descendants, and those of them that have ended have taken so far.
pub(crate) fn cpu(root: u32) -> Duration {
    let stats = stats();
    let ticks: u64 = tree(root, &stats).iter().filter_map(|pid| stats.get(pid)).map(|stat| stat.ticks).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND)
}

/// Proportional set size of a process and its descendants, in bytes: memory that is shared counts in parts.
pub(crate) fn proportional(root: u32) -> u64 {
    tree(root, &stats()).iter().filter_map(|pid| kilobytes(*pid, "smaps_rollup", "Pss:")).sum::<u64>() * 1024
}

/// Resident bytes of one process.
pub(crate) fn resident(pid: u32) -> u64 {
    kilobytes(pid, "status", "VmRSS:").unwrap_or(0) * 1024
}

/// Most bytes of one process that were resident so far.
pub(crate) fn most_resident(pid: u32) -> u64 {
    kilobytes(pid, "status", "VmHWM:").unwrap_or(0) * 1024
}

/// Whether a process is there and not merely to be waited for.
pub(crate) fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

fn kilobytes(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn stats() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ends meanwhile is missing.
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn tree(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}
