//! How the waiting of a letter ends otherwise than by an attempt, and how it begins anew.

use time::OffsetDateTime;

use super::{Attempt, AttemptOutcome, MessageState, Recipient, RecipientState, end_pending, final_state};
use crate::domain::reply::Reply;

/// What is told of a recipient for whom the dot was written by a server that ended before it knew the answer.
const AT_DOT: &str = "the server that made the attempt ended after it had sent the letter and before it knew the answer; whether it was taken is not known";
/// What is told of an attempt whose server ended.
const INTERRUPTED: &str = "the server that made this attempt ended before it could record the outcome";

/// Why a letter is not tried any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Somebody cancelled it.
    Cancelled,
    /// Its `expire_time` has passed.
    Expired,
    /// Its account could not send for too long.
    GivenUp,
    /// Its account was deleted, and no other may carry it.
    NoMatchingAccount,
}

impl Ending {
    /// What becomes of whoever is pending.
    const fn state(self) -> RecipientState {
        match self {
            Self::Cancelled => RecipientState::Cancelled,
            Self::Expired | Self::GivenUp | Self::NoMatchingAccount => RecipientState::Failed,
        }
    }

    /// What he is told.
    const fn words(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired: expire_time passed before the letter was sent",
            Self::GivenUp => "given up: the account could not send for as long as the retry intervals last",
            Self::NoMatchingAccount => {
                "NO_MATCHING_ACCOUNT: the account was deleted and no other has this address"
            }
        }
    }
}

/// Ends the waiting of those for whom the dot was written, by their numbers: it is not known whether they have the letter.
pub fn hold(recipients: &mut [Recipient], at_dot: &[i32]) {
    for number in at_dot {
        let recipient = usize::try_from(*number).ok().and_then(|number| recipients.get_mut(number));
        if let Some(recipient) = recipient {
            end_pending(std::slice::from_mut(recipient), RecipientState::Uncertain, &Reply::absent(AT_DOT));
        }
    }
}

/// Ends the waiting of everybody who is pending; of those `at_dot` as [`hold`] does.
pub fn end(recipients: &mut [Recipient], at_dot: &[i32], ending: Ending) -> MessageState {
    hold(recipients, at_dot);
    end_pending(recipients, ending.state(), &Reply::absent(ending.words()));
    // Nobody is pending any more.
    final_state(recipients).unwrap_or(MessageState::Failed)
}

/// Makes everybody pending, and due at once, who has not got the letter and was not cancelled; whether that is anybody.
/// The last words about each are kept.
pub fn reopen(recipients: &mut [Recipient]) -> bool {
    let mut anybody = false;
    for recipient in recipients {
        match recipient.state {
            RecipientState::Sent | RecipientState::Cancelled => {}
            RecipientState::Pending
            | RecipientState::Refused
            | RecipientState::Failed
            | RecipientState::Uncertain => {
                recipient.state = RecipientState::Pending;
                recipient.tries = 0;
                recipient.due = None;
                anybody = true;
            }
        }
    }
    anybody
}

impl Attempt {
    /// The attempt of this number, whose process ended without recording it, as was noticed at this time.
    #[must_use]
    pub fn interrupted(number: i32, noticed: OffsetDateTime) -> Self {
        Self {
            number,
            start_time: None,
            end_time: noticed,
            step: None,
            outcome: AttemptOutcome::Interrupted,
            reply: Reply::absent(INTERRUPTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, end, reopen};
    use crate::domain::message::{MessageState, Recipient, RecipientKind, RecipientState};
    use crate::domain::reply::Reply;

    fn recipients(states: &[RecipientState]) -> Vec<Recipient> {
        let ann = || "ann@example.com".to_owned();
        let of = |state: &RecipientState| Recipient {
            state: *state,
            tries: 3,
            due: Some(time::OffsetDateTime::UNIX_EPOCH),
            ..Recipient::new(ann(), ann(), RecipientKind::To)
        };
        states.iter().map(of).collect()
    }

    #[test]
    fn whoever_is_pending_gets_what_the_ending_says() {
        use Ending::{Expired, GivenUp, NoMatchingAccount};
        use RecipientState::{Cancelled, Failed, Pending, Refused, Sent, Uncertain};
        type Row = (Ending, [RecipientState; 2], &'static [i32], [RecipientState; 2], MessageState);
        let table: [Row; 9] = [
            (Ending::Cancelled, [Pending; 2], &[], [Cancelled; 2], MessageState::Cancelled),
            (Ending::Cancelled, [Sent, Pending], &[], [Sent, Cancelled], MessageState::PartiallySent),
            (Ending::Cancelled, [Refused, Pending], &[], [Refused, Cancelled], MessageState::Failed),
            (Ending::Cancelled, [Pending; 2], &[1], [Cancelled, Uncertain], MessageState::Uncertain),
            (Ending::Cancelled, [Sent, Pending], &[0], [Sent, Cancelled], MessageState::PartiallySent),
            (Ending::Cancelled, [Pending; 2], &[-1, 2], [Cancelled; 2], MessageState::Cancelled),
            (Expired, [Pending; 2], &[], [Failed; 2], MessageState::Failed),
            (GivenUp, [Uncertain, Pending], &[], [Uncertain, Failed], MessageState::Uncertain),
            (NoMatchingAccount, [Sent, Pending], &[], [Sent, Failed], MessageState::PartiallySent),
        ];
        for (ending, before, at_dot, after, state) in table {
            let mut of_letter = recipients(&before);
            let cell = format!("{ending:?} {before:?} {at_dot:?}");
            assert_eq!(end(&mut of_letter, at_dot, ending), state, "{cell}");
            assert_eq!(of_letter.iter().map(|r| r.state).collect::<Vec<_>>(), after, "{cell}");
            for (recipient, before) in of_letter.iter().zip(before) {
                assert_eq!(recipient.reply.is_some(), before == Pending, "{cell}");
            }
        }
    }

    #[test]
    fn whoever_has_not_got_it_is_tried_again_from_the_start() {
        use RecipientState::{Cancelled, Failed, Pending, Refused, Sent, Uncertain};
        for (before, after) in [
            (Pending, Some(Pending)),
            (Refused, Some(Pending)),
            (Failed, Some(Pending)),
            (Uncertain, Some(Pending)),
            (Sent, None),
            (Cancelled, None),
        ] {
            let mut of_letter = recipients(&[before]);
            of_letter[0].reply = Some(Reply::absent("words"));
            let unchanged = of_letter.clone();
            assert_eq!(reopen(&mut of_letter), after.is_some(), "{before:?}");
            match after {
                None => assert_eq!(of_letter, unchanged),
                Some(state) => {
                    let Recipient { mailbox: _, address: _, kind: _, state: now, reply, tries, due } =
                        &of_letter[0];
                    assert_eq!((*now, *tries, *due), (state, 0, None), "{before:?}");
                    assert_eq!(*reply, unchanged[0].reply, "{before:?}");
                }
            }
        }
    }
}
