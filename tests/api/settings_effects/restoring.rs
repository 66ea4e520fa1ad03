//! `RestoreSettings`: by paths or all, what is told of it, and what it refuses.

use postroom::api::proto::{LogLevel, RestoreSettingsRequest, Settings};
use tonic::Code;

use super::{current, restore, seconds, update, without_version};
use crate::support::{Postroom, SITE, bad_fields, reason};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_is_restored_or_all() {
    let postroom = Postroom::start().await;
    let first = current(&postroom).await;
    let change = Settings {
        save_logs: Some(false),
        log_level: Some(LogLevel::LowLevel.into()),
        retry_intervals: vec![seconds(60)],
        connection_timeout: Some(seconds(5)),
        ..Settings::default()
    };
    let changed = update(&postroom, change, &[]).await.expect("changed");

    let some = restore(&postroom, &["log_level", "retry_intervals", "log_level"]).await.expect("restored");
    assert_ne!(some.etag, changed.etag);
    assert_eq!((&some.log_level, &some.retry_intervals), (&first.log_level, &first.retry_intervals));
    assert_eq!((some.save_logs, some.connection_timeout), (Some(false), Some(seconds(5))), "kept");
    assert_eq!(current(&postroom).await, some);
    // Nothing differs: no change.
    assert_eq!(restore(&postroom, &["log_level"]).await.expect("as it is"), some);
    // An etag of before is stale.
    let stale = Settings { etag: changed.etag, save_logs: Some(true), ..Settings::default() };
    let stale = update(&postroom, stale, &[]).await.expect_err("stale");
    assert_eq!(reason(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));

    let all = restore(&postroom, &[]).await.expect("restored");
    assert_eq!(without_version(all.clone()), without_version(first));
    assert!(all.update_time.is_some() && all.etag != some.etag);
    assert_eq!(restore(&postroom, &[]).await.expect("as it is"), all);

    let audit: Vec<String> = postroom.entries("audit").await.into_iter().map(|entry| entry.text).collect();
    let restored: Vec<&str> =
        audit.iter().filter_map(|text| text.split_once(" restored ")).map(|t| t.1).collect();
    let expected = ["log_level, retry_intervals", "connection_timeout, save_logs"];
    assert_eq!(restored, expected.map(|fields| format!("{SITE}/settings: {fields}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_setting_is_refused_and_nothing_restored() {
    let postroom = Postroom::start().await;
    let change = Settings { save_logs: Some(false), ..Settings::default() };
    let before = update(&postroom, change, &[]).await.expect("changed");
    let paths =
        ["save_logs", "name", "etag", "update_time", "", "Save_logs", "settings.save_logs", "save_logs"];
    let refused = restore(&postroom, &paths).await.expect_err("six faults");
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    assert_eq!(bad_fields(&refused), [1, 2, 3, 4, 5, 6].map(|index| format!("paths[{index}]")));
    // However long, it is told in few words.
    let long = "x".repeat(100_000);
    let refused = restore(&postroom, &[&long]).await.expect_err("no setting");
    assert_eq!(bad_fields(&refused), ["paths[0]"]);
    for (name, code) in [
        ("sites/other/settings", Code::NotFound),
        ("sites/shop", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let request = RestoreSettingsRequest { name: name.to_owned(), paths: Vec::new() };
        let refused = postroom.settings().restore_settings(request).await.expect_err(name);
        assert_eq!(refused.code(), code, "{name}");
    }
    assert_eq!(current(&postroom).await, before);
}
