//! From the call to the moment the mail server has the letter: one letter at a time, and under half of the full load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postroom::api::proto::SendMessageRequest;
use postroom::api::proto::send_service_client::SendServiceClient;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::end_to_end::ACCOUNTS;
use crate::letters::{recipient, sender};
use crate::postfix::Postfix;
use crate::postroom::{Postroom, SITE};
use crate::report::Better::Lower;
use crate::report::Line;
use crate::report::Peer::{self, Nodemailer, Postfix as OfPostfix, Postroom as OfPostroom};
use crate::sink::Sink;
use crate::smtp_client::SmtpClient;
use crate::{Outcome, Plan, nodemailer};

/// Letters that are not measured: sessions are opened for the first ones.
const FIRST: usize = 20;
/// Between two letters, each of which has its time: nothing is going on when the next one comes.
const GAP: Duration = Duration::from_millis(20);
/// Under load letters are handed in so often, several at once if need be.
const TICK: Duration = Duration::from_millis(2);

/// One letter at a time.
pub(crate) async fn idle(plan: &Plan) -> Outcome<Vec<Line>> {
    let mut ours = postroom_idle(plan).await?;
    let mut theirs = postfix_idle(plan).await?;
    let sink = Sink::start(Duration::ZERO).await;
    let count = FIRST + plan.letters_one_by_one;
    let times = nodemailer::one_by_one(&plan.letters, address(&sink), count, GAP).await?;
    let mut nodemailer: Vec<_> = times.into_iter().skip(FIRST).map(Duration::from_secs_f64).collect();
    let measured = [(OfPostroom, &mut ours), (OfPostfix, &mut theirs), (Nodemailer, &mut nodemailer)];
    Ok(lines("idle", "call to letter received, idle", measured))
}

/// Calls at half of the rate at which letters go end to end.
pub(crate) async fn loaded(plan: &Plan, full: f64) -> Outcome<Vec<Line>> {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start(address(&sink), ACCOUNTS).await?;
    let each_tick = full / 2.0 * TICK.as_secs_f64();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut calls, mut number, mut due) = (JoinSet::new(), 0, 0.0);
    let start = Instant::now();
    while start.elapsed() < plan.loaded_for {
        ticks.tick().await;
        due += each_tick;
        while due >= 1.0 {
            due -= 1.0;
            let message = plan.letters.message(number, &sender(number % ACCOUNTS));
            let request =
                SendMessageRequest { parent: SITE.to_owned(), message: Some(message), ..Default::default() };
            let mut client = SendServiceClient::new(postroom.channel(number));
            calls.spawn(async move {
                let start = Instant::now();
                let taken = client.send_message(request).await;
                taken.map(|taken| (taken.into_inner().message.unwrap_or_default().message_id, start))
            });
            number += 1;
        }
    }
    let mut started = HashMap::new();
    while let Some(called) = calls.join_next().await {
        let (message_id, start) = called??;
        started.insert(message_id, start);
    }
    let rate = crate::per_second(number, start.elapsed());
    sink.wait_for(number, crate::PATIENCE).await;
    let mut times = since(&sink, &started)?;
    let what = format!("call to letter received, at {rate:.0} letters/s");
    Ok(lines("loaded", &what, [(OfPostroom, &mut times)]))
}

async fn postroom_idle(plan: &Plan) -> Outcome<Vec<Duration>> {
    let sink = Sink::start(Duration::ZERO).await;
    let postroom = Postroom::start(address(&sink), 1).await?;
    let mut client = SendServiceClient::new(postroom.channel(0));
    let mut ticks = gaps();
    let mut started = HashMap::new();
    for number in 0..FIRST + plan.letters_one_by_one {
        ticks.tick().await;
        let message = Some(plan.letters.message(number, &sender(0)));
        let request = SendMessageRequest { parent: SITE.to_owned(), message, ..Default::default() };
        let start = Instant::now();
        let taken = client.send_message(request).await?.into_inner().message.unwrap_or_default();
        sink.wait_for(number + 1, crate::PATIENCE).await;
        if number >= FIRST {
            started.insert(taken.message_id, start);
        }
    }
    since(&sink, &started)
}

async fn postfix_idle(plan: &Plan) -> Outcome<Vec<Duration>> {
    let sink = Sink::start(Duration::ZERO).await;
    let postfix = Postfix::start(address(&sink)).await?;
    let mut client = SmtpClient::open(postfix.relaying).await?;
    let mut ticks = gaps();
    let mut starts = Vec::new();
    for number in 0..FIRST + plan.letters_one_by_one {
        ticks.tick().await;
        let letter = plan.letters.file(number);
        starts.push(Instant::now());
        client.send(&sender(0), &recipient(number), &letter).await?;
        sink.wait_for(number + 1, crate::PATIENCE).await;
    }
    // Each came before the next one was begun.
    let came = sink.transactions();
    Ok(starts.iter().zip(&came).skip(FIRST).map(|(start, came)| came.taken - *start).collect())
}

fn gaps() -> tokio::time::Interval {
    let mut ticks = interval(GAP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn address(sink: &Sink) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], sink.port()))
}

/// From each start to the arrival of its letter.
fn since(sink: &Sink, started: &HashMap<String, Instant>) -> Outcome<Vec<Duration>> {
    let came = sink.transactions();
    let times: Vec<_> =
        came.iter().filter_map(|came| Some(came.taken - *started.get(&came.message_id)?)).collect();
    if times.len() == started.len() {
        Ok(times)
    } else {
        Err(format!("{} of {} letters were recognised", times.len(), started.len()).into())
    }
}

/// Median and 99th percentile.
fn lines<const N: usize>(
    measure: &'static str,
    what: &str,
    mut measured: [(Peer, &mut Vec<Duration>); N],
) -> Vec<Line> {
    for (_, times) in &mut measured {
        times.sort_unstable();
    }
    [50, 99]
        .map(|share| {
            let at = |times: &[Duration]| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
            let figures: Vec<_> = measured.iter().map(|(peer, times)| (*peer, at(times))).collect();
            Line::new(measure, format!("{what}, p{share}"), "ms", Lower, &figures)
        })
        .into()
}
