//! Letters a second over one SMTP session, beside clients that do nothing else.

use crate::one_session::{self, Rates};
use crate::report::Better::Higher;
use crate::report::Line;
use crate::report::Peer::{Postroom, Raw, SmtpSource};
use crate::smtp_sink::SmtpSink;
use crate::{Outcome, Plan, per_second, source};

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let sink = SmtpSink::start()?;
    let (address, letters) = (sink.address(), plan.letters_of_postroom);
    // It has a runtime of its own.
    let measured = tokio::task::spawn_blocking(move || one_session::measure(address, letters)).await?;
    let Rates { session, raw, raw_ahead } = measured?;
    let source = per_second(letters, source::send(&plan.letters, address, letters, 1).await?);
    let figures = [(Postroom, session), (SmtpSource, source), (Raw, raw)];
    let line = |what, figures: &[_]| Line::new("session", what, "letters/s", Higher, figures);
    Ok(vec![
        line("one SMTP session", &figures),
        line(
            "the same, the raw client with the next envelope behind the dot",
            &[(Postroom, session), (Raw, raw_ahead)],
        ),
    ])
}
