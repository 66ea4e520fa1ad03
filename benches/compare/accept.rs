//! Letters accepted a second, each durable when its caller hears so, while nothing is delivered.

use crate::end_to_end::ACCOUNTS;
use crate::postfix::Postfix;
use crate::postroom::{Due, Postroom};
use crate::report::Better::Higher;
use crate::report::Line;
use crate::report::Peer::{Postfix as OfPostfix, Postroom as OfPostroom};
use crate::smtp_sink::SmtpSink;
use crate::{CALLERS, Outcome, Plan, per_second, source};

const NAME: &str = "accept";

pub(crate) async fn measure(plan: &Plan) -> Outcome<Vec<Line>> {
    let sink = SmtpSink::start()?;
    let letters = plan.letters_of_postroom;
    let postroom = Postroom::start(sink.address(), ACCOUNTS).await?;
    let elapsed = postroom.send(&plan.letters, letters, ACCOUNTS, CALLERS, Due::Tomorrow).await?;
    let unary = per_second(letters, elapsed);
    let elapsed = postroom.stream(&plan.letters, letters, ACCOUNTS, Due::Tomorrow).await?;
    let stream = per_second(letters, elapsed);
    let mut database = postroom.database().await?;
    let stored: i64 = sqlx::query_scalar("select count(*) from queue").fetch_one(&mut database).await?;
    if usize::try_from(stored)? != 2 * letters {
        return Err(format!("{stored} of {} letters are stored", 2 * letters).into());
    }
    drop(postroom);
    let letters = 2 * plan.letters_of_others;
    let postfix = Postfix::start(sink.address()).await?;
    let theirs = per_second(letters, source::send(&plan.letters, postfix.holding, letters, CALLERS).await?);
    if postfix.held() != letters {
        return Err(format!("{} of {letters} letters are on hold", postfix.held()).into());
    }
    let line = |what: &str, ours: f64| {
        Line::new(NAME, what, "letters/s", Higher, &[(OfPostroom, ours), (OfPostfix, theirs)])
    };
    Ok(vec![line("accept alone, 32 callers", unary), line("accept alone, one stream", stream)])
}
