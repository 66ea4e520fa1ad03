//! What is wrong with an account when no session can be opened: pure.

use super::rules;
use crate::domain::outcome::Step;
use crate::domain::parking::ParkingReason;
use crate::smtp::{Failure, FailureKind};
use crate::store::parking::Trouble;

/// The trouble that a failure to open a session amounts to.
pub(super) fn of_failure(failure: &Failure) -> Trouble {
    let by_rule = rules::parking(failure.step, &failure.reply);
    let lasting = by_rule.is_some() || failure.kind != FailureKind::Temporary;
    let reason = by_rule.unwrap_or(match (failure.step, failure.kind) {
        (Step::Auth, _) => ParkingReason::AuthFailed,
        (_, FailureKind::Temporary) => ParkingReason::Unreachable,
        (_, FailureKind::Permanent | FailureKind::NotAllowed) => ParkingReason::Configuration,
    });
    let advice = failure.advice.as_deref().map(|advice| format!(" ({advice})")).unwrap_or_default();
    Trouble { reason, error: format!("{failure}{advice}"), lasting, version: None }
}

#[cfg(test)]
mod tests {
    use super::of_failure;
    use crate::domain::outcome::Step;
    use crate::domain::parking::ParkingReason;
    use crate::domain::reply::Reply;
    use crate::smtp::{Failure, FailureKind};

    #[test]
    fn what_a_failure_amounts_to() {
        use FailureKind::{NotAllowed, Permanent, Temporary};
        use ParkingReason::{AuthFailed, Configuration, Quota, Unreachable};
        let table = [
            (Step::Resolve, Temporary, 0, "", Unreachable, false),
            (Step::Resolve, NotAllowed, 0, "", Configuration, true),
            (Step::Connect, Temporary, 421, "", Unreachable, false),
            (Step::Connect, Permanent, 554, "", Configuration, true),
            (Step::Tls, Permanent, 0, "", Configuration, true),
            (Step::Auth, Permanent, 535, "5.7.8", AuthFailed, true),
            (Step::Auth, Temporary, 454, "4.7.0", AuthFailed, false),
            (Step::Auth, Temporary, 432, "4.3.2", Quota, true),
            (Step::Auth, Permanent, 550, "5.7.30", AuthFailed, true),
        ];
        for (step, kind, code, enhanced, reason, lasting) in table {
            let reply = Reply { code, enhanced_code: enhanced.to_owned(), text: "no".to_owned() };
            let failure = Failure { step, kind, reply, advice: Some("do something".to_owned()) };
            let trouble = of_failure(&failure);
            assert_eq!((trouble.reason, trouble.lasting), (reason, lasting), "{failure}");
            assert!(trouble.error.ends_with("(do something)"), "{}", trouble.error);
        }
    }
}
