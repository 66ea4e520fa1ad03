//! Tables for the egress policy: what is forbidden in which form, and what is not.

#[path = "../../../tests/api/egress/addresses.rs"]
#[expect(dead_code, reason = "the tests of the API need more of it")]
mod addresses;

use std::fmt::Debug;
use std::str::FromStr;

use self::addresses::ADDRESSES;
use super::{ElementError, Forbidden, HostPattern, Leads, Network, Policy, Ports, literal};

#[test]
fn what_is_forbidden_by_default() {
    let policy = Policy::default();
    for host in ADDRESSES {
        let address = literal(host).unwrap_or_else(|| panic!("{host} is an address"));
        assert!(!policy.permits(address), "{host} is {address}");
    }
}

#[test]
fn the_system_resolver_reads_no_number_otherwise() {
    use std::net::ToSocketAddrs as _;
    // Whatever the system takes for an address without asking a name server, `literal` must take for the same one.
    for host in ADDRESSES.iter().filter(|host| !host.contains(['[', ':']) && !host.ends_with('.')) {
        if let Ok(mut found) = (*host, 25).to_socket_addrs() {
            assert_eq!(found.next().map(|address| address.ip()), literal(host), "{host}");
        }
    }
}

#[test]
fn what_is_allowed_by_default() {
    let policy = Policy::default();
    for host in [
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "223.255.255.255",
        "134744072",
        "0x08080808",
        "2606:4700::1111",
        "2a00:1450:4001::1a",
        "2001:4860:4860::8888",
        "2001:200::1",
    ] {
        let address = literal(host).unwrap_or_else(|| panic!("{host} is an address"));
        assert!(policy.permits(address), "{host} is {address}");
    }
    assert!([25, 465, 587, 2525].iter().all(|port| policy.permits_port(*port)));
    assert!([0, 1, 22, 80, 143, 2526, 65535].iter().all(|port| !policy.permits_port(*port)));
}

#[test]
fn names_are_no_addresses() {
    for host in [
        "smtp.example.com",
        "localhost",
        "1.2.3.4.5",
        "256.256.256.256",
        "1.2.3.256",
        "4294967296",
        "0x1g",
        "08.1.1.1",
        "1..2",
        "",
        ".",
        "-1",
        "+1",
        "fe80::1%eth0",
        "1.2.3.4.example.com",
        "0xffffffffff",
        "1.16777216",
    ] {
        assert_eq!(literal(host), None, "{host}");
    }
}

/// A list as an operator writes it.
fn list<T: FromStr<Err: Debug>>(text: &str) -> Vec<T> {
    text.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().expect("an element")).collect()
}

#[test]
fn what_the_operator_allows() {
    let policy = Policy {
        allow: list("127.0.0.0/8,10.1.2.3,fd00::/8,64:ff9b::/96,64:ff9b:1::/48,2001::/32,2002::/16"),
        ports: list("25,1024-2000"),
        ..Policy::default()
    };
    let permits = |host: &str| policy.permits(literal(host).expect("an address"));
    for host in [
        "127.9.9.9",
        "10.1.2.3",
        "fd12::1",
        "8.8.8.8",
        "::ffff:127.0.0.1",
        "64:ff9b::8.8.8.8",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "2002:808:808::1",
        // A Teredo client at 8.8.8.8, its server at 1.1.1.1.
        "2001:0:101:101::f7f7:f7f7",
        "2a00::5efe:8.8.8.8",
    ] {
        assert!(permits(host), "{host}");
    }
    for host in [
        "10.1.2.4",
        "128.0.0.1.1",
        "fe80::1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "::ffff:10.0.0.1",
        "::1",
        "2002:a00:1::1",
        "2001:0:101:101::f5ff:fffe",
        "2001:0:a00:1::f7f7:f7f7",
        "2a00::5efe:10.0.0.1",
        "2a00::200:5efe:169.254.169.254",
        "fd00::5efe:10.0.0.1",
    ] {
        assert!(literal(host).is_none_or(|address| !policy.permits(address)), "{host}");
    }
    assert!([25, 1024, 1500, 2000].iter().all(|port| policy.permits_port(*port)));
    assert!([0, 24, 465, 1023, 2001].iter().all(|port| !policy.permits_port(*port)));
}

#[test]
fn only_addresses_of_no_host_are_forbidden_to_everybody() {
    let everything = Policy { allow: list("0.0.0.0/0,::/0"), ..Policy::default() };
    let forbidden: Vec<&str> = ADDRESSES
        .into_iter()
        .filter(|host| literal(host).is_some_and(|address| !everything.permits(address)))
        .collect();
    // Among them a Teredo address whose server, and one of NAT64 whose last 32 bits, are 0.0.0.0.
    assert_eq!(forbidden, ["0.0.0.0", "0", "0x", "::", "2001::1", "::ffff:0.0.0.0", "64:ff9b:1:a00:1::"]);
}

