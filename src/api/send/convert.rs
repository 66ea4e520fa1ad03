//! Letters as they are answered.

use crate::api::accounts::convert::{reply, step};
use crate::api::fields;
use crate::api::proto::message::State as ProtoState;
use crate::api::proto::{
    Attempt as ProtoAttempt, Message as ProtoMessage, Recipient as ProtoRecipient, attempt, recipient,
};
use crate::domain::account::account_name;
use crate::domain::message::{
    Attempt, AttemptOutcome, Message, MessageState, Recipient, RecipientKind, RecipientState,
};

/// A letter as it is answered, without its content.
pub(super) fn message(message: Message) -> ProtoMessage {
    let Message {
        site,
        id,
        account,
        mailing,
        user,
        copy_to_sender,
        send_time,
        expire_time,
        tags,
        from_address,
        message_id,
        recipients,
        attempts,
        state,
        next_attempt_time,
        create_time,
        final_time,
        size_bytes,
    } = message;
    ProtoMessage {
        name: format!("{}/messages/{id}", site.name()),
        from_address,
        to: of_kind(&recipients, RecipientKind::To),
        cc: of_kind(&recipients, RecipientKind::Cc),
        bcc: of_kind(&recipients, RecipientKind::Bcc),
        content: None,
        mailing,
        user,
        account: account_name(&site, account),
        copy_to_sender,
        send_time: send_time.map(fields::to_timestamp),
        expire_time: expire_time.map(fields::to_timestamp),
        tags,
        state: state_to_proto(state).into(),
        message_id,
        recipients: recipients.into_iter().map(recipient).collect(),
        attempts: attempts.into_iter().map(attempt).collect(),
        next_attempt_time: next_attempt_time.map(fields::to_timestamp),
        create_time: Some(fields::to_timestamp(create_time)),
        final_time: final_time.map(fields::to_timestamp),
        size: size_bytes,
    }
}

fn of_kind(recipients: &[Recipient], kind: RecipientKind) -> Vec<String> {
    recipients.iter().filter(|r| r.kind == kind).map(|r| r.mailbox.clone()).collect()
}

pub(super) fn recipient(recipient: Recipient) -> ProtoRecipient {
    let Recipient { mailbox: _, address, kind, state, reply: last, tries: _, due: _ } = recipient;
    ProtoRecipient {
        address,
        kind: match kind {
            RecipientKind::To => recipient::Kind::To,
            RecipientKind::Cc => recipient::Kind::Cc,
            RecipientKind::Bcc => recipient::Kind::Bcc,
            RecipientKind::Copy => recipient::Kind::Copy,
        }
        .into(),
        state: recipient_state(state).into(),
        reply: last.map(reply),
    }
}

pub(super) const fn recipient_state(state: RecipientState) -> recipient::State {
    match state {
        RecipientState::Pending => recipient::State::Pending,
        RecipientState::Sent => recipient::State::Sent,
        RecipientState::Refused => recipient::State::Refused,
        RecipientState::Failed => recipient::State::Failed,
        RecipientState::Uncertain => recipient::State::Uncertain,
        RecipientState::Cancelled => recipient::State::Cancelled,
    }
}

fn attempt(attempt: Attempt) -> ProtoAttempt {
    let Attempt { number, start_time, end_time, step: decided, outcome, reply: words } = attempt;
    ProtoAttempt {
        number,
        start_time: start_time.map(fields::to_timestamp),
        end_time: Some(fields::to_timestamp(end_time)),
        step: decided.map(step).unwrap_or_default().into(),
        outcome: match outcome {
            AttemptOutcome::Sent => attempt::Outcome::Sent,
            AttemptOutcome::PartiallySent => attempt::Outcome::PartiallySent,
            AttemptOutcome::Retry => attempt::Outcome::Retry,
            AttemptOutcome::Refused => attempt::Outcome::Refused,
            AttemptOutcome::Uncertain => attempt::Outcome::Uncertain,
            AttemptOutcome::Interrupted => attempt::Outcome::Interrupted,
        }
        .into(),
        reply: Some(reply(words)),
    }
}

pub(super) const fn state_to_proto(state: MessageState) -> ProtoState {
    match state {
        MessageState::Queued => ProtoState::Queued,
        MessageState::Sending => ProtoState::Sending,
        MessageState::Uncertain => ProtoState::Uncertain,
        MessageState::Sent => ProtoState::Sent,
        MessageState::PartiallySent => ProtoState::PartiallySent,
        MessageState::Failed => ProtoState::Failed,
        MessageState::Cancelled => ProtoState::Cancelled,
    }
}

/// The state of this number; `None` for one that says nothing.
pub(super) fn state_from_proto(state: i32) -> Option<MessageState> {
    match ProtoState::try_from(state).ok()? {
        ProtoState::Unspecified => None,
        ProtoState::Queued => Some(MessageState::Queued),
        ProtoState::Sending => Some(MessageState::Sending),
        ProtoState::Uncertain => Some(MessageState::Uncertain),
        ProtoState::Sent => Some(MessageState::Sent),
        ProtoState::PartiallySent => Some(MessageState::PartiallySent),
        ProtoState::Failed => Some(MessageState::Failed),
        ProtoState::Cancelled => Some(MessageState::Cancelled),
    }
}
