//! The operator's defaults: what counts for a site that has set nothing, from the next start of the server on.

use std::fs;
use std::time::Duration;

use postroom::api::proto::message::State;
use postroom::api::proto::{ListMessagesRequest, LogLevel, SendMessageRequest, Settings};
use postroom::domain::log::LogLevel as Level;
use postroom::domain::settings::EffectiveSettings;
use tonic::Code;

use super::{current, restore, seconds, update, without_version};
use crate::binary::{DataDir, Serving, run};
use crate::desk::{FROM, execute};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, plain_account, reason};

fn options(settings_defaults: EffectiveSettings) -> Options {
    Options { settings_defaults, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_follows_the_defaults_but_for_what_it_has_set() {
    let defaults = EffectiveSettings {
        log_level: Level::Connection,
        connection_timeout: Duration::from_secs(20),
        max_messages_per_batch: 7,
        ..EffectiveSettings::default()
    };
    let first = Postroom::start_with(options(defaults.clone())).await;
    let begun = current(&first).await;
    assert_eq!(begun.log_level, Some(LogLevel::Connection.into()));
    assert_eq!(begun.connection_timeout, Some(seconds(20)));
    assert_eq!((begun.max_messages_per_batch, begun.save_logs), (Some(7), Some(true)));
    assert_eq!(begun.update_time, None);
    // One that is named is kept although it is the default of now; what is read and written back is not.
    let named = Settings { max_messages_per_batch: Some(7), ..Settings::default() };
    assert_eq!(update(&first, named, &["max_messages_per_batch"]).await.expect("kept"), begun);
    let changed = Settings { save_logs: Some(false), ..begun.clone() };
    let changed = update(&first, changed, &[]).await.expect("changed");
    assert_eq!(
        without_version(changed.clone()),
        Settings { save_logs: Some(false), ..without_version(begun) }
    );
    // The same once more by the mask of everything.
    assert_eq!(update(&first, changed.clone(), &["*"]).await.expect("as it is"), changed);

    let other = EffectiveSettings {
        log_level: Level::Client,
        connection_timeout: Duration::from_secs(30),
        max_messages_per_batch: 9,
        ..EffectiveSettings::default()
    };
    let second = first.another_with(options(other)).await;
    let now = current(&second).await;
    assert_eq!(now.log_level, Some(LogLevel::Client.into()));
    assert_eq!(now.connection_timeout, Some(seconds(30)));
    assert_eq!((now.max_messages_per_batch, now.save_logs), (Some(7), Some(false)), "the site's own");
    assert_eq!(now.etag, changed.etag);
    // A path without a value is the default again; so is what is restored.
    let back = update(&second, Settings::default(), &["save_logs"]).await.expect("back");
    assert_eq!(back.save_logs, Some(true));
    let back = restore(&second, &["max_messages_per_batch"]).await.expect("back");
    assert_eq!(back.max_messages_per_batch, Some(9));
    assert_eq!(current(&first).await.max_messages_per_batch, Some(7), "its default there");
    // Restored although it is what counts already: it follows from now on, which is no change.
    let named = Settings { max_messages_per_batch: Some(7), ..Settings::default() };
    update(&first, named, &["max_messages_per_batch"]).await.expect("kept");
    let restored = restore(&first, &["max_messages_per_batch"]).await.expect("restored");
    assert_eq!(restored, current(&first).await);
    assert_eq!(current(&second).await.max_messages_per_batch, Some(9));
}

/// Defaults count in the statements of the store, too.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_count_wherever_a_setting_does() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, FROM)).await;
    let off = EffectiveSettings {
        enabled: false,
        log_max_size_mib: 0,
        log_rewrite_period: postroom::domain::log::rotation::RewritePeriod::Year,
        ..EffectiveSettings::default()
    };
    let waiting = crate::desk::submit(
        &postroom,
        postroom::api::proto::Message {
            send_time: crate::desk::in_millis(3_600_000),
            ..letter(FROM, &["ann@example.org"])
        },
    )
    .await;
    let mut postroom = postroom;
    postroom.stop().await;
    let mut postroom = postroom.another_with(options(off)).await;
    execute(&postroom, "update queue set due = now(), first_due = now()").await;
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(letter(FROM, &["bob@example.org"])),
        ..SendMessageRequest::default()
    };
    let refused = postroom.send().send_message(request.clone()).await.expect_err("off");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "SITE_DISABLED".to_owned()));
    // A site that has set it sends: when its letter is gone, ours has been due for long.
    postroom.create_site("other").await;
    let name = "sites/other/settings".to_owned();
    let on = Settings { name, enabled: Some(true), ..Settings::default() };
    let on = postroom::api::proto::UpdateSettingsRequest { settings: Some(on), update_mask: None };
    postroom.settings().update_settings(on).await.expect("on");
    postroom.create_account_in("sites/other", plain_account(&server, FROM)).await;
    let passes =
        SendMessageRequest { parent: "sites/other".to_owned(), wait: Some(seconds(30)), ..request.clone() };
    let passed = postroom.send().send_message(passes).await.expect("taken").into_inner();
    assert_eq!(passed.message.expect("set").state(), State::Sent);
    assert_eq!(postroom.message(&waiting.name).await.state(), State::Queued);
    // Two days and more MiB than are built in: neither makes a log begin afresh here.
    execute(
        &postroom,
        "update logs set first_time = now() - interval '2 days', size_bytes = size_bytes + 20 * 1024 * 1024;
         update accounts set update_time = now() - interval '2 days'",
    )
    .await;
    let texts = async |log: &str| -> Vec<String> {
        postroom.entries(log).await.into_iter().map(|entry| entry.text).collect()
    };
    let before = texts("check-admin-0").await;
    assert!(!before.is_empty());
    let on = Settings { enabled: Some(true), ..Settings::default() };
    update(&postroom, on, &[]).await.expect("on");
    postroom.create_account(plain_account(&server, "other@example.com")).await;
    assert_eq!(texts("check-admin-0").await[..before.len()], before);
    let gone = eventually("the letter that waited", async || {
        Some(postroom.message(&waiting.name).await).filter(|message| message.state() == State::Sent)
    });
    gone.await;
    // Under the defaults that are built in it does.
    postroom.stop().await;
    let postroom = postroom.another_with(Options::default()).await;
    postroom.create_account(plain_account(&server, "third@example.com")).await;
    let after: Vec<String> =
        postroom.entries("check-admin-0").await.into_iter().map(|entry| entry.text).collect();
    assert!(after.len() < before.len() * 2, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_reads_its_file_or_refuses_to_start() {
    let data_dir = DataDir::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("defaults.toml");
    let path = file.to_str().expect("UTF-8");
    let serve = async || {
        let data = data_dir.path();
        let data = data.to_str().expect("UTF-8");
        let output = run(&["serve", "--data-dir", data, "--settings-defaults", path]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "it does not listen");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    assert!(serve().await.contains(&format!("--settings-defaults {path}: ")), "there is none");
    fs::write(&file, "log_level = \"LOUD\"\nretry_intervals = [\"1m\"]\ncolour = 1\n").expect("written");
    let errors = serve().await;
    for wrong in ["log_level must be one of", "retry_intervals[0] must be 1800s", "`colour` is not a setting"]
    {
        assert!(errors.contains(&format!("--settings-defaults {path}: {wrong}")), "{errors}");
    }

    fs::write(&file, "# For every site.\nlog_level = \"CONNECTION\"\nretry_intervals = [\"1m\", \"2m\"]\n")
        .expect("written");
    let arguments = ["--settings-defaults", path, "--retry-floor", "1m"];
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    data_dir.lines(&["site", "create", "shop"]).await;
    let key = data_dir.lines(&["key", "create", "--site", SITE, "--role", "operator"]).await.concat();
    let client = serving.client(&key);
    let request = postroom::api::proto::GetSettingsRequest { name: format!("{SITE}/settings") };
    let settings = client.settings().get_settings(request).await.expect("settings").into_inner().settings;
    let settings = settings.expect("set");
    assert_eq!(settings.log_level, Some(LogLevel::Connection.into()));
    assert_eq!(settings.retry_intervals, [seconds(60), seconds(120)]);
    let list = ListMessagesRequest { parent: SITE.to_owned(), ..ListMessagesRequest::default() };
    client.send().list_messages(list).await.expect("it serves");
}
