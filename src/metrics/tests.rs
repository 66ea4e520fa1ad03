//! What is counted is told, under the names that docs/operations.md has.

use std::time::{Duration, Instant};

use super::*;
use crate::domain::message::MessageState;
use crate::domain::outcome::{Class, Scope, Step};
use crate::domain::parking::ParkingReason;

/// The lines that begin so.
fn lines(metrics: &Metrics, start: &str) -> Vec<String> {
    let text = metrics.render().expect("text");
    assert!(text.ends_with("# EOF\n"));
    text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn series_are_there_before_anything_happened() {
    let metrics = Metrics::new();
    assert_eq!(lines(&metrics, "postroom_attempt_results_total{").len(), 12);
    assert_eq!(lines(&metrics, "postroom_smtp_session_failures_total{").len(), 5);
    assert_eq!(lines(&metrics, "postroom_rpc_seconds"), Vec::<String>::new());
    assert_eq!(lines(&metrics, "postroom_queue_"), ["postroom_queue_known 0"]);
    assert_eq!(lines(&metrics, "postroom_build_info")[0].matches(env!("CARGO_PKG_VERSION")).count(), 1);
}

#[test]
fn each_is_counted_by_its_own_name() {
    let metrics = Metrics::new();
    for (step, name) in [(Step::Resolve, "resolve"), (Step::Tls, "tls"), (Step::Auth, "auth")] {
        metrics.smtp.failed(step);
        let line = format!("postroom_smtp_session_failures_total{{step=\"{name}\"}} 1");
        assert!(lines(&metrics, "postroom_smtp_session_failures").contains(&line), "{line}");
    }
    for (class, name) in [(Class::Sent, "sent"), (Class::Uncertain, "uncertain"), (Class::Refused, "refused")]
    {
        for (scope, reach) in [(Scope::Recipient, "recipient"), (Scope::Account, "account")] {
            metrics.delivery.result(class, scope);
            let line = format!("postroom_attempt_results_total{{class=\"{name}\",scope=\"{reach}\"}} 1");
            assert!(lines(&metrics, "postroom_attempt_results").contains(&line), "{line}");
        }
    }
    metrics.delivery.result(Class::Untried, Scope::Account);
    let total: u64 = lines(&metrics, "postroom_attempt_results_total")
        .iter()
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(total, 6);
    let now = time::OffsetDateTime::UNIX_EPOCH + time::Duration::hours(24 * 365 * 100);
    for state in MessageState::ALL {
        metrics.delivery.ended(uuid::Uuid::now_v7(), state, now);
        let line = format!("postroom_letters_ended_total{{state=\"{}\"}} 1", state.name());
        assert!(lines(&metrics, "postroom_letters_ended").contains(&line), "{line}");
    }
    assert_eq!(
        lines(&metrics, "postroom_letter_sent_seconds_count"),
        ["postroom_letter_sent_seconds_count 2"]
    );
}

#[test]
fn a_call_is_counted_once_however_it_ends() {
    let metrics = Metrics::new();
    let begin = |path| Running::begin(&metrics, path, CallKind::Call);
    let send = "/postroom.v1.SendService/SendMessage";
    begin(send).end(Some(0));
    begin(send).end(Some(14));
    begin(send).end(Some(99));
    drop(begin(send));
    begin("/made.up/Name").end(Some(12));
    let open = begin(send);
    assert!(
        lines(&metrics, "postroom_rpc_in_flight").contains(&"postroom_rpc_in_flight{kind=\"call\"} 1".into())
    );
    drop(open);
    let mut counts = lines(&metrics, "postroom_rpc_seconds_count");
    counts.sort_unstable();
    let of = |method: &str, code: &str, count| {
        format!("postroom_rpc_seconds_count{{method=\"{method}\",code=\"{code}\"}} {count}")
    };
    let send = "SendService/SendMessage";
    let mut expected = [
        of(send, "OK", 1),
        of(send, "UNAVAILABLE", 1),
        of(send, "UNKNOWN", 1),
        of(send, "CANCELLED", 2),
        of("other", "UNIMPLEMENTED", 1),
    ];
    expected.sort_unstable();
    assert_eq!(counts, expected);
    assert!(lines(&metrics, "postroom_rpc_in_flight").iter().all(|line| line.ends_with(" 0")));
}

#[test]
fn who_follows_is_as_far_behind_as_the_last() {
    let metrics = Metrics::new();
    let behind = |metrics: &Metrics| -> f64 {
        let line = lines(metrics, "postroom_followers_behind_seconds{of=\"logs\"}").concat();
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    let (one, other) = (metrics.followers.follow(Followed::Logs), metrics.followers.follow(Followed::Logs));
    let start = Instant::now();
    one.told_all(Instant::now());
    let since = start.elapsed();
    assert!(behind(&metrics) >= since.as_secs_f64() - 0.000_001, "the other was told nothing");
    drop(other);
    one.told_all(Instant::now());
    assert!(behind(&metrics) < start.elapsed().as_secs_f64());
    drop(one);
    assert!(behind(&metrics).abs() < f64::EPSILON);
}

#[test]
fn what_waits_is_told_by_account() {
    let metrics = Metrics::new();
    let of =
        |account, letters, oldest_due| OfAccount { site: "shop".to_owned(), account, letters, oldest_due };
    metrics.backlog.found(Some(Waiting {
        accounts: vec![of(1, 3, 12.5), of(2, 1, -60.0)],
        counted_to: 100,
        parked: vec![(ParkingReason::Quota, 2)],
        took: Duration::from_millis(4),
    }));
    assert_eq!(
        lines(&metrics, "postroom_queue_letters{"),
        [
            "postroom_queue_letters{site=\"shop\",account=\"1\"} 3",
            "postroom_queue_letters{site=\"shop\",account=\"2\"} 1"
        ]
    );
    let oldest = lines(&metrics, "postroom_queue_oldest_due_seconds{");
    assert!(oldest[0].ends_with(" 12.5") && oldest[1].ends_with(" 0.0"), "{oldest:?}");
    assert_eq!(
        lines(&metrics, "postroom_accounts_parked{reason=\"quota\"}").concat().rsplit(' ').next(),
        Some("2")
    );
    metrics.backlog.found(None);
    assert_eq!(lines(&metrics, "postroom_queue_letters{"), Vec::<String>::new());
}
