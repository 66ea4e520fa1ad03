//! The command line as the operator writes it.

use std::ffi::OsString;

use clap::Parser;

use super::*;
use crate::smtp::egress::Policy;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeOptions,
}

fn config(arguments: &str) -> Result<Config, String> {
    let line = ["postroom"].into_iter().chain(arguments.split(' ').filter(|word| !word.is_empty()));
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    line.serve.into_config().map_err(|errors| errors.to_string())
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = config("--data-dir /d").unwrap();
    assert_eq!(config.listening.listen.to_string(), "127.0.0.1:50051");
    let ListenConfig {
        listen: _,
        tls,
        max_connections,
        max_concurrent_calls,
        max_concurrent_streams,
        max_connection_age,
        metrics,
    } = config.listening;
    assert_eq!(metrics, None, "off unless it is asked for");
    assert!(tls.is_none());
    assert_eq!(max_connections, 4_096);
    assert_eq!(max_concurrent_calls, 1_024);
    assert_eq!(max_concurrent_streams, 1_024);
    assert_eq!(max_connection_age, Duration::from_hours(1));
    assert_eq!(config.egress, EgressConfig::default());
    assert_eq!(config.retry_floor, Duration::from_mins(30));
    assert_eq!(config.drain_wait, Duration::from_secs(5));
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert!(config.reflection && config.smtp_ca_file.is_none());
    assert_eq!(config.log_format, LogFormat::Text);
    let database = Database::Private { data_dir: "/d".into() };
    assert_eq!(config.store.database, database);
    assert_eq!(config.store.vault_keys, VaultKeys::Made("/d/vault.keys".into()));
    assert_eq!(config.store.pool, PoolOptions::default());
}

