//! Fields of requests: parsed into types that cannot be wrong, all violations collected with their paths.
//!
//! Every string of every request goes through one of these, before anything is done with it:
//!
//! | what it is | what reads it | what comes out |
//! |---|---|---|
//! | a name of ours (`name`, `parent`, filters) | [`site`], [`account`], [`sender`], [`message`], [`log`], [`Violations::within`] | [`SiteId`] and id |
//! | an address or mailbox | `domain::address`, `api::mailbox` | `Address`, `Mailbox` |
//! | a person of the site (`user`) | [`user`] | at most 128 characters without control characters |
//! | words for people (`display_name`, `sender_name`, tags, a filter by Message-ID) | [`text`] | at most so many characters, none of them a control character |
//! | `request_id` | [`request_id`] | at most 128 printable ASCII characters |
//! | `etag` | [`Etag`] | compared, never stored |
//! | `page_token`, `resume_token` | `api::page` | a place, proven by a MAC |
//! | `update_mask` and other paths | the list of the fields that can be changed | a field |
//! | host, user name and password of an account | `api::accounts::profile` | `Server`, `Login`, `Secret` |
//! | subject, headers, file names, content types and ids | `mime` | what a header may hold |
//! | text and HTML of a letter | `mime`, which encodes them | a body |
//! | `code` | `domain::sender` | six digits |
//!
//! `tests/api/walk` tries dozens of bad values in every field of every request and holds them to it.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::error::{Problem, Reason, Violation};
use crate::domain::log::LogId;
use crate::domain::site::SiteId;

/// Longest `user` in characters.
const MAX_USER: usize = 128;
/// Longest `request_id` in characters.
const MAX_REQUEST_ID: usize = 128;

/// Collects what is wrong with a request.
#[derive(Default)]
pub(super) struct Violations(Vec<Violation>);

impl Violations {
    /// Notes that the field at this path is wrong.
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation::new(field, description));
    }

    /// Notes violations whose paths begin below `prefix`.
    pub(super) fn extend(&mut self, prefix: &str, violations: Vec<Violation>) {
        self.0.extend(
            violations.into_iter().map(|v| Violation::new(format!("{prefix}{}", v.field), v.description)),
        );
    }

    /// The value, or `None` with the error noted.
    pub(super) fn take<T, E: ToString>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// The value, or `None` with the bad fields of the problem noted.
    pub(super) fn take_parsed<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.0.extend(problem.violations)).ok()
    }

    /// An id within this site, where one is named.
    pub(super) fn within<T>(
        &mut self,
        site: Option<&SiteId>,
        field: &str,
        name: &str,
        parse: impl Fn(&str, &str) -> Result<(SiteId, T), Problem>,
    ) -> Option<T> {
        if name.is_empty() {
            return None;
        }
        self.take_parsed(within(site, field, name, parse))
    }

    /// A time, where one is given.
    pub(super) fn time(
        &mut self,
        field: &str,
        value: Option<prost_types::Timestamp>,
    ) -> Option<OffsetDateTime> {
        value.and_then(|value| self.take(field, timestamp(value)))
    }

    /// What was parsed, if everything is right.
    ///
    /// # Errors
    /// `INVALID_FIELD` with all violations.
    pub(super) fn finish_with<T>(self, parsed: Option<T>) -> Result<T, Problem> {
        match parsed {
            Some(parsed) => self.finish().map(|()| parsed),
            None => Err(self.problem()),
        }
    }

    /// Everything that is wrong, for a call that cannot go on.
    pub(super) fn problem(self) -> Problem {
        Problem::invalid(self.0)
    }

    /// Nothing, or everything that is wrong.
    ///
    /// # Errors
    /// `INVALID_FIELD` with all violations.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// The site of `sites/{site}`.
