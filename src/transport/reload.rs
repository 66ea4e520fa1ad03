//! Certificates are exchanged while the server runs: new connections get the new one, those that exist go on.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::expiry;
use super::tls::{Contents, Tls, TlsError};
use crate::domain::clock::Clock;

/// Files are read so often. By content, not by time: a mounted secret is exchanged by turning a symbolic link.
const POLL: Duration = Duration::from_secs(1);
/// An end that is near is told so often.
const TELL_END: Duration = Duration::from_hours(24);

/// What a look at the files gave: their hash, or what kept them from being read.
type Seen = Result<[u8; 32], String>;

/// Watches the files until it is dropped.
pub(super) async fn run(tls: &Tls, clock: &Clock) {
    let mut used: Seen = Ok(tls.first());
    // Files are written one behind the other: what is new counts when it is the same at two looks.
    let mut last = used.clone();
    expiry::tell(tls.current().end, clock.now());
    let mut told = Instant::now();
    loop {
        sleep(POLL).await;
        let Some(contents) = look(tls).await else { continue };
        let seen = contents.as_ref().map(Contents::hash).map_err(ToString::to_string);
        if seen == last && seen != used {
            used.clone_from(&seen);
            match exchange(tls, contents) {
                Ok(end) => {
                    tracing::info!(until = end.map(tracing::field::display), "the certificate was exchanged");
                    expiry::tell(end, clock.now());
                    told = Instant::now();
                }
                Err(error) => tracing::error!(
                    %error,
                    "the certificate cannot be exchanged; the one that was read before goes on"
                ),
            }
        }
        last = seen;
        if told.elapsed() >= TELL_END {
            expiry::tell(tls.current().end, clock.now());
            told = Instant::now();
        }
    }
}

/// From now on handshakes use these contents; the end of the new certificate's time.
fn exchange(tls: &Tls, contents: Result<Contents, TlsError>) -> Result<Option<OffsetDateTime>, TlsError> {
    let current = contents?.parse(tls.files())?;
    let end = current.end;
    tls.exchange(current);
    Ok(end)
}

/// Reads the files, off the threads that serve: a network file system may hang.
async fn look(tls: &Tls) -> Option<Result<Contents, TlsError>> {
    let tls = tls.clone();
    let looked = tokio::task::spawn_blocking(move || Contents::read(tls.files())).await;
    looked.inspect_err(|error| tracing::error!(%error, "looking at the certificate failed")).ok()
}
