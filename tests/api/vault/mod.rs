//! The vault from outside: its keys at a start and while servers run, secrets that were damaged, and rotation.

mod broken;
mod keys;
mod rotating;
mod starting;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Output;

use postroom::api::proto::Message;
use postroom::api::proto::message::State;
use postroom::domain::secret::Secret;
use postroom::vault::{Place, Vault};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::binary::run;
use crate::support::letter;

const USER: &str = "shop";
const PASSWORD: &str = "correct horse battery staple";
/// Two keys of the tests'.
const K1: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
const K2: &str = "k2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n";

/// A key file with these lines.
fn key_file(lines: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.keys");
    std::fs::write(&path, lines.concat()).expect("a file");
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Runs a command over a database with a key file.
async fn command(arguments: &[&str], url: &str, keys: &Path) -> Output {
    run(&[arguments, &["--database-url", url, "--vault-keys", text(keys)]].concat()).await
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("a connection")
}

async fn execute(url: &str, statement: &str) {
    let mut database = connect(url).await;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut database).await.expect("a statement");
    database.close().await.expect("closed");
}

async fn count(url: &str, question: &str) -> i64 {
    let mut database = connect(url).await;
    let answer = sqlx::query_scalar(AssertSqlSafe(question.to_owned()));
    let answer = answer.fetch_one(&mut database).await.expect("an answer");
    database.close().await.expect("closed");
    answer
}

/// How many passwords are sealed under this key.
async fn sealed_under(url: &str, key: &str) -> i64 {
    count(url, &format!("select count(*) from accounts where vault_key_id(sealed_password) = '{key}'")).await
}

/// Where the password of an account stands.
fn place(site: &str, account: i64) -> Place<'_> {
    Place { table: "accounts", column: "sealed_password", site, row: account.to_string() }
}

fn sealed(vault: &Vault, site: &str, account: i64) -> Vec<u8> {
    let password = Secret::new(PASSWORD.as_bytes().to_vec());
    vault.seal(&place(site, account), &password).expect("sealed")
}

/// Puts accounts with a login straight into a site of the store: `1@example.com` and so on, at a server on this port.
async fn insert_accounts(url: &str, vault: &Vault, site: &str, accounts: Range<i64>, port: u16) {
    let ids: Vec<i64> = accounts.collect();
    let passwords: Vec<Vec<u8>> = ids.iter().map(|id| sealed(vault, site, *id)).collect();
    let mut database = connect(url).await;
    sqlx::query(
        "with made as (
             insert into sites (site_id, last_account_id) values ($1, 1000000)
             on conflict (site_id) do update set last_account_id = 1000000
             returning site_id
         ), configured as (
             insert into settings (site_id) select site_id from made on conflict do nothing
         )
         insert into accounts (
             site_id, account_id, active, sender_name, sender_email, sender_key, host, port, security, username,
             sealed_password
         )
         select $1, n.id, true, '', n.id || '@example.com', n.id || '@example.com', '127.0.0.1', $2, 'none', $3,
                n.sealed
         from unnest($4::bigint[], $5::bytea[]) as n (id, sealed)",
    )
    .bind(site)
    .bind(i32::from(port))
    .bind(USER)
    .bind(&ids)
    .bind(&passwords)
    .execute(&mut database)
    .await
    .expect("accounts");
    database.close().await.expect("closed");
}

/// A letter from one of these accounts.
fn letter_of(account: i64) -> Message {
    letter(&format!("{account}@example.com"), &[&format!("r{account}@example.org")])
}

/// Whether a letter was sent, at the first try.
fn is_sent_at_once(message: &Message) -> bool {
    message.state() == State::Sent && message.attempts.len() == 1
}
