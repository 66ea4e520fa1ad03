//! What follows an attempt, by tables.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    AttemptOutcome, MessageState, Next, Policy, Recipient, RecipientKind, RecipientState, conclude,
    end_pending, final_state, summarise,
};
use crate::domain::outcome::{Again, Class, RecipientResult, Scope, Step, Verdict};
use crate::domain::reply::Reply;
use crate::domain::settings::OnUncertain;

const HOUR: Duration = Duration::from_hours(1);
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn recipients(states: &[(RecipientState, u32)]) -> Vec<Recipient> {
    let recipient = |&(state, tries): &(RecipientState, u32)| Recipient {
        state,
        tries,
        ..Recipient::new("ann@example.com".to_owned(), "ann@example.com".to_owned(), RecipientKind::To)
    };
    states.iter().map(recipient).collect()
}

fn result(class: Class) -> RecipientResult {
    RecipientResult { class, step: Step::Envelope, reply: Reply::absent(format!("{class:?}")) }
}

fn verdict(class: Class, again: Again) -> Verdict {
    Verdict { result: result(class), scope: Scope::Recipient, again }
}

fn policy(on_uncertain: OnUncertain) -> Policy<'static> {
    const INTERVALS: [Duration; 2] = [HOUR, Duration::from_hours(2)];
    Policy { retry_intervals: &INTERVALS, on_uncertain, expire_time: None, jitter: 0.0 }
}

#[test]
fn a_recipient_gets_what_his_result_says() {
    use Again::{ByInterval, In, Uncounted};
    use Class::{Refused, Retry, Sent, Uncertain, Untried};
    use OnUncertain::{Hold, Resend};
    use RecipientState as R;
    type Row = (u32, Class, Again, OnUncertain, R, u32, Option<Duration>);
    let minutes = Duration::from_mins;
    let table: [Row; 14] = [
        (0, Sent, ByInterval, Resend, R::Sent, 0, None),
        (0, Refused, ByInterval, Resend, R::Refused, 0, None),
        (0, Retry, ByInterval, Resend, R::Pending, 1, Some(HOUR)),
        (1, Retry, ByInterval, Resend, R::Pending, 2, Some(2 * HOUR)),
        (2, Retry, ByInterval, Resend, R::Failed, 3, None),
        (0, Retry, In(minutes(5)), Resend, R::Pending, 1, Some(minutes(5))),
        (2, Retry, In(minutes(5)), Resend, R::Failed, 3, None),
        (2, Retry, Uncounted(minutes(5)), Resend, R::Pending, 2, Some(minutes(5))),
        (1, Uncertain, ByInterval, Resend, R::Pending, 2, Some(2 * HOUR)),
        (2, Uncertain, ByInterval, Resend, R::Uncertain, 3, None),
        (0, Uncertain, ByInterval, Hold, R::Uncertain, 0, None),
        (2, Untried, ByInterval, Resend, R::Pending, 2, Some(Duration::ZERO)),
        (2, Untried, Uncounted(minutes(1)), Hold, R::Pending, 2, Some(minutes(1))),
        (2, Sent, ByInterval, Hold, R::Sent, 2, None),
    ];
    for (tries, class, again, on_uncertain, state, tried, due) in table {
        let mut letter = recipients(&[(R::Pending, tries)]);
        let next = conclude(&mut letter, vec![(0, verdict(class, again))], &policy(on_uncertain), NOW);
        let told = (letter[0].state, letter[0].tries, letter[0].due);
        let due = due.map(|wait| NOW + wait);
        assert_eq!(told, (state, tried, due), "{tries} {class:?} {again:?} {on_uncertain:?}");
        match due {
            Some(due) => assert_eq!(next, Next::Due(due)),
            None if on_uncertain == Hold && class == Uncertain => assert_eq!(next, Next::Held),
            None => assert!(matches!(next, Next::Final(_))),
        }
    }
}