#[test]
fn what_is_refused_is_refused_whatever_is_allowed() {
    let policy = Policy {
        allow: list("10.0.0.0/8,fd00::/8,64:ff9b::/96"),
        deny: list("10.9.0.0/16,8.8.8.0/24,::ffff:9.9.9.9/128,2a00::/16,fd00::1"),
        ..Policy::default()
    };
    let permits = |host: &str| policy.permits(literal(host).expect("an address"));
    for host in
        ["10.8.0.1", "8.8.9.1", "9.9.9.8", "2a01::1", "fd00::2", "::ffff:10.8.0.1", "64:ff9b::10.8.0.1"]
    {
        assert!(permits(host), "{host}");
    }
    for host in [
        "10.9.0.1",
        "8.8.8.8",
        "134744072",
        "9.9.9.9",
        "2a00::1",
        "fd00::1",
        "::ffff:10.9.0.1",
        "64:ff9b::10.9.0.1",
        "64:ff9b::8.8.8.8",
        "2a01::5efe:8.8.8.8",
    ] {
        assert!(!permits(host), "{host}");
    }
    // The more specific network does not win: what is refused stays refused.
    let policy = Policy { allow: list("10.9.1.1"), deny: list("10.0.0.0/8"), ..Policy::default() };
    assert!(!policy.permits([10, 9, 1, 1].into()));
}

#[test]
fn hosts_are_compared_as_names_are() {
    let policy = Policy {
        allow_hosts: list("mail.example.com,*.Example.ORG.,bücher.example,8.8.8.8"),
        deny_hosts: list("bad.example.org,*.worse.example.org"),
        ..Policy::default()
    };
    for host in [
        "mail.example.com",
        "MAIL.Example.Com.",
        "ｍａｉｌ。example．com",
        "a.example.org",
        "a.b.example.org",
        "worse.example.org",
        "xn--bcher-kva.example",
        "BÜCHER.example",
    ] {
        assert_eq!(policy.judge(host, 25), Ok(Leads::ByName), "{host}");
    }
    assert_eq!(policy.judge("0x08080808", 25), Ok(Leads::To(vec![[8, 8, 8, 8].into()])));
    for host in [
        "example.com",
        "xmail.example.com",
        "a.mail.example.com",
        "mail.example.com.evil.example",
        "example.org",
        "xexample.org",
        "bad.example.org",
        "BAD.example.org.",
        "ｂａｄ.example.org",
        "x.worse.example.org",
        "8.8.4.4",
        "localhost",
        "",
        ".",
    ] {
        assert_eq!(policy.judge(host, 25), Err(Forbidden::Host), "{host}");
    }
    assert_eq!(policy.judge("mail.example.com", 26), Err(Forbidden::Port));
    assert_eq!(Policy::default().judge("anything.example", 25), Ok(Leads::ByName));
}

#[test]
fn localhost_is_this_machine_whatever_a_name_server_says() {
    let hosts = ["localhost", "LocalHost.", "a.localhost", "ⓛocalhost", "local\u{ad}host", "localhost。"];
    let here = Policy { allow: list("127.0.0.1"), ..Policy::default() };
    for host in hosts {
        assert_eq!(Policy::default().judge(host, 25), Err(Forbidden::Host), "{host}");
        assert_eq!(here.judge(host, 25), Ok(Leads::To(vec![[127, 0, 0, 1].into()])), "{host}");
    }
    assert_eq!(Policy::default().judge("localhost.example.com", 25), Ok(Leads::ByName));
}

#[test]
fn elements_that_cannot_be_read() {
    for text in [
        "10.0.0.0/33",
        "10.0.0/8",
        "::/129",
        "example.com",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "/8",
        "fe80::1%eth0",
    ] {
        assert_eq!(text.parse::<Network>(), Err(ElementError::Network(text.to_owned())));
    }
    for text in ["0", "65536", "587-465", "-1", "25-", "smtp", "1-2-3", "+25", ""] {
        assert_eq!(text.parse::<Ports>(), Err(ElementError::Port(text.to_owned())));
    }
    for text in [
        "",
        ".",
        "*",
        "*.",
        "a.*.example",
        "*example.com",
        "a..b",
        "a b",
        "user@example.com",
        "a/24",
        "*.10.0.0.1",
        "a:25",
    ] {
        assert_eq!(text.parse::<HostPattern>(), Err(ElementError::Host(text.to_owned())));
    }
}
