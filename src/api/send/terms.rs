//! What a letter asks for beside its sender, its recipients and its content: when it is sent, a copy, tags.

use time::{Duration, OffsetDateTime};

use crate::api::fields::{self, Violations};

/// How far ahead a letter may be sent.
const MAX_AHEAD: Duration = Duration::days(365);
/// Most tags of a letter.
const MAX_TAGS: usize = 10;
/// Longest tag in characters.
const MAX_TAG: usize = 64;

/// What a letter asks for.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Whether the sender gets a copy.
    pub(super) copy_to_sender: bool,
    /// Not sent before.
    pub(super) send_time: Option<OffsetDateTime>,
    /// Not sent after.
    pub(super) expire_time: Option<OffsetDateTime>,
    /// Tags, each once, in the order given.
    pub(super) tags: Vec<String>,
}

impl Terms {
    /// What stands in the Date of a letter that is accepted now.
    pub(super) fn date(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.send_time.map_or(now, |send_time| send_time.max(now))
    }
}

/// `send_time` and `expire_time` of a letter that is accepted now.
pub(super) fn times(
    send_time: Option<prost_types::Timestamp>,
    expire_time: Option<prost_types::Timestamp>,
    now: OffsetDateTime,
    violations: &mut Violations,
) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
    let mut time = |field: &str, value: Option<prost_types::Timestamp>| {
        value.and_then(|value| violations.take(field, fields::timestamp(value))).map(to_microseconds)
    };
    let (send_time, expire_time) =
        (time("message.send_time", send_time), time("message.expire_time", expire_time));
    if send_time.is_some_and(|send_time| send_time > now + MAX_AHEAD) {
        violations.add("message.send_time", format!("must be at most {} days ahead", MAX_AHEAD.whole_days()));
    }
    if expire_time.is_some_and(|end| end <= now || send_time.is_some_and(|start| end <= start)) {
        violations.add("message.expire_time", "must be in the future, and later than send_time");
    }
    (send_time, expire_time)
}

/// As precise as times are stored, so that what differs here differs there.
fn to_microseconds(time: OffsetDateTime) -> OffsetDateTime {
    time - Duration::nanoseconds(i64::from(time.nanosecond() % 1_000))
}

/// Tags of a letter, each once.
pub(super) fn tags(given: Vec<String>, violations: &mut Violations) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for (index, given) in given.into_iter().enumerate() {
        let Some(tag) = violations.take(&format!("message.tags[{index}]"), tag(&given)) else { continue };
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS {
            violations.add("message.tags", format!("must be at most {MAX_TAGS}"));
            break;
        }
    }
    tags
}

/// A tag to find letters by; none where it is empty.
pub(super) fn tag_of_filter(given: &str) -> Result<Option<String>, String> {
    if given.is_empty() { Ok(None) } else { tag(given).map(Some) }
}

fn tag(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Err(format!("must be 1 to {MAX_TAG} characters"));
    }
    fields::text(given, MAX_TAG)
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use time::OffsetDateTime;

    use super::{Terms, tags, times};
    use crate::api::fields::Violations;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const DAY: i64 = 86_400;

    fn fields_of(violations: Violations) -> Vec<String> {
        let problem = violations.finish().err();
        problem.map_or_else(Vec::new, |problem| problem.violations.into_iter().map(|v| v.field).collect())
    }

    #[test]
    fn times_have_an_order() {
        type Row<'a> = (Option<Timestamp>, Option<Timestamp>, &'a [&'a str]);
        let at = |seconds: i64| Some(Timestamp { seconds, nanos: 0 });
        let nanos = |nanos: i32| Some(Timestamp { seconds: 9, nanos });
        let (send, expire) = ("message.send_time", "message.expire_time");
        let table: [Row<'_>; 11] = [
            (None, None, &[]),
            (at(-9), at(1), &[]),
            (at(365 * DAY), at(365 * DAY + 1), &[]),
            (at(365 * DAY + 1), None, &[send]),
            (None, at(0), &[expire]),
            (None, at(-1), &[expire]),
            (at(9), at(9), &[expire]),
            (at(9), at(8), &[expire]),
            (nanos(1), nanos(999), &[expire]),
            (nanos(1), nanos(1_001), &[]),
            (at(i64::MAX), at(i64::MIN), &[send, expire]),
        ];
        for (send_time, expire_time, expected) in table {
            let mut violations = Violations::default();
            times(send_time, expire_time, NOW, &mut violations);
            assert_eq!(fields_of(violations), expected, "{send_time:?} {expire_time:?}");
        }
    }

    #[test]
    fn a_letter_is_dated_when_it_may_first_be_sent() {
        let of = |send_time| Terms { copy_to_sender: false, send_time, expire_time: None, tags: Vec::new() };
        let (before, after) = (NOW - super::MAX_AHEAD, NOW + super::MAX_AHEAD);
        for (send_time, date) in [(None, NOW), (Some(before), NOW), (Some(after), after)] {
            assert_eq!(of(send_time).date(NOW), date);
        }
    }

    #[test]
    fn tags_are_few_short_and_each_there_once() {
        let check = |given: &[&str]| {
            let mut violations = Violations::default();
            let tags = tags(given.iter().map(|tag| (*tag).to_owned()).collect(), &mut violations);
            (tags, fields_of(violations))
        };
        assert_eq!(check(&["b", "a", "b"]), (vec!["b".to_owned(), "a".to_owned()], vec![]));
        let (short, long) = ("ä".repeat(64), "ä".repeat(65));
        assert_eq!(
            check(&[&short, "", &long, "a\0"]).1,
            ["message.tags[1]", "message.tags[2]", "message.tags[3]"]
        );
        let many: Vec<String> = (0..11).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(check(&many).1, ["message.tags"]);
        let repeated: Vec<&str> = many[..10].iter().chain(&many[..10]).copied().collect();
        assert_eq!(check(&repeated).0, &many[..10]);
    }
}
