//! Names that lead to forbidden addresses: always, beside allowed ones, or from the second look-up on.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{Account, check};
use postroom::smtp::Names;

use super::{Calls, Counter, account, demand_failed, demand_refused, inactive};
use crate::eventually::eventually;
use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, variable};

const HOST: &str = "mail.example.com";
const FROM: &str = "shop@example.com";
/// The only address besides the public ones that may be reached,
const ALLOWED: &str = "127.0.0.1";
/// and one that may not, though it is of this machine, too.
const FORBIDDEN: &str = "127.0.0.2";

/// A name server for every name, whose answers a test changes.
#[derive(Clone, Default)]
struct NameServer(Arc<Mutex<(Vec<IpAddr>, Vec<String>)>>);

impl NameServer {
    fn names(&self) -> Names {
        let state = Arc::clone(&self.0);
        Names::Answered(Arc::new(move |host| {
            let mut state = state.lock().expect("no panic");
            state.1.push(host.to_owned());
            Ok(state.0.clone())
        }))
    }

    fn answer(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.0.lock().expect("no panic").0 = addresses;
    }

    fn asked(&self) -> usize {
        self.0.lock().expect("no panic").1.len()
    }
}

/// A server at the allowed address, and a counter at the forbidden one, at the same port.
struct Rig {
    server: Server,
    counter: Counter,
    name_server: NameServer,
    postroom: Postroom,
    calls: Calls,
}

impl Rig {
    async fn start() -> Self {
        let (server, counter) = loop {
            let server = Behaviour::default().start().await;
            // Another test may have the port at all addresses.
            if let Ok(counter) = Counter::bind(forbidden(server.port())).await {
                break (server, counter);
            }
        };
        let name_server = NameServer::default();
        let options =
            Options { egress_allow: Some(ALLOWED), smtp_names: name_server.names(), ..Options::default() };
        let postroom = Postroom::start_with(options).await;
        let calls = Calls(postroom.channel(&postroom.key));
        Self { server, counter, name_server, postroom, calls }
    }

    fn account(&self) -> Account {
        account(HOST, self.server.port(), FROM)
    }

    async fn at_the_forbidden_address(&self) -> usize {
        self.counter.connections(self.counter.address).await
    }
}

fn forbidden(port: u16) -> SocketAddr {
    SocketAddr::new(FORBIDDEN.parse().expect("an address"), port)
}

/// CASES 38: allowed when the account is saved, forbidden when a letter is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_between_check_and_use() {
    let rig = Rig::start().await;
    let Rig { server, name_server, postroom, calls, .. } = &rig;
    name_server.answer(&[ALLOWED]);
    let saved = postroom.create_account(rig.account()).await;
    let before = server.journal().connections;
    assert_eq!(before, 1, "the check went to the allowed address");

    name_server.answer(&[FORBIDDEN]);
    let waiting = calls.send(FROM).await;
    let parking = eventually("parked", async || calls.parked().await.pop()?.parking).await;
    assert_eq!(parking.reason(), Reason::Configuration);
    assert!(parking.error.contains(HOST) && parking.error.contains("(HOST_NOT_ALLOWED)"), "{parking:?}");
    // Its probes come every 200 ms, and ask again each time.
    let asked = name_server.asked();
    eventually("three probes", async || (name_server.asked() >= asked + 3).then_some(())).await;
    calls.wait_for(&waiting, State::Queued).await;

    let response = calls.check(Target::Name(saved.name.clone())).await;
    demand_failed(&response, HOST);
    let change = Account { name: saved.name.clone(), sender_name: "Shop".to_owned(), ..Account::default() };
    // A new sender's address is proven before it is saved.
    let change = Account { sender_email: "other@example.com".to_owned(), ..change };
    let refused = calls.update(change, false).await.expect_err("forbidden now");
    demand_refused(&refused, HOST, server.port());
    assert_eq!(variable(&refused, "host"), HOST);
    let refused_at_once = calls.create(rig.account(), false).await.expect_err("forbidden now");
    demand_refused(&refused_at_once, HOST, server.port());

    // Where the name leads is told to nobody: it would map the operator's network.
    let mut told = format!("{parking:?} {response:?} {refused:?} {refused_at_once:?}");
    for log in ["send-admin-1", "check-admin-1", "check-admin-0"] {
        told += &postroom.download(log).await;
    }
    assert!(told.contains("HOST_NOT_ALLOWED") && !told.contains(FORBIDDEN), "{told}");
    assert_eq!(server.journal().connections, before);
    assert_eq!(rig.at_the_forbidden_address().await, 0);

    name_server.answer(&[ALLOWED]);
    calls.wait_for(&waiting, State::Sent).await;
    // A control: the counter counts what comes to the forbidden address.
    tokio::net::TcpStream::connect(rig.counter.address).await.expect("a connection");
    assert_eq!(rig.at_the_forbidden_address().await, 2);
}

