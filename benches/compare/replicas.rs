//! What a second server over the same database adds.

use std::time::Instant;

use crate::end_to_end::ACCOUNTS;
use crate::postroom::{Due, Postroom, stream_over};
use crate::report::Better::{Higher, Lower};
use crate::report::Line;
use crate::report::Peer::Postroom as OfPostroom;
use crate::served::Served;
use crate::smtp_sink::SmtpSink;
use crate::{Outcome, Plan, per_second};

const NAME: &str = "replicas";

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for (servers, words) in [(1, "one server"), (2, "two servers")] {
        let sink = SmtpSink::start()?;
        let postroom = Postroom::start(sink.address(), ACCOUNTS).await?;
        let second = if servers == 2 { Some(postroom.another().await?) } else { None };
        let channels = [postroom.channel(0), second.as_ref().map_or(postroom.channel(1), Served::connect)];
        let (letters, half) = (plan.letters_of_postroom, plan.letters_of_postroom / 2);
        let (before, since, start) = (postroom.costs().await?, crate::clock().now(), Instant::now());
        tokio::try_join!(
            stream_over(&channels[0], &plan.letters, 0..half, ACCOUNTS, Due::Now),
            stream_over(&channels[1], &plan.letters, half..letters, ACCOUNTS, Due::Now),
        )?;
        let elapsed = postroom.wait_until_sent(letters, since).await? - start;
        let rate = per_second(letters, elapsed);
        let spent = postroom.costs().await?.postgres_cpu.saturating_sub(before.postgres_cpu);
        let cores = spent.as_secs_f64() / elapsed.as_secs_f64();
        let line = |what, unit, better, figure| Line::new(NAME, what, unit, better, &[(OfPostroom, figure)]);
        lines.push(line(format!("end to end, {words}, two streams"), "letters/s", Higher, rate));
        lines.push(line(format!("cores that PostgreSQL takes of two, {words}"), "cores", Lower, cores));
        if let Some(second) = second {
            second.stop().await?;
        }
    }
    Ok(lines)
}