pub(super) fn site(field: &str, name: &str) -> Result<SiteId, Problem> {
    name.strip_prefix("sites/").and_then(SiteId::parse).ok_or_else(|| {
        Problem::invalid_field(field, "must have the form sites/{site}, [a-z0-9][a-z0-9-]{0,62}")
    })
}

/// The site of `sites/{site}/settings`.
pub(super) fn settings_site(field: &str, name: &str) -> Result<SiteId, Problem> {
    name.strip_prefix("sites/")
        .and_then(|rest| rest.strip_suffix("/settings"))
        .and_then(SiteId::parse)
        .ok_or_else(|| Problem::invalid_field(field, "must have the form sites/{site}/settings"))
}

/// Site and id of `sites/{site}/accounts/{account}`.
pub(super) fn account(field: &str, name: &str) -> Result<(SiteId, i64), Problem> {
    numbered(name, "accounts")
        .ok_or_else(|| Problem::invalid_field(field, "must have the form sites/{site}/accounts/{number}"))
}

/// Site and id of `sites/{site}/senders/{sender}`.
pub(super) fn sender(field: &str, name: &str) -> Result<(SiteId, i64), Problem> {
    numbered(name, "senders")
        .ok_or_else(|| Problem::invalid_field(field, "must have the form sites/{site}/senders/{number}"))
}

/// Site and id of `sites/{site}/messages/{message}`.
pub(super) fn message(field: &str, name: &str) -> Result<(SiteId, Uuid), Problem> {
    child(name, "messages")
        .and_then(|(site, id)| Some((site, Uuid::try_parse(id).ok()?)))
        .ok_or_else(|| Problem::invalid_field(field, "must have the form sites/{site}/messages/{uuid}"))
}

/// Site and id of `sites/{site}/logs/{log}`.
pub(super) fn log(field: &str, name: &str) -> Result<(SiteId, LogId), Problem> {
    child(name, "logs").and_then(|(site, id)| Some((site, LogId::parse(id)?))).ok_or_else(|| {
        Problem::invalid_field(field, "must have the form sites/{site}/logs/{log}, such as send-admin-2")
    })
}

fn numbered(name: &str, collection: &str) -> Option<(SiteId, i64)> {
    let (site, id) = child(name, collection)?;
    let number = id.parse::<i64>().ok().filter(|number| *number > 0 && number.to_string() == id)?;
    Some((site, number))
}

fn child<'a>(name: &'a str, collection: &str) -> Option<(SiteId, &'a str)> {
    let mut parts = name.split('/');
    let fixed = (parts.next()? == "sites", SiteId::parse(parts.next()?)?, parts.next()? == collection);
    let (true, site, true) = fixed else { return None };
    let id = parts.next()?;
    parts.next().is_none().then_some((site, id))
}

/// An id within this site: `name` parsed by `parse`, or a violation where it is of another site. Without a site, for a call
/// whose own name is wrong, only its form counts.
pub(super) fn within<T>(
    site: Option<&SiteId>,
    field: &str,
    name: &str,
    parse: impl Fn(&str, &str) -> Result<(SiteId, T), Problem>,
) -> Result<T, Problem> {
    let (of, id) = parse(field, name)?;
    match site.filter(|site| of != **site) {
        None => Ok(id),
        Some(site) => Err(Problem::invalid_field(field, format!("must belong to {}", site.name()))),
    }
}

/// The site's own id of a person, opaque; empty for the site itself.
pub(super) fn user(id: String) -> Result<String, String> {
    text(&id, MAX_USER).map(|_| id)
}

/// The etag of a version of a thing.
pub(super) fn etag(kind: &str, version: i64) -> String {
    format!("{kind}-{version}")
}

/// Longest etag in characters; ours are far below.
const MAX_ETAG: usize = 128;

/// An etag as a caller gives it: none, or one that counts only if the thing still has it.
pub(super) struct Etag(Option<String>);

