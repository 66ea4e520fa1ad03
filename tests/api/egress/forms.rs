//! Every form of a forbidden address, in every call, with listeners on this machine that count: none is reached.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use postroom::api::proto::check_account_request::Target;
use tonic::Code;

use super::addresses::{ADDRESSES, NO_HOSTS};
use super::{
    Calls, Counter, account, demand_failed, demand_refused, inactive, leave_accounts, try_everything,
};
use crate::support::{Options, Postroom, bad_fields, reason};

/// With the first probe after a minute, so that an account that is parked stays so.
const NO_PROBE: Duration = Duration::from_mins(30);

/// CASES 38.
#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_a_forbidden_address_is_connected_to() {
    let counter = Counter::on_all_addresses(0).await;
    let port = counter.address.port();
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let options = Options { egress_allow: Some(""), retry_floor: NO_PROBE, ..Options::default() };
    let mut postroom = Postroom::start_with(options).await;
    let calls = Calls(postroom.channel(&postroom.key));
    let left = leave_accounts(&postroom, &calls, port).await;
    try_everything(&calls, &left, port).await;
    assert_eq!(counter.connections(own).await, 0);

    // The same listener is reached where it is allowed, so it was the policy that kept the others away.
    postroom.restart_with(|options| options.egress_allow = Some("127.0.0.0/8")).await;
    let calls = Calls(postroom.channel(&postroom.key));
    for host in ["127.0.0.1", "0x7f.1", "localhost", "１２７。０。０。１"] {
        calls.create(account(host, port, "shop@example.com"), false).await.expect_err("no greeting");
    }
    // Two of our own.
    assert_eq!(counter.connections(own).await, 4 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_host_is_a_bad_field() {
    let postroom = Postroom::start_with(Options { egress_allow: Some(""), ..Options::default() }).await;
    let calls = Calls(postroom.channel(&postroom.key));
    for host in NO_HOSTS {
        let wanted = account(host, 25, "shop@example.com");
        for wanted in [wanted.clone(), inactive(wanted)] {
            let refused = calls.create(wanted, false).await.expect_err(host);
            assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{host:?}");
            assert_eq!(bad_fields(&refused), ["account.host"], "{host:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_refused_at_once_whatever_the_host() {
    let counter = Counter::on_all_addresses(0).await;
    let port = counter.address.port();
    let options = Options { egress_ports: Some("25,465-587"), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let calls = Calls(postroom.channel(&postroom.key));
    for host in ["127.0.0.1", "localhost", "mail.example.com", ADDRESSES[1]] {
        for wrong in [port, 1, 24, 464, 588, 65_535] {
            let wanted = account(host, wrong, "shop@example.com");
            for wanted in [wanted.clone(), inactive(wanted.clone())] {
                demand_refused(&calls.create(wanted, false).await.expect_err(host), host, wrong);
            }
            demand_failed(&calls.check(Target::Account(Box::new(wanted))).await, host);
        }
    }
    for right in [25, 465, 500, 587] {
        let saved =
            calls.create(inactive(account("mail.example.com", right, "shop@example.com")), false).await;
        assert_eq!(saved.expect("allowed").port, u32::from(right));
    }
    assert_eq!(counter.connections(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await, 0);
}
