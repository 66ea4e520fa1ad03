//! What waits, by account, and what the process and its database are told of.

use std::time::Duration;

use postroom::api::proto::{Message, SendMessageRequest};
use postroom::domain::clock::Clock;
use uuid::Uuid;

use super::{FROM, Scrape, await_values, must_be_valid, start, start_with, text};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, patiently, plain_account};

async fn send(postroom: &Postroom, message: Message) {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        request_id: Uuid::now_v7().to_string(),
        ..SendMessageRequest::default()
    };
    patiently(async || postroom.send().send_message(request.clone()).await).await.expect("taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_for_accounts_that_have_mail() {
    const LETTERS: usize = 5;
    let over_quota = "550 5.4.5 Daily user sending limit exceeded\r\n";
    let server = Behaviour::default().on("RCPT TO:<ann@", over_quota).start().await;
    // A parked account is not probed while this test looks.
    let options = Options { retry_floor: Duration::from_hours(1), ..Options::default() };
    let postroom = start_with(options).await;
    let waiting = postroom.create_account(plain_account(&server, FROM)).await;
    let parked = postroom.create_account(plain_account(&server, "mailing@example.com")).await;
    let empty = postroom.create_account(plain_account(&server, "other@example.com")).await;
    send(&postroom, letter("mailing@example.com", &["ann@example.org"])).await;
    let tomorrow = Clock::default().now().unix_timestamp() + 24 * 60 * 60;
    let send_time = Some(prost_types::Timestamp { seconds: tomorrow, nanos: 0 });
    for number in 0..LETTERS {
        let mut message = letter(FROM, &[&format!("r{number}@example.org")]);
        message.send_time = send_time;
        send(&postroom, message).await;
    }
    let id = |name: &str| name.rsplit('/').next().expect("an id").to_owned();
    let of = |figure: &str, name: &str| format!("{figure}{{site=\"shop\",account=\"{}\"}}", id(name));
    let scrape = await_values(
        &postroom,
        &[
            (&of("postroom_queue_letters", &waiting.name), 5.0),
            (&of("postroom_queue_letters", &parked.name), 1.0),
            ("postroom_queue_accounts", 2.0),
            ("postroom_accounts_parked{reason=\"quota\"}", 1.0),
            ("postroom_accounts_parked{reason=\"unreachable\"}", 0.0),
            ("postroom_attempt_results_total{class=\"retry\",scope=\"account\"}", 1.0),
        ],
    )
    .await;
    assert!(
        scrape.get(&of("postroom_queue_oldest_due_seconds", &waiting.name)).abs() < f64::EPSILON,
        "later"
    );
    assert_eq!(scrape.names(&of("postroom_queue_letters", &empty.name)), Vec::<&str>::new());
    assert!((scrape.get("postroom_queue_known") - 1.0).abs() < f64::EPSILON);
    must_be_valid(text(&postroom).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_its_pools_and_its_heart_are_told() {
    let postroom = start().await;
    let scrape = eventually("a heartbeat and a connection that was waited for", async || {
        let scrape = Scrape::of(&postroom).await;
        let beats = (scrape.get("postroom_store_writable") - 1.0).abs() < f64::EPSILON;
        let tried = scrape.get("postroom_db_acquire_seconds_count{pool=\"delivery\"}") >= 1.0;
        (beats && tried).then_some(scrape)
    })
    .await;
    assert_eq!(scrape.names("postroom_build_info").len(), 1);
    assert!(scrape.get("process_resident_memory_bytes") > 1_000_000.0);
    assert!(scrape.get("process_cpu_seconds_total") > 0.0);
    assert!(scrape.get("process_open_fds") > 3.0);
    assert!(scrape.get("process_start_time_seconds") > 1_700_000_000.0);
    assert!((scrape.get("postroom_db_connections_limit{pool=\"calls\"}") - 12.0).abs() < f64::EPSILON);
    let (open, idle) = (
        scrape.get("postroom_db_connections_open{pool=\"calls\"}"),
        scrape.get("postroom_db_connections_idle{pool=\"calls\"}"),
    );
    assert!(open >= 1.0 && idle <= open, "{open} {idle}");
    assert!(scrape.0.contains_key("postroom_heartbeat_age_seconds"));
}
