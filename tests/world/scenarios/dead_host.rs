//! CASES 58: very many letters wait for a host that is dead; others flow; and letters that were put off in the same second
//! do not come again in the same second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::{CheckAccountRequest, CreateAccountRequest, OnUncertain};
use sqlx::postgres::PgConnection;
use sqlx::{query, query_as};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::Outcome;
use crate::caller::{Callers, Kinds};
use crate::catcher::{Catcher, Mood};
use crate::site::{self, Nature, account_at, patiently};
use crate::world::{QUICK, Wishes, World};

/// Callers at once.
const CALLERS: usize = 16;
/// Healthy accounts.
const ACCOUNTS: usize = 8;
/// Letters a tenth of a second: far below what the machine can do.
const PACE: usize = 5;
/// How long each of the measurements takes.
const MEASURED: Duration = Duration::from_mins(1);
/// Connections that are no queue running against a wall: the first of each worker, and then probes with back-off.
const PROBES: usize = 60;
/// The sender whose host is dead.
const DEAD: &str = "dead@example.com";
/// Letters that are put off at once.
const PUT_OFF: usize = 1_000;
/// The wait of their site, in milliseconds.
const WAIT: u32 = 600_000;
/// Time for a look at what changes.
const LOOK: Duration = Duration::from_millis(500);
/// How long the letters may take once the host lives, on a busy machine.
const DRAINING: Duration = Duration::from_mins(45);

/// How many.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Letters that wait for the dead host
    #[arg(long, default_value_t = 100_000)]
    letters: usize,
    /// Ends with the host still dead
    #[arg(long)]
    leave_dead: bool,
}

