//! Late results of held letters: what an attempt learnt after its lease had ended, and the letter was held.

use sqlx::query;
use sqlx::types::Json;

use super::Outcome;
use crate::domain::event::{Event, EventRecipient};
use crate::domain::message::{Attempt, AttemptOutcome, MessageState, Recipient, RecipientState, final_state};
use crate::domain::site::SiteId;
use crate::store::StoreError;

/// Corrects a letter that is held for this very attempt, inside a transaction; what is told of it, if there was one.
pub(super) async fn correct(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    late: &Outcome,
) -> Result<Option<Event>, StoreError> {
    let held = query!(
        r#"select recipients as "recipients: Json<Vec<Recipient>>", attempts as "attempts: Json<Vec<Attempt>>",
                  account_id, tags
           from messages
           where site_id = $1
             and message_id = $2
             and held_attempt = $3
             and state = 'uncertain'
           for update"#,
        site.as_str(),
        late.message,
        late.attempt,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(held) = held else { return Ok(None) };
    let recipients = corrected(held.recipients.0, &late.recipients);
    let attempts = retold(held.attempts.0, &late.attempts);
    let state = final_state(&recipients).unwrap_or(MessageState::Uncertain);
    query!(
        "update messages
         set state = $3,
             final_time = case when $3 <> 'uncertain' then now() else final_time end,
             recipients = $4,
             attempts = $5
         where site_id = $1
           and message_id = $2",
        site.as_str(),
        late.message,
        state.name(),
        Json(&recipients) as _,
        Json(attempts) as _,
    )
    .execute(connection)
    .await?;
    Ok(Some(Event::Message {
        message: late.message,
        account: held.account_id,
        tags: held.tags,
        state: state.name().to_owned(),
        recipients: recipients.iter().map(EventRecipient::from).collect(),
    }))
}

/// Those who are held get what became of them. Whom the server did not take has failed: only a person sends again.
fn corrected(mut held: Vec<Recipient>, late: &[Recipient]) -> Vec<Recipient> {
    let uncertain = |recipient: &&mut Recipient| recipient.state == RecipientState::Uncertain;
    for (recipient, known) in held.iter_mut().zip(late).filter(|(recipient, _)| uncertain(recipient)) {
        recipient.state = match known.state {
            RecipientState::Pending => RecipientState::Failed,
            state => state,
        };
        recipient.reply.clone_from(&known.reply);
    }
    held
}

/// The attempts, the interrupted one being told as it was after all.
fn retold(mut attempts: Vec<Attempt>, late: &[Attempt]) -> Vec<Attempt> {
    for known in late {
        let interrupted = attempts
            .iter_mut()
            .find(|a| a.number == known.number && a.outcome == AttemptOutcome::Interrupted);
        if let Some(interrupted) = interrupted {
            *interrupted = known.clone();
        }
    }
    attempts
}
