//! The meaning of replies (`rules.toml`): class, how far it reaches, what the account is parked for. Pure.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::outcome::{Again, Class, RecipientResult, Scope, Step, Verdict};
use crate::domain::parking::ParkingReason;
use crate::domain::reply::Reply;

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let table: Table =
        toml::from_str(include_str!("rules.toml")).expect("a test parses the table that is compiled in");
    table.rule
});

/// What a server asks to wait is obeyed up to this: longer is no hint about greylisting any more.
const LONGEST_WISH: Duration = Duration::from_hours(24);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rule: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    codes: Vec<u16>,
    #[serde(default)]
    enhanced: Vec<String>,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    words: Vec<String>,
    class: Judgement,
    scope: Scope,
    parking: Option<ParkingReason>,
    source: String,
}

/// The classes that a rule can give.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Judgement {
    Retry,
    Refused,
}

impl Rule {
    fn matches(&self, step: Step, reply: &Reply) -> bool {
        let words = || {
            let text = reply.text.to_lowercase();
            self.words.iter().any(|word| text.contains(word))
        };
        (reply.is_transient() || reply.is_permanent())
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty() || self.enhanced.contains(&reply.enhanced_code))
            && (self.steps.is_empty() || self.steps.contains(&step))
            && (self.words.is_empty() || words())
    }
}

/// What the rules make of a result.
pub(super) fn judge(mut result: RecipientResult) -> Verdict {
    let again = |result: &RecipientResult| match wish(&result.reply.text) {
        Some(wait) if result.class == Class::Retry => Again::In(wait),
        _ => Again::ByInterval,
    };
    if !matches!(result.class, Class::Retry | Class::Refused) {
        return Verdict { result, scope: Scope::Recipient, again: Again::ByInterval };
    }
    let Some(rule) = rule_for(result.step, &result.reply) else {
        let again = again(&result);
        return Verdict { result, scope: Scope::Recipient, again };
    };
    tracing::debug!(
        code = result.reply.code,
        meaning = rule.source,
        "a reply means more than its first digit"
    );
    result.class = match rule.class {
        Judgement::Retry => Class::Retry,
        Judgement::Refused => Class::Refused,
    };
    let again = if rule.scope == Scope::Account { Again::Uncounted(Duration::ZERO) } else { again(&result) };
    Verdict { result, scope: rule.scope, again }
}

/// How far a result reaches.
pub(super) fn reach(result: &RecipientResult) -> Scope {
    rule_for(result.step, &result.reply).map_or(Scope::Recipient, |rule| rule.scope)
}

/// What an account is parked for by this reply; `None` where it is not.
pub(super) fn parking(step: Step, reply: &Reply) -> Option<ParkingReason> {
    let rule = rule_for(step, reply).filter(|rule| rule.scope == Scope::Account)?;
    Some(rule.parking.unwrap_or(ParkingReason::Configuration))
}

fn rule_for(step: Step, reply: &Reply) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.matches(step, reply))
}

/// How long a server asks to wait: "try again in 5 minutes", "please retry after 300s".
fn wish(text: &str) -> Option<Duration> {
    /// Words of which one stands shortly before such a time.
    const ASKING: [&str; 8] =
        ["again", "retry", "wait", "back", "later", "greylisted", "greylisting", "greylist"];
    let text = text.to_lowercase();
    let words = words(&text);
    words.windows(2).enumerate().find_map(|(place, pair)| {
        let &[number, unit] = pair else { return None };
        let unit = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => Duration::from_secs(1),
            "m" | "min" | "mins" | "minute" | "minutes" => Duration::from_mins(1),
            "h" | "hour" | "hours" => Duration::from_hours(1),
            _ => return None,
        };
        let number: u32 = number.parse().ok()?;
        let before = &words[place.saturating_sub(4)..place];
        let asked = before.iter().any(|word| ASKING.contains(word));
        asked.then(|| unit.saturating_mul(number).min(LONGEST_WISH))
    })
}

