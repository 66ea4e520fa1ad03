//! A store of the version before, brought up to date: its logs have the sizes of what is downloaded, and go on.

use std::borrow::Cow;

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::desk::count;
use crate::support::{Options, Postroom, cluster};
use crate::transcripts::{listed_in, responses};

const SITE: &str = "sites/old";

/// Chunks as the version before stored them, with letters of the kinds, texts in several scripts, and empty ones.
const CHUNKS: [(&str, &str); 6] = [
    ("send-admin-1", "0 N connecting to smtp.example.com\n1200 N connected\n"),
    ("send-admin-1", "0 C EHLO shop.example.com\n7 S 250-Grüße an ☃\n12345678 S 250 : a: b 1 C x\n"),
    ("send-admin-1", "0 E 550 5.1.1 Postfach „niemand“ gibt es nicht\n"),
    ("send-users-7", "0 D \n3 D  \n5 D .\n"),
    ("check-admin-0", "0 C AUTH PLAIN <hidden>\n250000 S 235 ok\n"),
    ("check-admin-0", "0 S \n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_the_version_before_have_their_true_sizes() {
    let cluster = cluster().await;
    let name = format!("upgrade_{}", Uuid::now_v7().simple());
    cluster.create_database(&name, None).await.expect("a database");
    let url = cluster.url_of(&name);
    let mut database = PgConnection::connect(&url).await.expect("a connection");
    let mut before = sqlx::migrate!("./migrations");
    let known = before.migrations.iter().filter(|migration| migration.version <= 3).cloned().collect();
    before.migrations = Cow::Owned(known);
    before.run_direct(None, &mut database, false).await.expect("the version before");
    let accounts = "insert into sites (site_id) values ('old');
         insert into settings (site_id) values ('old');
         insert into accounts (site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security)
         values ('old', 1, true, '', 'a@example.com', 'a@example.com', '127.0.0.1', 25, 'none');
         insert into accounts (site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security,
                               origin, user_id)
         values ('old', 7, true, '', 'b@example.com', 'b@example.com', '127.0.0.1', 25, 'none', 'crm', 'u')";
    sqlx::raw_sql(accounts).execute(&mut database).await.expect("accounts");
    for (log, lines) in CHUNKS {
        // It counted the texts alone.
        sqlx::query(
            "insert into logs (site_id, log_id, size_bytes, update_time)
             values ('old', $1, octet_length($2), now())
             on conflict (site_id, log_id) do update set size_bytes = logs.size_bytes + excluded.size_bytes",
        )
        .bind(log)
        .bind(lines)
        .execute(&mut database)
        .await
        .expect("a log");
        let message = (!log.starts_with("check")).then(Uuid::now_v7);
        sqlx::query(
            "insert into log_chunks (site_id, log_id, session_id, message_id, attempt, first_time, last_time, lines)
             values ('old', $1, $2, $3, $4, now(), now() + interval '1 minute', $5)",
        )
        .bind(log)
        .bind(Uuid::now_v7())
        .bind(message)
        .bind(i32::from(message.is_some()))
        .bind(lines)
        .execute(&mut database)
        .await
        .expect("a chunk");
    }
    sqlx::migrate!("./migrations").run_direct(None, &mut database, false).await.expect("up to date");
    database.close().await.expect("closed");

    let options = Options { database_url: Some(url), ..Options::default() };
    let postroom = Postroom::start_with(options).await;
    let logs = listed_in(&postroom, SITE).await;
    assert_eq!(logs.len(), 3);
    for log in logs {
        let text = responses(&postroom, &log.name).await.expect("a log").concat();
        assert_eq!(usize::try_from(log.size_bytes), Ok(text.len()), "{}: {text}", log.name);
        let id = log.name.rsplit('/').next().expect("an id");
        let lines: usize =
            CHUNKS.iter().filter(|(of, _)| *of == id).map(|(_, lines)| lines.lines().count()).sum();
        assert_eq!(text.lines().count(), lines, "{text}");
    }
    let unknown = "select count(*) from logs where site_id = 'old' and (first_time is null or has_leavings)";
    assert_eq!(count(&postroom, unknown).await, 0);
}