#[test]
fn each_recipient_waits_by_himself() {
    use RecipientState::{Pending, Sent};
    let mut letter = recipients(&[(Sent, 0), (Pending, 0), (Pending, 1), (Pending, 0)]);
    letter[3].due = Some(NOW + 3 * HOUR);
    let verdicts =
        vec![(1, verdict(Class::Retry, Again::ByInterval)), (2, verdict(Class::Retry, Again::ByInterval))];
    let next = conclude(&mut letter, verdicts, &policy(OnUncertain::Resend), NOW);
    assert_eq!(next, Next::Due(NOW + HOUR));
    let dues: Vec<_> = letter.iter().map(|r| r.due).collect();
    assert_eq!(dues, [None, Some(NOW + HOUR), Some(NOW + 2 * HOUR), Some(NOW + 3 * HOUR)]);
    // Who has it already is not touched by a verdict about him.
    let next = conclude(
        &mut letter,
        vec![(0, verdict(Class::Refused, Again::ByInterval))],
        &policy(OnUncertain::Resend),
        NOW,
    );
    assert_eq!((letter[0].state, next), (Sent, Next::Due(NOW + HOUR)));
}

#[test]
fn nothing_is_due_after_the_letter_expired() {
    let mut letter = recipients(&[(RecipientState::Pending, 0), (RecipientState::Pending, 0)]);
    let policy = Policy { expire_time: Some(NOW + HOUR), ..policy(OnUncertain::Resend) };
    let verdicts = vec![
        (0, verdict(Class::Retry, Again::ByInterval)),
        (1, verdict(Class::Retry, Again::In(Duration::from_mins(5)))),
    ];
    let next = conclude(&mut letter, verdicts, &policy, NOW);
    assert_eq!(next, Next::Due(NOW + Duration::from_mins(5)));
    assert_eq!(letter[0].state, RecipientState::Failed);
}

#[test]
fn jitter_adds_at_most_a_tenth() {
    let mut letter = recipients(&[(RecipientState::Pending, 0)]);
    let policy = Policy { jitter: 1.0, ..policy(OnUncertain::Resend) };
    let next = conclude(&mut letter, vec![(0, verdict(Class::Retry, Again::ByInterval))], &policy, NOW);
    assert_eq!(next, Next::Due(NOW + HOUR.mul_f64(1.1)));
}

#[test]
fn a_letter_has_the_state_of_its_recipients() {
    use MessageState as M;
    use RecipientState::{Cancelled, Failed, Pending, Refused, Sent, Uncertain};
    let table: [(&[RecipientState], Option<M>); 9] = [
        (&[Sent, Pending, Uncertain], None),
        (&[Sent, Uncertain, Failed], Some(M::Uncertain)),
        (&[Sent, Sent], Some(M::Sent)),
        (&[Sent, Refused], Some(M::PartiallySent)),
        (&[Sent, Cancelled], Some(M::PartiallySent)),
        (&[Failed, Refused], Some(M::Failed)),
        (&[Cancelled, Refused], Some(M::Failed)),
        (&[Cancelled, Cancelled], Some(M::Cancelled)),
        (&[Uncertain, Cancelled], Some(M::Uncertain)),
    ];
    for (states, expected) in table {
        let states: Vec<_> = states.iter().map(|state| (*state, 0)).collect();
        assert_eq!(final_state(&recipients(&states)), expected, "{states:?}");
    }
}

#[test]
fn waiting_ends_for_those_who_wait() {
    use RecipientState::{Cancelled, Pending, Sent};
    let mut letter = recipients(&[(Sent, 0), (Pending, 1)]);
    letter[1].due = Some(NOW);
    end_pending(&mut letter, Cancelled, &Reply::absent("cancelled"));
    assert_eq!([letter[0].state, letter[1].state], [Sent, Cancelled]);
    assert_eq!(letter[1].due, None);
}

#[test]
fn the_worst_news_speaks_for_an_attempt() {
    use Class::{Refused, Retry, Sent, Uncertain, Untried};
    for (classes, outcome) in [
        (&[Sent, Sent][..], AttemptOutcome::Sent),
        (&[Sent, Refused], AttemptOutcome::PartiallySent),
        (&[Sent, Retry, Refused], AttemptOutcome::PartiallySent),
        (&[Sent, Untried], AttemptOutcome::Sent),
        (&[Retry, Refused], AttemptOutcome::Retry),
        (&[Refused], AttemptOutcome::Refused),
        (&[Sent, Uncertain], AttemptOutcome::Uncertain),
    ] {
        let results: Vec<_> = classes.iter().map(|class| result(*class)).collect();
        assert_eq!(summarise(&results.iter().collect::<Vec<_>>()).0, outcome, "{classes:?}");
    }
}