/// Words and numbers, also where they touch: `300s` is two.
fn words(text: &str) -> Vec<&str> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts
        .flat_map(|part| match part.find(|c: char| !c.is_ascii_digit()) {
            Some(end) if end > 0 => {
                let (number, unit) = part.split_at(end);
                [Some(number), Some(unit)]
            }
            _ => [Some(part), None],
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RULES, judge, parking, reach, wish};
    use crate::domain::outcome::{Again, Class, RecipientResult, Scope, Step};
    use crate::domain::parking::ParkingReason;
    use crate::domain::reply::Reply;

    fn result(step: Step, line: &str) -> RecipientResult {
        let (code, rest) = line.split_once(' ').expect("a code");
        let enhanced = rest.split(' ').next().filter(|word| word.split('.').count() == 3).unwrap_or_default();
        let text = rest.trim_start_matches(enhanced).trim();
        let reply = Reply {
            code: code.parse().expect("a number"),
            enhanced_code: enhanced.to_owned(),
            text: text.to_owned(),
        };
        let class = match reply.code / 100 {
            2 => Class::Sent,
            4 => Class::Retry,
            _ => Class::Refused,
        };
        RecipientResult { class, step, reply }
    }

    #[test]
    fn the_table_is_sound() {
        for rule in RULES.iter() {
            assert_eq!(rule.parking.is_some(), rule.scope == Scope::Account, "{}", rule.source);
            assert!(rule.words.iter().all(|word| *word == word.to_lowercase()), "{}", rule.source);
            let narrows = rule.codes.len() + rule.enhanced.len() + rule.words.len();
            assert!(narrows > 0, "{} matches everything", rule.source);
        }
    }

    #[test]
    fn what_replies_mean() {
        use ParkingReason::{AuthFailed, Configuration, Quota};
        use Step::{Acceptance, Auth, Content, Envelope};
        let table = [
            (Envelope, "250 2.1.5 ok", Class::Sent, Scope::Recipient, None),
            (Envelope, "550 5.1.1 no such user", Class::Refused, Scope::Recipient, None),
            (Envelope, "451 4.3.0 not now", Class::Retry, Scope::Recipient, None),
            (Envelope, "552 5.2.3 larger than this mailbox takes", Class::Refused, Scope::Recipient, None),
            (Envelope, "552 5.3.4 larger than we take", Class::Refused, Scope::Message, None),
            (Envelope, "552 5.2.2 mailbox quota exceeded", Class::Refused, Scope::Recipient, None),
            (Auth, "535 5.7.8 wrong password", Class::Retry, Scope::Account, Some(AuthFailed)),
            (
                Auth,
                "550 5.7.30 basic authentication is not supported",
                Class::Retry,
                Scope::Account,
                Some(AuthFailed),
            ),
            (
                Envelope,
                "530 5.7.0 must issue STARTTLS first",
                Class::Retry,
                Scope::Account,
                Some(Configuration),
            ),
            (
                Envelope,
                "550 5.4.5 daily user sending limit exceeded",
                Class::Retry,
                Scope::Account,
                Some(Quota),
            ),
            (
                Content,
                "432 4.3.2 concurrent connections limit exceeded",
                Class::Retry,
                Scope::Account,
                Some(Quota),
            ),
            (
                Acceptance,
                "554 5.2.0 SubmissionQuotaExceededException",
                Class::Retry,
                Scope::Account,
                Some(Quota),
            ),
            (Acceptance, "554 5.2.252 SendAsDenied", Class::Refused, Scope::Message, None),
            (Acceptance, "554 5.7.1 looks like spam", Class::Refused, Scope::Message, None),
            (Envelope, "554 5.7.1 looks like spam", Class::Refused, Scope::Recipient, None),
            (Envelope, "550 authentication required", Class::Retry, Scope::Account, Some(Configuration)),
        ];
        for (step, line, class, scope, reason) in table {
            let result = result(step, line);
            if class != Class::Sent {
                assert_eq!(reach(&result), scope, "{line}");
                assert_eq!(parking(step, &result.reply), reason, "{line}");
            }
            let verdict = judge(result);
            assert_eq!((verdict.result.class, verdict.scope), (class, scope), "{line}");
            let uncounted = matches!(verdict.again, Again::Uncounted(_));
            assert_eq!(uncounted, reason.is_some(), "{line}");
        }
    }

    #[test]
    fn a_server_may_ask_for_time() {
        let minutes = Duration::from_mins;
        for (text, wait) in [
            ("Greylisted, please try again in 5 minutes", Some(minutes(5))),
            ("greylisting in effect, retry after 300 seconds", Some(minutes(5))),
            ("Try again in 1 hour.", Some(minutes(60))),
            ("come back in 10 min", Some(minutes(10))),
            ("Please wait 900s", Some(minutes(15))),
            ("Greylisted for 300 seconds", Some(minutes(5))),
            ("please wait 900 s", Some(minutes(15))),
            ("you sent 5 minutes ago", None),
            ("try again later", None),
            ("try again in 99999999 hours", Some(Duration::from_hours(24))),
            ("try again in 99999999999999 hours", None),
            ("", None),
        ] {
            assert_eq!(wish(text), wait, "{text}");
        }
        let verdict = judge(result(Step::Envelope, "450 4.2.0 greylisted, try again in 5 minutes"));
        assert_eq!(verdict.again, Again::In(minutes(5)));
    }
}
