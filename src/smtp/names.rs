//! From a host name to its addresses: by the system's resolver, with bounds on how much of it is in use at once.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Look-ups of one process at once. Each holds a thread until the name server has answered or the system has given up,
/// long after the session's deadline, and the process has 512 of them for everything (tokio's default).
const IN_FLIGHT: usize = 128;
/// Look-ups of one host at once, so that hundreds of accounts at a host whose name server is dead leave threads for the
/// others.
const IN_FLIGHT_PER_HOST: usize = 4;

/// Answers for a host name.
pub type Answers = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Who knows the addresses of names.
#[derive(Clone, Default)]
pub enum Names {
    /// The system's resolver.
    #[default]
    System,
    /// This function, which may block. For tests, which have no name server.
    Answered(Arc<Answers>),
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Answered(_) => "Answered",
        })
    }
}

impl Names {
    fn ask(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                Ok((host, 0).to_socket_addrs()?.map(|address: SocketAddr| address.ip()).collect())
            }
            Self::Answered(answers) => answers(host),
        }
    }
}

/// Why a name has no answer.
pub(super) enum Unanswered {
    /// The resolver said so.
    Failed(io::Error),
    /// It said nothing in time, or too many look-ups were before this one.
    TimedOut,
}

/// The look-ups of a process.
#[derive(Debug)]
pub(super) struct LookUps {
    names: Names,
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl LookUps {
    pub(super) fn new(names: Names) -> Self {
        Self { names, all: Arc::new(Semaphore::new(IN_FLIGHT)), hosts: Mutex::default() }
    }

    /// The addresses of a host, each once, in the resolver's order.
    pub(super) async fn look_up(&self, host: &str, within: Duration) -> Result<Vec<IpAddr>, Unanswered> {
        let answer = async {
            // That of the host first: who waits for it keeps no other host waiting.
            let of_host = self.of_host(host).acquire_owned().await;
            let of_all = Arc::clone(&self.all).acquire_owned().await;
            let (names, host) = (self.names.clone(), host.to_owned());
            // A look-up that nobody waits for any more still has its thread; so it keeps its places, too.
            let asked = spawn_blocking(move || {
                let _places = (of_host, of_all);
                names.ask(&host)
            });
            asked.await.map_err(io::Error::other)?
        };
        let found = match timeout(within, answer).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Unanswered::Failed(error)),
            Err(_) => return Err(Unanswered::TimedOut),
        };
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(found.len());
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    fn of_host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = hosts.get(host).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(IN_FLIGHT_PER_HOST));
        hosts.insert(host.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Duration;

    use super::{IN_FLIGHT_PER_HOST, LookUps, Names, Unanswered};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// `dead.example` has a name server that does not answer until it is let go.
    #[tokio::test]
    async fn a_dead_name_server_keeps_no_other_name_waiting() {
        let state = Arc::new((Mutex::new((0, false)), Condvar::new()));
        let asked = Arc::clone(&state);
        let names = Names::Answered(Arc::new(move |host| {
            if host == "dead.example" {
                let (lock, changed) = &*asked;
                lock.lock().expect("no panic").0 += 1;
                let state = lock.lock().expect("no panic");
                drop(changed.wait_while(state, |(_, let_go)| !*let_go).expect("no panic"));
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
        }));
        let look_ups = LookUps::new(names);
        // Far more than there are threads; all of them are given up.
        for _ in 0..600 {
            let dead = look_ups.look_up("dead.example", Duration::from_millis(1)).await;
            assert!(matches!(dead, Err(Unanswered::TimedOut)));
        }
        let found = look_ups.look_up("live.example", PATIENCE).await.unwrap_or_default();
        assert_eq!(found, [Ipv4Addr::LOCALHOST]);
        let (lock, changed) = &*state;
        let in_flight = {
            let mut state = lock.lock().expect("no panic");
            state.1 = true;
            state.0
        };
        assert!((1..=IN_FLIGHT_PER_HOST).contains(&in_flight), "{in_flight} look-ups at once");
        changed.notify_all();
        // Their places come free again.
        let found = look_ups.look_up("dead.example", PATIENCE).await.unwrap_or_default();
        assert_eq!(found, [Ipv4Addr::LOCALHOST]);
    }

    #[tokio::test]
    async fn the_resolver_s_error_is_told() {
        let names = Names::Answered(Arc::new(|_| Err(std::io::Error::other("no such name"))));
        let failed = LookUps::new(names).look_up("none.example", PATIENCE).await;
        assert!(matches!(failed, Err(Unanswered::Failed(error)) if error.to_string() == "no such name"));
    }
}
