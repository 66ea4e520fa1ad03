//! How much of the database a server takes.

use std::time::Duration;

use nix::sys::signal::Signal;
use postroom::api::proto::{CreateSiteRequest, ListSitesRequest};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tonic::Code;

use crate::binary::{DataDir, Serving, run};
use crate::eventually::eventually;
use crate::support::{PATIENCE, database, reason};

/// Calls that all want to write at once.
const CALLS: usize = 12;
/// Connections for calls, for delivery, and those of the heartbeat and of the word between servers.
const CONNECTIONS: i64 = 3 + 1 + 2;

/// Somebody holds a table: as many calls wait as there are connections, the others are told so, and no more connections are
/// made.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_no_more_connections_than_it_may() {
    let url = database().await;
    let data_dir = DataDir::new();
    let keys = data_dir.path().with_extension("keys");
    let keys = keys.to_str().expect("UTF-8");
    postroom::vault::Vault::create_file(keys.as_ref()).expect("a key file");
    let of_store = ["--database-url", &url, "--vault-keys", keys];
    let made =
        run(&[&["key", "create", "--site", "sites/-", "--role", "admin"], &of_store[..]].concat()).await;
    let limits = [
        "--db-connections=3",
        "--db-delivery-connections=1",
        "--db-acquire-timeout=200ms",
        "--db-statement-timeout=10m",
        "--db-lock-timeout=10m",
        "--drain-wait=0s",
    ];
    let serving = Serving::start(&data_dir.path(), &[&of_store[..], &limits].concat()).await;
    let client = serving.client(String::from_utf8_lossy(&made.stdout).trim());
    eventually("a server", async || client.settings().list_sites(ListSitesRequest::default()).await.ok())
        .await;

    let mut holder = PgConnection::connect(&url).await.expect("a connection");
    sqlx::raw_sql("begin; lock table sites in exclusive mode").execute(&mut holder).await.expect("held");
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut settings = client.settings();
        let request = CreateSiteRequest { site_id: format!("s{number}"), site: None };
        calls.spawn(async move { settings.create_site(request).await });
    }
    let mut refused = 0;
    while refused < CALLS - 3 {
        let answer =
            tokio::time::timeout(PATIENCE, calls.join_next()).await.expect("in time").expect("a call");
        let error = answer.expect("no panic").expect_err("the table is held");
        assert_eq!(reason(&error), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
        refused += 1;
    }
    let open: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'postroom%'",
    )
    .fetch_one(&mut holder)
    .await
    .expect("an answer");
    assert!(open <= CONNECTIONS, "{open} connections");
    sqlx::raw_sql("rollback").execute(&mut holder).await.expect("let go");
    while let Some(answer) = calls.join_next().await {
        if let Err(error) = answer.expect("no panic") {
            assert_eq!(reason(&error).0, Code::Unavailable);
        }
    }
    eventually("the server works on", async || {
        client.settings().list_sites(ListSitesRequest::default()).await.ok()
    })
    .await;
    serving.signal(Signal::SIGTERM);
    let (status, printed) = serving.end(Duration::from_mins(1)).await;
    assert_eq!(status.code(), Some(0), "{printed}");
}
