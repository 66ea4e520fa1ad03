//! From a mail server's reply to the moment a reader of the log has it.

use crate::postroom::Postroom;
use crate::report::Better::Lower;
use crate::report::Line;
use crate::report::Peer::Postroom as OfPostroom;
use crate::smtp_sink::SmtpSink;
use crate::{Outcome, Plan, tailing};

/// Readers at once.
const READERS: [usize; 2] = [1, 100];

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for readers in READERS {
        // Its accounts are not used; the mail server of this measure is a slow one.
        let sink = SmtpSink::start()?;
        let postroom = Postroom::start(sink.address(), 0).await?;
        let connect = || Ok(postroom.served.connect());
        let mut times = tailing::latencies(connect, plan.slow_letters, readers, 0).await?;
        times.sort_unstable();
        for share in [50, 99] {
            let value = times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
            let tails = if readers == 1 { "1 tail".to_owned() } else { format!("{readers} tails") };
            let what = format!("reply to tail client, {tails}, p{share}");
            lines.push(Line::new("tail", what, "ms", Lower, &[(OfPostroom, value)]));
        }
    }
    Ok(lines)
}
