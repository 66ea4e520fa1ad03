//! A host that the operator forbids after accounts were saved: their mail waits, and nothing is tried any more.

use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::{Account, CheckAccountRequest};

use super::{Calls, demand_failed, demand_refused};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, patiently, plain_account};

const FROM: &str = "shop@example.com";

/// Forbids by one option; then lifts it.
async fn forbidden_by(change: impl FnOnce(&mut Options)) {
    let server = Behaviour::default().start().await;
    let mut postroom = Postroom::start().await;
    let saved = postroom.create_account(plain_account(&server, FROM)).await;
    let sent = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    let before = server.journal().connections;
    let allowing = postroom.options();

    postroom.restart_with(change).await;
    let calls = Calls(postroom.channel(&postroom.key));
    let waiting = calls.send(FROM).await;
    let parking = eventually("parked", async || calls.parked().await.pop()?.parking).await;
    assert_eq!(parking.reason(), Reason::Configuration);
    assert!(parking.error.contains("are not allowed (HOST_NOT_ALLOWED)"), "{parking:?}");
    assert!(parking.error.contains("operator of this service"), "{parking:?}");
    // The probes of a parked account are refused, too.
    eventually("a later probe", async || {
        (calls.parked().await.pop()?.parking?.until != parking.until).then_some(())
    })
    .await;
    // Between two probes.
    calls.wait_for(&waiting, State::Queued).await;

    demand_failed(&calls.check(Target::Name(saved.name.clone())).await, &saved.host);
    // A result that passed under the other policy does not count any more.
    let request = CheckAccountRequest {
        parent: SITE.to_owned(),
        target: Some(Target::Name(saved.name.clone())),
        max_age: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..CheckAccountRequest::default()
    };
    let check = async || calls.accounts().check_account(request.clone()).await;
    let response = patiently(check).await.expect("an answer");
    demand_failed(&response, &saved.host);
    let change = |active| Account { name: saved.name.clone(), active: Some(active), ..Account::default() };
    let renamed = Account { sender_name: "The shop".to_owned(), ..change(true) };
    demand_refused(&calls.update(renamed, false).await.expect_err("forbidden"), &saved.host, server.port());
    calls.update(change(false), false).await.expect("it can be switched off");
    demand_refused(
        &calls.update(change(true), false).await.expect_err("forbidden"),
        &saved.host,
        server.port(),
    );
    assert_eq!(server.journal().connections, before, "nothing was tried");

    postroom.restart_with(|options| *options = allowing).await;
    let calls = Calls(postroom.channel(&postroom.key));
    calls.update(change(true), false).await.expect("allowed again");
    calls.wait_for(&waiting, State::Sent).await;
    assert_eq!(server.journal().letters.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_refused_later() {
    forbidden_by(|options| options.egress_deny = "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_no_longer_allowed() {
    forbidden_by(|options| options.egress_allow = Some("127.0.0.2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_refused_later() {
    forbidden_by(|options| options.egress_deny_hosts = "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_other_hosts_are_allowed_later() {
    forbidden_by(|options| options.egress_allow_hosts = "*.example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_no_longer_allowed() {
    // No test's server listens at these: they are not among those that the system gives.
    forbidden_by(|options| options.egress_ports = Some("1-1023")).await;
}