impl Etag {
    /// The etag of a request.
    ///
    /// # Errors
    /// What is wrong with it; whether it is stale is seen when it is compared.
    pub(super) fn parse(given: &str) -> Result<Self, String> {
        text(given, MAX_ETAG).map(|etag| Self(Some(etag).filter(|etag| !etag.is_empty())))
    }

    /// Whether the caller gave one.
    pub(super) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the caller gave none, or that of this version.
    pub(super) fn fits(&self, kind: &str, version: i64) -> bool {
        self.0.as_ref().is_none_or(|given| *given == etag(kind, version))
    }
}

/// What answers a stale etag.
pub(super) fn etag_mismatch(name: &str) -> Problem {
    let text = format!("{name} was changed meanwhile: read it again");
    Problem::new(Reason::EtagMismatch, text).with("name", name)
}

/// A request id, if there is one.
pub(super) fn request_id(id: &str) -> Result<Option<&str>, &'static str> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.len() > MAX_REQUEST_ID || !id.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err("must be at most 128 printable ASCII characters");
    }
    Ok(Some(id))
}

/// A text of at most `max` characters without control characters.
pub(super) fn text(value: &str, max: usize) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    if value.chars().count() > max {
        return Err(format!("must be at most {max} characters"));
    }
    Ok(value.to_owned())
}

/// A duration that is not negative.
pub(super) fn duration(value: prost_types::Duration) -> Result<Duration, &'static str> {
    const RULE: &str = "must be a duration that is not negative";
    let nanoseconds = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or(RULE)?;
    let seconds = u64::try_from(value.seconds).map_err(|_| RULE)?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// A point in time.
pub(super) fn timestamp(value: prost_types::Timestamp) -> Result<OffsetDateTime, &'static str> {
    const RANGE: &str = "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z";
    let nanoseconds = i64::from(value.nanos);
    if !(0..1_000_000_000).contains(&nanoseconds) {
        return Err(RANGE);
    }
    let time = OffsetDateTime::from_unix_timestamp(value.seconds).map_err(|_| RANGE)?;
    let time = time + time::Duration::nanoseconds(nanoseconds);
    if (1..=9999).contains(&time.year()) { Ok(time) } else { Err(RANGE) }
}

/// A point in time as it is sent.
pub(super) fn to_timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}

/// A duration as it is sent.
pub(super) fn to_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{account, log, message, request_id, site, timestamp};

    #[test]
    fn names() {
        assert!(site("parent", "sites/shop").is_ok());
        for wrong in
            ["", "shop", "sites/", "sites/Shop", "sites/-", "sites/shop/", "sites/a/b", "sites/shop\n"]
        {
            assert!(site("parent", wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(account("name", "sites/shop/accounts/7").expect("right").1, 7);
        for wrong in
            ["sites/shop/accounts/0", "sites/shop/accounts/07", "sites/shop/accounts/-1", "sites/shop/logs/7"]
        {
            assert!(account("name", wrong).is_err(), "{wrong:?}");
        }
        assert!(message("name", "sites/shop/messages/01890c5e-7a3c-7c3e-9d2b-0f1e2d3c4b5a").is_ok());
        assert!(message("name", "sites/shop/messages/1").is_err());
        assert!(log("name", "sites/shop/logs/check-admin-0").is_ok());
        assert!(log("name", "sites/shop/logs/other").is_err());
    }

    #[test]
    fn request_ids() {
        assert_eq!(request_id(""), Ok(None));
        assert_eq!(request_id("a-1"), Ok(Some("a-1")));
        assert!(request_id("a\n").is_err());
        assert!(request_id(&"a".repeat(129)).is_err());
    }

    #[test]
    fn times() {
        for (seconds, nanos, right) in [
            (0, 0, true),
            (0, -1, false),
            (0, 1_000_000_000, false),
            (i64::MAX, 0, false),
            (-62_135_596_801, 0, false),
        ] {
            let time = timestamp(prost_types::Timestamp { seconds, nanos });
            assert_eq!(time.is_ok(), right, "{seconds} {nanos}");
        }
    }
}