#[test]
fn everything_can_be_given() {
    let config = config(
        "--listen [::1]:0 --database-url postgres://u:p@h/d --vault-keys /k --smtp-ca-file /ca \
         --egress-allow 10.0.0.0/8,192.168.1.1 --egress-ports 25,1000-2000 --plaintext-auth-hosts a,b \
         --egress-deny 8.8.8.0/24 --egress-allow-hosts *.example.com,mail.example.org --egress-deny-hosts bad.example.com \
         --retry-floor 1s --drain-wait 0s --shutdown-grace 1h --reflection=false \
         --db-connections 200 --db-delivery-connections 1 --db-acquire-timeout 1m --db-statement-timeout 10m \
         --db-lock-timeout 10m --log-format json --log-filter warn,postroom=debug --tls-cert /c --tls-key /k \
         --tls-client-ca /a --max-connections 1 --max-concurrent-calls 2 --max-concurrent-streams 3 \
         --max-connection-age 1m",
    )
    .unwrap();
    let files = TlsFiles { cert: "/c".into(), key: "/k".into(), client_ca: Some("/a".into()) };
    assert_eq!(config.listening.tls, Some(files));
    let ListenConfig { max_connections, max_concurrent_calls, max_concurrent_streams, .. } =
        &config.listening;
    assert_eq!((*max_connections, *max_concurrent_calls, *max_concurrent_streams), (1, 2, 3));
    assert_eq!(config.listening.listen.to_string(), "[::1]:0");
    assert_eq!(config.store.vault_keys, VaultKeys::Given("/k".into()));
    let policy = Policy {
        allow: vec!["10.0.0.0/8".parse().unwrap(), "192.168.1.1".parse().unwrap()],
        deny: vec!["8.8.8.0/24".parse().unwrap()],
        ports: vec![25.into(), "1000-2000".parse().unwrap()],
        allow_hosts: vec!["*.example.com".parse().unwrap(), "mail.example.org".parse().unwrap()],
        deny_hosts: vec!["bad.example.com".parse().unwrap()],
    };
    assert_eq!(config.egress.policy, policy);
    assert_eq!(config.egress.plaintext_auth_hosts, ["a", "b"]);
    assert_eq!(config.shutdown_grace, Duration::from_hours(1));
    assert!(!config.reflection);
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn wrong_lines_say_what_is_wrong() {
    let table = [
        ("--listen 0.0.0.0:50051", "add --insecure"),
        ("--listen [::]:50051", "not a loopback address"),
        ("--listen here", "--listen"),
        ("--tls-cert /c", "--tls-cert needs --tls-key"),
        ("--tls-key /k", "--tls-key needs --tls-cert"),
        ("--tls-client-ca /a", "--tls-client-ca needs --tls-cert and --tls-key"),
        ("--listen 0.0.0.0:1 --tls-cert /c", "--tls-cert needs --tls-key"),
        ("--max-connections 0", "--max-connections"),
        ("--max-connections 1000001", "--max-connections"),
        ("--max-concurrent-calls 0", "--max-concurrent-calls"),
        ("--max-concurrent-streams=-1", "--max-concurrent-streams"),
        ("--max-connection-age 0s", "--max-connection-age is at least 1m"),
        ("--max-connection-age 31d", "--max-connection-age is at most 30d"),
        ("--database-url mysql://x --vault-keys /k", "must begin with postgres://"),
        ("--database-url postgres://x", "needs --vault-keys"),
        ("--egress-ports 25,0", "`0` is neither"),
        ("--egress-ports 10-5", "`10-5` is neither"),
        ("--egress-ports 1-70000", "`1-70000` is neither"),
        ("--egress-ports ,", "--egress-ports is empty"),
        ("--egress-ports 25,+465", "--egress-ports: `+465` is neither"),
        ("--egress-allow 10.0.0.0/33", "--egress-allow: `10.0.0.0/33` is no network"),
        ("--egress-allow 10.0.0.0/8,example.com", "--egress-allow: `example.com` is no network"),
        ("--egress-deny fe80::1%eth0", "--egress-deny: `fe80::1%eth0` is no network"),
        ("--egress-allow-hosts a.*.example", "--egress-allow-hosts: `a.*.example` is no host"),
        ("--egress-deny-hosts *", "--egress-deny-hosts: `*` is no host"),
        ("--drain-wait 2h", "--drain-wait is at most 1h"),
        ("--shutdown-grace 2h", "--shutdown-grace is at most 1h"),
        ("--retry-floor 8d", "--retry-floor is at most 7d"),
        ("--retry-floor soon", "--retry-floor"),
        ("--log-filter postroom=loud", "--log-filter"),
        ("--log-format xml", "--log-format"),
        ("--db-connections 1", "--db-connections"),
        ("--db-connections 201", "--db-connections"),
        ("--db-delivery-connections 0", "--db-delivery-connections"),
        ("--db-acquire-timeout 99ms", "--db-acquire-timeout is 100ms to 1m"),
        ("--db-acquire-timeout 2m", "--db-acquire-timeout is 100ms to 1m"),
        ("--db-statement-timeout 0s", "--db-statement-timeout is 1s to 10m"),
        ("--db-lock-timeout 11m", "--db-lock-timeout is 1s to 10m"),
        ("--db-lock-timeout 21s", "--db-lock-timeout is at most --db-statement-timeout"),
    ];
    for (arguments, expected) in table {
        let error = config(&format!("--data-dir /d {arguments}")).unwrap_err();
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = config("--listen 0.0.0.0:1 --egress-ports x --database-url x").unwrap_err();
    assert_eq!(error.lines().count(), 4, "{error}");
    let error = config(
        "--data-dir /d --egress-allow x,10.0.0.0/8,y --egress-deny z --egress-ports 0,25,70000 \
         --egress-allow-hosts a@b,c --egress-deny-hosts d:25",
    )
    .unwrap_err();
    let lines: Vec<&str> = error.lines().map(|line| line.split(" is n").next().unwrap()).collect();
    let expected = [
        "--egress-allow: `x`",
        "--egress-allow: `y`",
        "--egress-deny: `z`",
        "--egress-ports: `0`",
        "--egress-ports: `70000`",
        "--egress-allow-hosts: `a@b`",
        "--egress-deny-hosts: `d:25`",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn plain_text_off_the_loopback_must_be_meant() {
    for arguments in [
        "--listen 0.0.0.0:1 --insecure",
        "--listen 0.0.0.0:1 --tls-cert /c --tls-key /k",
        "--listen 127.0.0.2:1",
        "--listen [::ffff:127.0.0.1]:1",
    ] {
        assert!(config(&format!("--data-dir /d {arguments}")).is_ok(), "{arguments}");
    }
}

#[test]
fn password_in_the_url_is_not_shown() {
    let config = config("--database-url postgres://u:hunter2@h/d --vault-keys /k").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let error = self::config("--database-url mysql://u:hunter2@h/d").unwrap_err();
    assert!(!error.contains("hunter2"));
}

#[test]
fn the_keys_are_in_a_file_or_in_the_environment() {
    let keys = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let store = |arguments: &str, variable: Option<&str>| {
        let line = ["postroom", "--data-dir", "/d"].into_iter().chain(arguments.split_whitespace());
        let options = Line::try_parse_from(line).unwrap().serve.store;
        options.with_key_data(variable.map(OsString::from)).map_err(|errors| errors.to_string())
    };
    let url = "--database-url postgres://h/d";
    for arguments in ["", url] {
        let config = store(arguments, Some(keys)).unwrap();
        assert!(!format!("{config:?}").contains("AAEC"), "the key is shown");
        let VaultKeys::Environment(data) = config.vault_keys else { panic!("{arguments}") };
        assert_eq!(data.expose(), keys.as_bytes());
    }
    let file = format!("{url} --vault-keys /k");
    assert_eq!(store(&file, Some("")).unwrap().vault_keys, VaultKeys::Given("/k".into()));
    let error = store(&file, Some(keys)).unwrap_err();
    assert_eq!(error, "there are both --vault-keys and POSTROOM_VAULT_KEY_DATA: give one of them");
    let error = store(url, None).unwrap_err();
    assert!(error.contains("POSTROOM_VAULT_KEY_DATA"), "{error}");
}
