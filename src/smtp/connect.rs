//! From a host name to a TCP connection: resolved once, every address held against the policy, connected to what was checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::egress::{Forbidden, Leads, Policy, literal};
use super::failure::{Failure, FailureKind};
use super::names::{LookUps, Unanswered};
use super::printable;
use super::transcript::Transcript;
use crate::domain::account::Server;
use crate::domain::log::EntryKind;
use crate::domain::outcome::Step;

/// Addresses tried of one name; a name with more is tried in part.
const MAX_ADDRESSES: usize = 8;
/// Longest domain name in bytes (RFC 1035 2.3.4).
const MAX_HOST_BYTES: usize = 255;
/// The reason as the API names it, for those who read a report, a log or why an account is parked.
const NOT_ALLOWED: &str = "HOST_NOT_ALLOWED";
const ASK_THE_OPERATOR: &str =
    "use a public mail server; the operator of this service decides which others are allowed";

/// The addresses of the server, in the resolver's order, all of them allowed. What is forbidden by port, name or
/// literal address is refused without any packet, also to a name server.
pub(super) async fn resolve(
    egress: &Policy,
    look_ups: &LookUps,
    server: &Server,
    within: Duration,
    log: &Transcript,
) -> Result<Vec<SocketAddr>, Failure> {
    let leads = egress.judge(&server.host, server.port);
    let start = Instant::now();
    let addresses = match leads.map_err(|forbidden| not_allowed(server, forbidden))? {
        Leads::To(addresses) => addresses,
        Leads::ByName => look_up(look_ups, server, within).await?,
    };
    // One forbidden address is enough: a name that has public and private ones is made to get past a filter.
    if !addresses.iter().all(|address| egress.permits(*address)) {
        return Err(not_allowed(server, Forbidden::Host));
    }
    if literal(&server.host).is_none() {
        let names = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        let elapsed = start.elapsed().as_millis();
        log.record(EntryKind::Connection, format!("resolved {} to {names} in {elapsed} ms", server.host));
    }
    let socket = |address| SocketAddr::new(address, server.port);
    Ok(addresses.into_iter().take(MAX_ADDRESSES).map(socket).collect())
}

/// Refuses what resolving would refuse without a look-up.
pub(super) fn demand_allowed(egress: &Policy, server: &Server) -> Result<(), Failure> {
    let judged = egress.judge(&server.host, server.port);
    judged.map(|_| ()).map_err(|forbidden| not_allowed(server, forbidden))
}

async fn look_up(look_ups: &LookUps, server: &Server, within: Duration) -> Result<Vec<IpAddr>, Failure> {
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
    match look_ups.look_up(host, within).await {
        Ok(addresses) if addresses.is_empty() => {
            let what = format!("the name {host} has no address");
            Err(failed(FailureKind::Temporary, what, "check the host name"))
        }
        Ok(addresses) => Ok(addresses),
        Err(Unanswered::Failed(error)) => {
            let what = format!("the name {host} was not found: {}", printable::escape(error.to_string()));
            Err(failed(FailureKind::Temporary, what, "check the host name"))
        }
        Err(Unanswered::TimedOut) => {
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
                demand_peer(&stream, *address)?;
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

/// Refuses a connection that leads elsewhere than to the address that was checked.
fn demand_peer(stream: &TcpStream, checked: SocketAddr) -> Result<(), Failure> {
    let peer = stream.peer_addr().ok().map(|peer| (peer.ip(), peer.port()));
    // A peer that is gone already has no address any more; there is nobody left to say anything to.
    if peer.is_none_or(|peer| peer == (checked.ip(), checked.port())) {
        return Ok(());
    }
    let what = format!("the connection did not lead to {checked}, which was checked ({NOT_ALLOWED})");
    Err(Failure::other(Step::Connect, FailureKind::NotAllowed, what).with_advice(ASK_THE_OPERATOR))
}

/// What is not allowed, in the words that an answer, a parked account and a log have in common. No address that a name
/// led to is told: it would map the operator's network.
fn not_allowed(server: &Server, forbidden: Forbidden) -> Failure {
    let (what, advice) = match forbidden {
        Forbidden::Port => (
            format!("port {}", server.port),
            "use one of the ports the operator of this service allows, usually 465 or 587",
        ),
        Forbidden::Host => (printable::escape(server.host.clone()), ASK_THE_OPERATOR),
    };
    let what = format!("connections to {what} are not allowed ({NOT_ALLOWED})");
    Failure::other(Step::Resolve, FailureKind::NotAllowed, what).with_advice(advice)
}
