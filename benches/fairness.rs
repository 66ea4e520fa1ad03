//! What a dead server costs the others: the time from call to arrival for fifty healthy accounts, without and with an
//! account whose server accepts connections and says nothing while 10,000 letters wait for it. Prints figures, asserts
//! nothing.

mod authorised;
#[expect(dead_code, reason = "shared with the bench of tails, which uses all of it")]
mod rig;
#[path = "../tests/api/sink.rs"]
#[expect(dead_code, reason = "shared with tests/api, which uses all of it")]
mod sink;

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, Composed, CreateAccountRequest, CreateSiteRequest, Message, Security, SendMessageRequest,
};
use postroom::private_postgres::{self, PrivatePostgres};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::rig::Rig;
use self::sink::Sink;

const SITE: &str = "sites/bench";
/// Healthy accounts.
const ACCOUNTS: usize = 50;
/// Letters measured in a run.
const LETTERS: usize = 2_000;
/// From one letter to the next: far below what the machine can do, so that nothing queues but by the dead server's fault.
const EVERY: Duration = Duration::from_millis(10);
/// Letters that wait for the dead server.
const WAITING: i32 = 10_000;
/// Time for the first sessions to stand before the dead server.
const SETTLE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let cluster = private_postgres::start_throwaway().await?;
    println!("{:>12} {:>9} {:>9} {:>9} {:>9}", "black hole", "p50 ms", "p90 ms", "p99 ms", "max ms");
    let mut medians = Vec::new();
    for (number, black_hole) in [false, true, false, true].into_iter().enumerate() {
        let mut times = run(&cluster, &format!("bench{number}"), black_hole).await?;
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
        let said = if black_hole { "with" } else { "without" };
        println!("{said:>12} {:>9.2} {:>9.2} {:>9.2} {:>9.2}", at(50), at(90), at(99), at(100));
        medians.push((at(50), at(99)));
    }
    let [(p50, p99), (p50_with, p99_with)] = [1, 0].map(|behind| medians[medians.len() - 1 - behind]);
    println!("ratio of the last two: p50 {:.2}, p99 {:.2}", p50_with / p50, p99_with / p99);
    cluster.stop().await?;
    Ok(())
}

/// The times from call to arrival.
async fn run(
    cluster: &PrivatePostgres,
    name: &str,
    black_hole: bool,
) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let rig = Rig::start(cluster, name).await?;
    let request = CreateSiteRequest { site_id: "bench".to_owned(), site: None };
    SettingsServiceClient::new(rig.channel.clone()).create_site(request).await?;
    let sink = Sink::start(Duration::ZERO).await;
    for number in 0..ACCOUNTS {
        create_account(&rig, &sender(number), sink.port(), true).await?;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let hole = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    if black_hole {
        // Saved inactive, so that nobody asks the server first; then its letters are put into the queue.
        create_account(&rig, "dead@example.com", port, false).await?;
        fill(&rig.database_url).await?;
        sleep(SETTLE).await;
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut calls = JoinSet::new();
    for number in 0..LETTERS {
        ticks.tick().await;
        let mut send = SendServiceClient::new(rig.channel.clone());
        calls.spawn(async move {
            let start = Instant::now();
            let taken = send.send_message(letter(&sender(number % ACCOUNTS))).await;
            taken.map(|taken| (taken.into_inner().message.unwrap_or_default().message_id, start))
        });
    }
    let started: HashMap<String, Instant> = calls.join_all().await.into_iter().collect::<Result<_, _>>()?;
    sink.wait_for(LETTERS, Duration::from_mins(2)).await;
    let times =
        sink.transactions().iter().filter_map(|t| Some(t.taken - *started.get(&t.message_id)?)).collect();
    hole.abort();
    rig.stop().await?;
    Ok(times)
}

fn sender(number: usize) -> String {
    format!("account{number}@example.com")
}

async fn create_account(rig: &Rig, sender_email: &str, port: u16, active: bool) -> Result<(), tonic::Status> {
    let account = Account {
        active: Some(active),
        sender_email: sender_email.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: u32::from(port),
        security: Security::None.into(),
        ..Account::default()
    };
    let request = CreateAccountRequest {
        parent: SITE.to_owned(),
        account: Some(account),
        ..CreateAccountRequest::default()
    };
    AccountsServiceClient::new(rig.channel.clone()).create_account(request).await?;
    Ok(())
}

/// A letter of 4 KiB.
fn letter(from: &str) -> SendMessageRequest {
    let composed = Composed {
        subject: "Hello".to_owned(),
        text: "It travels, line by line, to the end.\n".repeat(100),
        ..Composed::default()
    };
    let message = Message {
        from_address: from.to_owned(),
        to: vec!["ann@example.org".to_owned()],
        content: Some(Content::Composed(composed)),
        ..Message::default()
    };
    SendMessageRequest { parent: SITE.to_owned(), message: Some(message), ..SendMessageRequest::default() }
}

/// Switches the dead account on and has letters wait for it.
async fn fill(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let statements = [
        "insert into messages (
             site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
             eight_bit, utf8_headers
         )
         select 'bench', gen_random_uuid(), account_id, sender_email, sender_email, '<' || n || '@example.com>',
                '[{\"mailbox\": \"ann@example.org\", \"address\": \"ann@example.org\", \"kind\": \"to\", \"state\": \"pending\"}]',
                20, false, false
         from accounts
         cross join generate_series(1, $1) as n
         where sender_email = 'dead@example.com' and $1 > 0",
        "insert into message_bodies (site_id, message_id, content)
         select site_id, message_id, 'Subject: x'::bytea || '\\x0d0a0d0a'::bytea from messages where $1 > 0",
        "insert into queue (site_id, message_id, account_id, due)
         select site_id, message_id, account_id, now() from messages where $1 > 0",
        "update accounts set active = true where $1 > 0",
    ];
    for statement in statements {
        sqlx::query(statement).bind(WAITING).execute(&mut connection).await?;
    }
    connection.close().await
}
