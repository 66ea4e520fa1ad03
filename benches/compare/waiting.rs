//! What letters that wait cost those that are due: many in the queue for tomorrow or of an account that is switched off,
//! and a transaction elsewhere that holds a snapshot, so that no row that was deleted since can be cleaned away.

use std::time::Instant;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::end_to_end::ACCOUNTS;
use crate::letters::sender;
use crate::postroom::{Due, Postroom};
use crate::report::Better::Higher;
use crate::report::Line;
use crate::report::Peer::Postroom as OfPostroom;
use crate::smtp_sink::SmtpSink;
use crate::{CALLERS, Outcome, Plan, per_second};

const NAME: &str = "waiting";
/// Rounds of letters, of which the middle one counts.
const ROUNDS: usize = 3;

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    let mut line = |what: String, rate: f64| {
        lines.push(Line::new(NAME, what, "letters/s", Higher, &[(OfPostroom, rate)]));
    };
    let sink = SmtpSink::start()?;
    let postroom = Postroom::start(sink.address(), ACCOUNTS).await?;
    let mut database = postroom.database().await?;
    // One more, whose mail waits because it is switched off.
    postroom.create_account(&sender(ACCOUNTS), sink.address()).await?;
    switch_off(&mut database).await?;
    let (mut waiting, mut sent) = (0, 0);
    for &number in &plan.waiting {
        fill(&mut database, number - waiting).await?;
        waiting = number;
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(round(plan, &postroom, &mut sent).await?);
        }
        rates.sort_unstable_by(f64::total_cmp);
        line(format!("end to end, {} waiting", thousands(waiting)), rates[ROUNDS / 2]);
    }
    let mut holder = postroom.database().await?;
    let mut snapshot = holder.begin_with("begin isolation level repeatable read").await?;
    sqlx::query("select 1").execute(&mut *snapshot).await?;
    let start = Instant::now();
    let mut rates = Vec::new();
    while start.elapsed() < plan.snapshot || rates.len() < ROUNDS {
        rates.push(round(plan, &postroom, &mut sent).await?);
    }
    let held = start.elapsed().as_secs();
    snapshot.rollback().await?;
    // How it ends, not how it begins.
    let mut last: Vec<f64> = rates.split_off(rates.len() - ROUNDS);
    last.sort_unstable_by(f64::total_cmp);
    line(
        format!("end to end, {} waiting, a snapshot held for {held} s", thousands(waiting)),
        last[ROUNDS / 2],
    );
    Ok(lines)
}

/// Letters a second of one round.
async fn round(plan: &Plan, postroom: &Postroom, sent: &mut usize) -> Outcome<f64> {
    let letters = plan.letters_of_others;
    let (since, start) = (crate::clock().now(), Instant::now());
    postroom.send(&plan.letters, letters, ACCOUNTS, CALLERS, Due::Now).await?;
    *sent += letters;
    let end = postroom.wait_until_sent(*sent, since).await?;
    Ok(per_second(letters, end - start))
}

async fn switch_off(database: &mut PgConnection) -> Outcome<()> {
    let statement = "update accounts set active = false where sender_email = $1";
    sqlx::query(statement).bind(sender(ACCOUNTS)).execute(database).await?;
    Ok(())
}

/// Puts letters into the queue, past the API: half of them for tomorrow, of all accounts in turn, half due now of the
/// account that is switched off.
async fn fill(database: &mut PgConnection, number: usize) -> Outcome<()> {
    let statements = [
        "create temporary table new_letters as
         select gen_random_uuid() as message_id,
                case when n % 2 = 0 then (n / 2) % $2 + 1 else $2 + 1 end as account_id,
                case when n % 2 = 0 then now() + interval '1 day' else now() end as due
         from generate_series(1, $1) as n",
        "insert into messages (
             site_id, message_id, account_id, from_address, envelope_sender, rfc_message_id, recipients, size_bytes,
             eight_bit, utf8_headers
         )
         select 'bench', message_id, account_id, 'a@bench.example', 'a@bench.example',
                '<' || message_id || '@bench.example>',
                '[{\"mailbox\": \"r@customers.example\", \"address\": \"r@customers.example\", \"kind\": \"to\", \"state\": \"pending\"}]',
                20, false, false
         from new_letters",
        "insert into message_bodies (site_id, message_id, content)
         select 'bench', message_id, 'Subject: x'::bytea || '\\x0d0a0d0a'::bytea from new_letters",
        "insert into queue (site_id, message_id, account_id, due)
         select 'bench', message_id, account_id, due from new_letters",
        "drop table new_letters",
    ];
    if number == 0 {
        return Ok(());
    }
    let (number, accounts) = (i64::try_from(number)?, i64::try_from(ACCOUNTS)?);
    let mut transaction = database.begin().await?;
    for (position, statement) in statements.into_iter().enumerate() {
        let query = sqlx::query(statement);
        let query = if position == 0 { query.bind(number).bind(accounts) } else { query };
        query.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    // As autovacuum does within a minute; so it does not begin in the middle of a round.
    sqlx::query("vacuum (analyze) messages, message_bodies, queue").execute(database).await?;
    Ok(())
}

fn thousands(number: usize) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", thousands(number / 1_000), number % 1_000)
    }
}
