//! How long the choice of account takes, by the number of accounts of a site: `ResolveAccount` over gRPC against a
//! throw-away PostgreSQL. Prints figures, asserts nothing.

mod authorised;
#[expect(dead_code, reason = "shared with the bench of tails, which uses all of it")]
mod rig;

use std::error::Error;
use std::time::{Duration, Instant};

use postroom::api::proto::ResolveAccountRequest;
use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::private_postgres::{self, PrivatePostgres};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use self::rig::Rig;

/// Accounts of the site, one run each.
const ACCOUNTS: [i64; 4] = [1_000, 1_000_000, 1_000, 1_000_000];
/// Calls in a run, after as many to warm up.
const CALLS: i64 = 5_000;
/// Accounts of one address.
const ACCOUNTS_OF_AN_ADDRESS: i64 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let cluster = private_postgres::start_throwaway().await?;
    println!("{:>10} {:>10} {:>10} {:>10}", "accounts", "p50 µs", "p99 µs", "max µs");
    for (number, accounts) in ACCOUNTS.into_iter().enumerate() {
        let mut times = run(&cluster, &format!("bench{number}"), accounts).await?;
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
        println!("{accounts:>10} {:>10} {:>10} {:>10}", at(50), at(99), at(100));
    }
    cluster.stop().await?;
    Ok(())
}

async fn run(
    cluster: &PrivatePostgres,
    name: &str,
    accounts: i64,
) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let rig = Rig::start(cluster, name).await?;
    fill(&rig.database_url, accounts).await?;
    let mut client = AccountsServiceClient::new(rig.channel.clone());
    let addresses = accounts / ACCOUNTS_OF_AN_ADDRESS;
    let mut times = Vec::new();
    for call in 0..2 * CALLS {
        let request = ResolveAccountRequest {
            parent: "sites/bench".to_owned(),
            from_address: format!("Name 1 <a{}@example.com>", call * 7_919 % addresses),
            ..ResolveAccountRequest::default()
        };
        let start = Instant::now();
        client.resolve_account(request).await?;
        if call >= CALLS {
            times.push(start.elapsed());
        }
    }
    drop(client);
    rig.stop().await?;
    Ok(times)
}

/// Puts accounts straight into the table: proving a million would measure something else.
async fn fill(url: &str, accounts: i64) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("insert into sites (site_id) values ('bench')").execute(&mut connection).await?;
    sqlx::query("insert into settings (site_id) values ('bench')").execute(&mut connection).await?;
    sqlx::query(
        "insert into accounts (site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security)
         select 'bench', n, true, 'Name ' || n % 4, 'a' || n / $2 || '@example.com', 'a' || n / $2 || '@example.com',
                'smtp.example.com', 465, 'implicit_tls'
         from generate_series(1, $1) as n",
    )
    .bind(accounts)
    .bind(ACCOUNTS_OF_AN_ADDRESS)
    .execute(&mut connection)
    .await?;
    sqlx::query("vacuum analyze accounts").execute(&mut connection).await?;
    connection.close().await
}
