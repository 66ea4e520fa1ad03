//! From a host name to a TCP connection: resolved once, every address held against the policy, connected to what was checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::connector::Connector;
use super::egress::literal;
use super::failure::{Failure, FailureKind};
use super::printable;
use super::transcript::Transcript;
use crate::domain::account::Server;
use crate::domain::log::EntryKind;
use crate::domain::outcome::Step;

/// Addresses tried of one name; a name with more is tried in part.
const MAX_ADDRESSES: usize = 8;
/// Longest domain name in bytes (RFC 1035 2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// The allowed addresses of the server, in the resolver's order. A literal is judged without any packet.
pub(super) async fn resolve(
    connector: &Connector,
    server: &Server,
    within: Duration,
    log: &Transcript,
) -> Result<Vec<SocketAddr>, Failure> {
    if !connector.egress.permits_port(server.port) {
        return Err(not_allowed(
            format!("connections to port {} are not allowed", server.port),
            "use one of the ports the operator allows, usually 465 or 587",
        ));
    }
    let found = if let Some(address) = literal(&server.host) {
        vec![address]
    } else {
        let start = Instant::now();
        let found = look_up(server, within).await?;
        let names = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        let elapsed = start.elapsed().as_millis();
        log.record(EntryKind::Connection, format!("resolved {} to {names} in {elapsed} ms", server.host));
        found
    };
    let allowed: Vec<SocketAddr> = found
        .iter()
        .filter(|address| connector.egress.permits(**address))
        .take(MAX_ADDRESSES)
        .map(|address| SocketAddr::new(*address, server.port))
        .collect();
    if allowed.is_empty() {
        // The address itself is not told: it would map the operator's network.
        return Err(not_allowed(
            format!("connections to {} are not allowed", printable::escape(server.host.clone())),
            "use a public mail server; private addresses must be allowed by the operator",
        ));
    }
    Ok(allowed)
}

async fn look_up(server: &Server, within: Duration) -> Result<Vec<IpAddr>, Failure> {
    let failed =
        |kind, what: String, advice: &str| Failure::other(Step::Resolve, kind, what).with_advice(advice);
    let host = server.host.as_str();
    let well_formed = !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !well_formed {
        let shown = printable::escape(host.to_owned());
        return Err(failed(
            FailureKind::Permanent,
            format!("`{shown}` is no host name"),
            "correct the host name",
        ));
    }
    match timeout(within, lookup_host((host, server.port))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|address| address.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                let what = format!("the name {host} has no address");
                return Err(failed(FailureKind::Temporary, what, "check the host name"));
            }
            Ok(addresses)
        }
        Ok(Err(error)) => {
            let what = format!("the name {host} was not found: {}", printable::escape(error.to_string()));
            Err(failed(FailureKind::Temporary, what, "check the host name"))
        }
        Err(_) => {
            let what = format!("the name {host} was not resolved in time");
            Err(failed(FailureKind::Temporary, what, "check the host name and the name server"))
        }
    }
}

/// The first address that takes the connection, all of them within one deadline.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    within: Duration,
    log: &Transcript,
) -> Result<TcpStream, Failure> {
    let deadline = Instant::now() + within;
    let mut last = None;
    for (number, address) in addresses.iter().enumerate() {
        log.record(EntryKind::Connection, format!("connecting to {address}"));
        let start = Instant::now();
        // Each address gets its share of what is left, so that a dead one does not use up the time of the next.
        let left = u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        let share = start + deadline.saturating_duration_since(start) / left;
        let what = match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it each letter waits for the delayed acknowledgement of the one before: 44 ms.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was not set");
                }
                let elapsed = start.elapsed().as_millis();
                log.record(EntryKind::Connection, format!("connected to {address} in {elapsed} ms"));
                return Ok(stream);
            }
            Ok(Err(error)) => format!("no connection to {address}: {}", printable::escape(error.to_string())),
            Err(_) => format!("no connection to {address}: no answer in time"),
        };
        log.record(EntryKind::Connection, what.clone());
        last = Some(what);
    }
    let what = last.unwrap_or_else(|| "no address to connect to".to_owned());
    Err(Failure::other(Step::Connect, FailureKind::Temporary, what)
        .with_advice("check host and port, and that nothing between blocks this port"))
}

fn not_allowed(what: String, advice: &str) -> Failure {
    Failure::other(Step::Resolve, FailureKind::NotAllowed, what).with_advice(advice)
}
