//! Letters a second from call to outcome: accepted, relayed, outcome and transcript recorded. And what a letter costs.

use std::time::{Duration, Instant};

use crate::postfix::Postfix;
use crate::postroom::{Costs, Due, Postroom};
use crate::report::Better::{Higher, Lower};
use crate::report::Line;
use crate::report::Peer::{self, Nodemailer, Postfix as OfPostfix, Postroom as OfPostroom, SmtpSource};
use crate::smtp_sink::SmtpSink;
use crate::{CALLERS, Outcome, Plan, nodemailer, per_second, processes, source};

const NAME: &str = "end-to-end";
/// Accounts where there are several.
pub(crate) const ACCOUNTS: usize = 8;
const EIGHT_ACCOUNTS: &str = "end to end, 8 accounts, 32 callers";
const MIB: f64 = 1024.0 * 1024.0;

/// How Postroom is called.
#[derive(Clone, Copy)]
enum Calls {
    Unary,
    Stream,
}

/// What a run of Postroom brought.
struct Run {
    accepted: f64,
    sent: f64,
    before: Costs,
    after: Costs,
    idle_bytes: u64,
    most_bytes: u64,
}

/// What a run of Postfix brought.
struct PostfixRun {
    accepted: f64,
    sent: f64,
    cpu: Duration,
    most_bytes: u64,
}

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let several = postroom(plan, ACCOUNTS, Calls::Unary).await?;
    let stream = postroom(plan, ACCOUNTS, Calls::Stream).await?;
    let one = postroom(plan, 1, Calls::Unary).await?;
    let postfix = postfix(plan).await?;
    let sink = SmtpSink::start()?;
    let nodemailer = nodemailer::rate(&plan.letters, sink.address(), plan.letters_of_others).await?;
    let elapsed = source::send(&plan.letters, sink.address(), plan.letters_of_postroom, CALLERS).await?;
    let source = per_second(plan.letters_of_postroom, elapsed);
    let rate = |what: &str, figures: &[(Peer, f64)]| Line::new(NAME, what, "letters/s", Higher, figures);
    let each = |after: Duration, before: Duration, letters: usize| {
        1e6 * after.saturating_sub(before).as_secs_f64() / count(letters)
    };
    let letters = plan.letters_of_postroom;
    let (server, postgres) = (
        each(several.after.server_cpu, several.before.server_cpu, letters),
        each(several.after.postgres_cpu, several.before.postgres_cpu, letters),
    );
    let theirs = each(postfix.cpu, Duration::ZERO, plan.letters_of_others);
    let wal = i32::try_from((several.after.wal_bytes - several.before.wal_bytes) / i64::try_from(letters)?)?;
    let bytes = |bytes: u64| count(usize::try_from(bytes).unwrap_or(0)) / MIB;
    let cpu = |what: &str, figures: &[(Peer, f64)]| Line::new(NAME, what, "µs of CPU", Lower, figures);
    let memory = |what: &str, figures: &[(Peer, f64)]| Line::new(NAME, what, "MiB", Lower, figures);
    Ok(vec![
        rate(
            EIGHT_ACCOUNTS,
            &[
                (OfPostroom, several.sent),
                (OfPostfix, postfix.sent),
                (Nodemailer, nodemailer),
                (SmtpSource, source),
            ],
        ),
        rate("end to end, 8 accounts, one stream", &[(OfPostroom, stream.sent), (OfPostfix, postfix.sent)]),
        rate("end to end, 1 account, 32 callers", &[(OfPostroom, one.sent), (OfPostfix, postfix.sent)]),
        rate(
            "accepted meanwhile, 8 accounts, 32 callers",
            &[(OfPostroom, several.accepted), (OfPostfix, postfix.accepted)],
        ),
        rate(
            "accepted meanwhile, 8 accounts, one stream",
            &[(OfPostroom, stream.accepted), (OfPostfix, postfix.accepted)],
        ),
        cpu("CPU of a letter, with its database", &[(OfPostroom, server + postgres), (OfPostfix, theirs)]),
        cpu("CPU of a letter, server alone", &[(OfPostroom, server)]),
        cpu("CPU of a letter, PostgreSQL alone", &[(OfPostroom, postgres)]),
        Line::new(NAME, "WAL of a letter", "bytes", Lower, &[(OfPostroom, f64::from(wal))]),
        memory("memory of the server, idle", &[(OfPostroom, bytes(several.idle_bytes))]),
        memory(
            "memory of the server, most under load",
            &[(OfPostroom, bytes(several.most_bytes)), (OfPostfix, bytes(postfix.most_bytes))],
        ),
    ])
}

/// Letters a second of Postroom with several accounts, if that is among what was measured.
pub(crate) fn measured(lines: &[Line]) -> Option<f64> {
    lines.iter().find(|line| line.what == EIGHT_ACCOUNTS)?.of(OfPostroom)
}

/// The same, measured now.
pub(crate) async fn rate(plan: &Plan) -> Outcome<f64> {
    Ok(postroom(plan, ACCOUNTS, Calls::Unary).await?.sent)
}

async fn postroom(plan: &Plan, accounts: usize, calls: Calls) -> Outcome<Run> {
    let sink = SmtpSink::start()?;
    let postroom = Postroom::start(sink.address(), accounts).await?;
    // The checks of the accounts are no letters, but there may be some of them.
    let earlier = sink.letters()?;
    let idle_bytes = processes::resident(postroom.served.pid);
    let before = postroom.costs().await?;
    let letters = plan.letters_of_postroom;
    let (since, start) = (crate::clock().now(), Instant::now());
    let accepting = match calls {
        Calls::Unary => postroom.send(&plan.letters, letters, accounts, CALLERS, Due::Now).await?,
        Calls::Stream => postroom.stream(&plan.letters, letters, accounts, Due::Now).await?,
    };
    crate::wait_for(&sink, earlier + letters).await?;
    let sent = per_second(letters, postroom.wait_until_sent(letters, since).await? - start);
    let after = postroom.costs().await?;
    let most_bytes = processes::most_resident(postroom.served.pid);
    let (taken, transcripts) = (sink.letters()? - earlier, postroom.transcripts().await?);
    if taken != letters || usize::try_from(transcripts)? != letters {
        return Err(format!("{letters} letters: {taken} came, {transcripts} transcripts").into());
    }
    Ok(Run { accepted: per_second(letters, accepting), sent, before, after, idle_bytes, most_bytes })
}

async fn postfix(plan: &Plan) -> Outcome<PostfixRun> {
    let sink = SmtpSink::start()?;
    let postfix = Postfix::start(sink.address()).await?;
    let pid = postfix.pid();
    let before = processes::cpu(pid);
    let letters = plan.letters_of_others;
    let start = Instant::now();
    let accepting = source::send(&plan.letters, postfix.relaying, letters, CALLERS).await?;
    crate::wait_for(&sink, letters).await?;
    postfix.wait_until_empty().await?;
    let sent = per_second(letters, start.elapsed());
    // They stay for a while when there is nothing to do: what they hold now is what they held.
    let most_bytes = processes::proportional(pid);
    let cpu = processes::cpu(pid).saturating_sub(before);
    Ok(PostfixRun { accepted: per_second(letters, accepting), sent, cpu, most_bytes })
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
