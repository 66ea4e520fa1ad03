//! Hosts by name: those that are refused, and the only ones that are not.

use postroom::api::proto::Account;
use postroom::smtp::Names;

use super::{Calls, account, demand_refused, inactive};
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, plain_account};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_refused_and_allowed_by_name() {
    let options = Options {
        egress_allow_hosts: "*.example.com,smtp.gmail.com,bücher.example,127.0.0.1",
        egress_deny_hosts: "bad.example.com,*.worse.example.com",
        smtp_names: Names::Answered(std::sync::Arc::new(|host| panic!("{host} was looked up"))),
        ..Options::default()
    };
    let postroom = Postroom::start_with(options).await;
    let calls = Calls(postroom.channel(&postroom.key));
    for host in [
        "mail.example.com",
        "MAIL.Example.com.",
        "ｍａｉｌ。example．com",
        "xn--bcher-kva.example",
        "Bücher.example",
        "worse.example.com",
        "127.0.0.1",
        "0x7f.1",
    ] {
        let saved = calls.create(inactive(account(host, 25, "shop@example.com")), false).await;
        saved.unwrap_or_else(|refused| panic!("{host}: {refused:?}"));
    }
    for host in [
        "example.com",
        "example.org",
        "xexample.com",
        "mail.example.com.example.org",
        "bad.example.com",
        "BAD.example.com.",
        "ｂａｄ。example.com",
        "b\u{ad}ad.example.com",
        "a.worse.example.com",
        "a.b.WORSE.example.com",
        "127.0.0.2",
        "localhost",
        "8.8.8.8",
    ] {
        let wanted = account(host, 25, "shop@example.com");
        for wanted in [wanted.clone(), inactive(wanted)] {
            demand_refused(&calls.create(wanted, false).await.expect_err(host), host, 25);
        }
    }
}

/// The host of the table of providers is judged as any other, also where the account does not name it.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_host_is_judged_like_any_other() {
    let postroom =
        Postroom::start_with(Options { egress_deny_hosts: "smtp.gmail.com", ..Options::default() }).await;
    let calls = Calls(postroom.channel(&postroom.key));
    let wanted =
        Account { sender_email: "ann@gmail.com".to_owned(), active: Some(false), ..Account::default() };
    let refused = calls.create(wanted, false).await.expect_err("refused");
    let port = crate::support::variable(&refused, "port").parse().expect("a port");
    demand_refused(&refused, "smtp.gmail.com", port);
    assert_eq!(crate::support::variable(&refused, "host"), "smtp.gmail.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_a_forbidden_host_is_refused_also_where_nothing_is_tried() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let calls = Calls(postroom.channel(&postroom.key));
    let saved = postroom.create_account(inactive(plain_account(&server, "shop@example.com"))).await;
    for validate_only in [false, true] {
        let change = Account { name: saved.name.clone(), host: "10.0.0.1".to_owned(), ..Account::default() };
        let refused = calls.update(change, validate_only).await.expect_err("forbidden");
        demand_refused(&refused, "10.0.0.1", server.port());
    }
    assert_eq!(server.journal().connections, 0);
}