/// Each connection asks once, and goes to the very address that was judged: an answer that changes each time does not
/// get between.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_changes_each_time() {
    let mut rig = Rig::start().await;
    let asked = Arc::new(Mutex::new(0_usize));
    let counted = Arc::clone(&asked);
    let names = Names::Answered(Arc::new(move |_| {
        let mut asked = counted.lock().expect("no panic");
        *asked += 1;
        let address = if *asked % 2 == 1 { ALLOWED } else { FORBIDDEN };
        Ok(vec![address.parse().expect("an address")])
    }));
    rig.postroom.restart_with(|options| options.smtp_names = names).await;
    rig.calls = Calls(rig.postroom.channel(&rig.postroom.key));
    // One after another of either kind; a busy store may have had some of them repeated.
    let asked = || *asked.lock().expect("no panic");
    while asked() < 10 {
        let response = rig.calls.check(Target::Account(Box::new(rig.account()))).await;
        if asked() % 2 == 1 {
            assert_eq!(response.check.expect("set").state(), check::State::Passed, "look-up {}", asked());
        } else {
            demand_failed(&response, HOST);
        }
    }
    // One look-up, one connection.
    assert_eq!(rig.server.journal().connections, asked().div_ceil(2));
    assert_eq!(rig.at_the_forbidden_address().await, 0);
}

/// A name that has a forbidden address beside an allowed one is made to get past a filter.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_allowed_and_forbidden_addresses() {
    let rig = Rig::start().await;
    let Rig { server, name_server, calls, .. } = &rig;
    let others = [
        FORBIDDEN,
        "::1",
        "::ffff:127.0.0.2",
        "10.0.0.1",
        "169.254.169.254",
        "fd00:ec2::254",
        "fe80::1",
        "64:ff9b::7f00:2",
        "0.0.0.0",
        "::",
    ];
    for other in others {
        // The last one beyond the number of addresses that are tried.
        let many = [&[ALLOWED; 1][..], &["8.8.8.8"; 1], &[other]].concat();
        let far: Vec<String> = (1..=20).map(|last| format!("9.9.9.{last}")).collect();
        let far: Vec<&str> = far.iter().map(String::as_str).chain([other]).collect();
        for answer in [&[ALLOWED, other][..], &[other, ALLOWED], &many, &far, &[other]] {
            name_server.answer(answer);
            let refused = calls.create(rig.account(), false).await.expect_err(other);
            demand_refused(&refused, HOST, server.port());
            demand_failed(&calls.check(Target::Account(Box::new(rig.account()))).await, other);
        }
    }
    assert_eq!(server.journal().connections, 0);
    assert_eq!(rig.at_the_forbidden_address().await, 0);

    // What is saved unchecked is not looked up.
    let asked = name_server.asked();
    calls.create(inactive(rig.account()), false).await.expect("its name is allowed");
    assert_eq!(name_server.asked(), asked);
    // Without the forbidden address the same name works.
    name_server.answer(&[ALLOWED, ALLOWED]);
    calls.create(rig.account(), false).await.expect("allowed");
    assert_eq!(server.journal().connections, 1);
}