/// A host whose mail server hangs up on everybody, until it lives.
struct Host {
    port: u16,
    lives: Arc<AtomicBool>,
    knocks: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Host {
    async fn start(catcher: u16) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (lives, knocks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_alive, count) = (Arc::clone(&lives), Arc::clone(&knocks));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                if is_alive.load(Ordering::Relaxed) {
                    connections.spawn(async move {
                        let mut catcher = TcpStream::connect(("127.0.0.1", catcher)).await?;
                        copy_bidirectional(&mut stream, &mut catcher).await
                    });
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, lives, knocks, accepting })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Has letters wait, measures what others notice, and lets the host live again.
pub(crate) async fn run(wishes: &Wishes, options: Options) -> Outcome<()> {
    let mut world = World::new(wishes, &QUICK).await?;
    for number in 0..2 {
        world.start(number).await?;
    }
    let nature = Nature::new(OnUncertain::Resend, ACCOUNTS);
    let site = world.make_site("healthy", &nature).await?;
    let dead_site =
        world.make_site("dead", &Nature { accounts: 0, retries: vec![60_000; 30], ..nature.clone() }).await?;
    let host = Host::start(world.catcher.port()).await?;
    // Saved inactive, so that nobody asks the host first.
    let mut account = account_at(DEAD, host.port);
    account.active = Some(false);
    let request = CreateAccountRequest {
        parent: dead_site.clone(),
        account: Some(account),
        ..CreateAccountRequest::default()
    };
    let replica = world.replica()?;
    let made =
        patiently(async || replica.accounts().create_account(request.clone()).await).await?.into_inner();
    let mut connection = world.cluster.connect("postroom").await?;
    fill(&mut connection, i32::try_from(options.letters)?).await?;
    println!("{} letters wait", options.letters);

    let callers = world.callers(CALLERS, &Kinds::small(std::slice::from_ref(&site), ACCOUNTS));
    measure(&world.catcher, &callers, "before").await;
    query("update accounts set active = true where sender_email = $1")
        .bind(DEAD)
        .execute(&mut connection)
        .await?;
    measure(&world.catcher, &callers, "dead host").await;
    let knocks = host.knocks.load(Ordering::Relaxed);
    println!("{knocks} connections to the dead host in {MEASURED:?}");
    let query = query_as("select count(*) from queue q where site_id = 'dead' and attempt > 0");
    let (tried,): (i64,) = query.fetch_one(&mut connection).await?;
    println!("{tried} of the letters were tried");
    spread(&mut world, &mut connection).await?;
    world.judge(callers, &[site]).await?;

    if !options.leave_dead {
        let before = world.catcher.taken().len();
        host.lives.store(true, Ordering::Relaxed);
        let lives = Instant::now();
        // As an operator does who knows; else the next probe does it.
        if let Some(account) = made.account {
            let check = CheckAccountRequest {
                parent: dead_site.clone(),
                target: Some(Target::Name(account.name)),
                ..Default::default()
            };
            let replica = world.replica()?;
            patiently(async || replica.accounts().check_account(check.clone()).await).await?;
        }
        site::settle(world.replica()?, std::slice::from_ref(&dead_site), DRAINING).await?;
        let took = lives.elapsed();
        let mut copies: HashMap<String, usize> = HashMap::new();
        for letter in world.catcher.taken().into_iter().skip(before) {
            if letter.recipients.iter().any(|recipient| recipient == "waiting@example.org") {
                *copies.entry(letter.message_id).or_default() += 1;
            }
        }
        let doubled = copies.values().filter(|count| **count > 1).count();
        println!("the host lives: {} letters came within {took:?}, {doubled} of them twice", copies.len());
        if copies.len() != options.letters || doubled > 0 {
            return Err("some are lost or doubled".into());
        }
    }
    if knocks > PROBES {
        return Err(format!("{knocks} connections are more than probes").into());
    }
    Ok(())
}

/// Hands letters in at a pace, and tells the times from call to arrival.
async fn measure(catcher: &Catcher, callers: &Callers, what: &str) {
    let (start, first) = (Instant::now(), callers.ledger().accepted.len());
    while start.elapsed() < MEASURED {
        callers.allow(PACE);
        sleep(Duration::from_millis(100)).await;
    }
    while callers.open() > 0 {
        sleep(LOOK).await;
    }
    sleep(LOOK).await;
    let came: HashMap<String, Instant> =
        catcher.taken().into_iter().map(|letter| (letter.message_id, letter.at)).collect();
    let ledger = callers.ledger();
    let handed_in = &ledger.accepted[first..];
    let mut times: Vec<Duration> =
        handed_in.iter().filter_map(|letter| Some(*came.get(&letter.message_id)? - letter.called)).collect();
    times.sort_unstable();
    let at = |share: usize| times.get((times.len().max(1) - 1) * share / 100).copied().unwrap_or_default();
    println!(
        "{what}: {} of {} came; from call to arrival p50 {:?}, p90 {:?}, p99 {:?}, most {:?}",
        times.len(),
        handed_in.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// Letters that a server puts off all at once come again one by one.
async fn spread(world: &mut World, connection: &mut PgConnection) -> Outcome<()> {
    world.catcher.behave(Mood { recipient_later: 10_000, ..Mood::default() });
    let nature = Nature { retries: vec![WAIT; 30], ..Nature::new(OnUncertain::Resend, 1) };
    let site = world.make_site("grey", &nature).await?;
    let callers = world.callers(CALLERS, &Kinds::small(&[site], 1));
    callers.allow(PUT_OFF);
    let ledger = callers.finish().await;
    let start = Instant::now();
    loop {
        let query = query_as(
            "select count(*) from queue where site_id = 'grey' and due < now() + interval '1 minute'",
        );
        let (left,): (i64,) = query.fetch_one(&mut *connection).await?;
        if left == 0 {
            break;
        }
        if start.elapsed() > DRAINING {
            return Err("letters are not put off".into());
        }
        sleep(LOOK).await;
    }
    let query = query_as(
        "with times as (select date_trunc('second', due) as second from queue where site_id = 'grey'),
              seconds as (select second, count(*) as letters from times group by second)
         select count(*), max(letters), extract(epoch from max(second) - min(second))::bigint from seconds",
    );
    let (seconds, most, width): (i64, i64, i64) = query.fetch_one(connection).await?;
    println!(
        "{} letters put off by {} s: due within {width} s, in {seconds} of them, {most} in the fullest",
        ledger.accepted.len(),
        WAIT / 1_000
    );
    world.catcher.behave(Mood::default());
    // A tenth of the wait is 60 s: about 17 a second.
    if most > i64::try_from(PUT_OFF / 10)? { Err("they come again together".into()) } else { Ok(()) }
}

/// Has letters wait for the dead host, without asking the servers.
async fn fill(connection: &mut PgConnection, letters: i32) -> Result<(), sqlx::Error> {
    let statements = [
        "insert into messages (
             site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
             eight_bit, utf8_headers
         )
         select 'dead', gen_random_uuid(), account_id, sender_email, sender_email, '<' || n || '@dead.example>',
                '[{\"mailbox\": \"waiting@example.org\", \"address\": \"waiting@example.org\", \"kind\": \"to\", \"state\": \"pending\"}]',
                20, false, false
         from accounts
         cross join generate_series(1, $1) as n
         where site_id = 'dead'",
        "insert into message_bodies (site_id, message_id, content)
         select site_id, message_id,
                convert_to('Message-ID: ' || rfc_message_id || e'\\r\\nSubject: x\\r\\n\\r\\nx\\r\\n', 'UTF8')
         from messages
         where site_id = 'dead' and $1 > 0",
        "insert into queue (site_id, message_id, account_id, due)
         select site_id, message_id, account_id, now() from messages where site_id = 'dead' and $1 > 0",
    ];
    for statement in statements {
        query(statement).bind(letters).execute(&mut *connection).await?;
    }
    Ok(())
}
