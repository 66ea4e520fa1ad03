//! Each connection is an open file, and systems begin with a limit of 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the server opens besides connections of clients: the database, mail servers, files.
const OTHERS: u64 = 512;

/// Raises the limit of open files so that so many connections can be taken; warns where the system does not allow it.
pub fn raise_limit(max_connections: usize) {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            return;
        }
    };
    if soft >= wanted {
        return;
    }
    let raised = wanted.min(hard);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        tracing::warn!(%error, soft, "the limit of open files cannot be raised");
    } else if raised < wanted {
        tracing::warn!(limit = raised, wanted, "the limit of open files is too low for --max-connections");
    }
}
