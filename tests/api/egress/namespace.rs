//! The same once more where every packet can be seen: in a network namespace of its own, in which each address of the
//! world is this machine. The test runs itself again in there.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use postroom::api::proto::check_account_request::Target;
use tokio::process::Command;
use tokio::time::timeout;

use super::addresses::forbidden;
use super::{Calls, Counter, account, leave_accounts, try_everything};
use crate::eventually::eventually;
use crate::support::{Options, Postroom, database};

/// Says that the test runs inside, and which database it has: PostgreSQL is outside, behind its Unix socket.
const INSIDE: &str = "POSTROOM_TEST_NAMESPACE";
/// The same name as below, as the test binary knows it.
const NAME: &str = "egress::namespace::no_packet_leaves";
/// Every address of both families leads to the loopback interface; then the test.
const SETUP: &str = "set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
if [ -e /proc/net/if_inet6 ]; then ip -6 route add local ::/0 dev lo; fi
exec \"$@\"";
const PATIENCE: Duration = Duration::from_mins(5);
const PORT: u16 = 25;

/// How to get a namespace: as root, or as an ordinary user where the system lets him.
async fn unshare() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    for way in ways {
        let setup = ["--", "sh", "-c", SETUP, "sh", "true"];
        let mut tried = Command::new("unshare");
        tried.args(way).args(setup).stdout(Stdio::null()).stderr(Stdio::null());
        if tried.status().await.is_ok_and(|status| status.success()) {
            return Some(way);
        }
    }
    None
}

/// CASES 38: no packet sent.
#[tokio::test(flavor = "multi_thread")]
async fn no_packet_leaves() {
    if let Ok(database_url) = std::env::var(INSIDE) {
        inside(database_url).await;
        return;
    }
    let Some(way) = unshare().await else {
        // Past the test harness, which keeps what a test prints that passes.
        let loud = "\nNOT TESTED: this machine permits no network namespace (unshare --net, ip), so that packets to \
                    forbidden addresses were not counted; egress::forms counted connections to this machine\n\n";
        std::io::stderr().write_all(loud.as_bytes()).expect("standard error");
        return;
    };
    let mut again = Command::new("unshare");
    again.args(way).args(["--", "sh", "-c", SETUP, "sh"]);
    again.arg(std::env::current_exe().expect("this program"));
    again.args(["--exact", NAME, "--nocapture"]).env(INSIDE, database().await);
    again.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, again.output()).await.expect("an end in time").expect("unshare");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed") && told.contains("connections begun"), "nothing was run: {told}");
    println!("{told}");
}

/// Connections that were begun in this namespace, over both families, whatever became of them.
fn begun() -> u64 {
    let snmp = std::fs::read_to_string("/proc/net/snmp").expect("counters");
    let mut rows = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let column = names.split(' ').position(|name| name == "ActiveOpens").expect("the counter");
    values.split(' ').nth(column).expect("its value").parse().expect("a number")
}

async fn inside(database_url: String) {
    let counter = Counter::on_all_addresses(PORT).await;
    let options = Options {
        egress_allow: Some(""),
        egress_ports: Some("25,465,587,2525"),
        retry_floor: Duration::from_mins(30),
        database_url: Some(database_url),
        ..Options::default()
    };
    let postroom = Postroom::start_with(options).await;
    let calls = Calls(postroom.channel(&postroom.key));
    let left = leave_accounts(&postroom, &calls, PORT).await;

    let before = begun();
    try_everything(&calls, &left, PORT).await;
    let after = begun();
    println!("{} forms in 7 ways: {} connections begun", forbidden().len(), after - before);
    assert_eq!(after, before);
    assert_eq!(counter.connections(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).await, 0);

    // Public addresses are allowed, and lead here as well: each is seen by both.
    let mut hosts = vec!["8.8.8.8", "134744072"];
    if counter.address.ip().is_ipv6() && std::path::Path::new("/proc/net/if_inet6").exists() {
        hosts.push("2001:4860:4860::8888");
    }
    for (number, host) in hosts.iter().enumerate() {
        let before = begun();
        let target = Target::Account(Box::new(account(host, PORT, "shop@example.com")));
        calls.check(target).await;
        assert_eq!(begun(), before + 1, "{host}");
        // One more was our own.
        let reached = || counter.accepted.lock().expect("no panic").len();
        eventually("counted", async || (reached() >= number + 2).then_some(())).await;
    }
    // So would forbidden ones be, from a program that does not ask the policy.
    for forbidden in ["10.0.0.1", "169.254.169.254", "192.168.1.1", "100.100.100.200"] {
        let address: IpAddr = forbidden.parse().expect("an address");
        let before = begun();
        tokio::net::TcpStream::connect((address, PORT)).await.expect("it leads here");
        assert_eq!(begun(), before + 1, "{forbidden}");
    }
}
