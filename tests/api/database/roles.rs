//! The roles of deploy/postgres/roles.sql: one that owns the schema, and one that lives under it.

use std::path::Path;
use std::process::Stdio;

use postroom::api::proto::ClearLogRequest;
use postroom::api::proto::message::State;
use postroom::store::{StoreError, cleaning, closing, logs};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::process::Command;
use uuid::Uuid;

use crate::binary::run;
use crate::cluster::open_store;
use crate::desk::shop;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, cluster, letter, plain_account, vault, with_login};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres/roles.sql");
const PASSWORD: &str = "of-a-role";
const FROM: &str = "shop@example.com";

/// A database as the script makes it, with names of its own: the cluster's roles are shared.
struct Prepared {
    superuser: String,
    owner: String,
    app: String,
}

impl Prepared {
    async fn new() -> Self {
        let name = format!("r{}", Uuid::now_v7().simple());
        let (owner, app) = (format!("{name}_owner"), format!("{name}_app"));
        let superuser_at = |database: &str| as_role(&cluster_url(database), "postgres", None);
        cluster().await;
        for _ in 0..2 {
            let made = Command::new("psql")
                .args(["--no-psqlrc", "--quiet", "--file", SCRIPT])
                .args(["-v", &format!("owner={owner}"), "-v", &format!("app={app}")])
                .args(["-v", &format!("database={name}"), &superuser_at("postgres")])
                .stdin(Stdio::null())
                .output()
                .await
                .expect("psql");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let superuser = superuser_at(&name);
        for role in [&owner, &app] {
            execute(&superuser, &format!("alter role {role} password '{PASSWORD}'"))
                .await
                .expect("a password");
        }
        let url = cluster_url(&name);
        Self {
            superuser,
            owner: as_role(&url, &owner, Some(PASSWORD)),
            app: as_role(&url, &app, Some(PASSWORD)),
        }
    }
}

fn cluster_url(database: &str) -> String {
    CLUSTER_URL.get().expect("a cluster").replace("DATABASE", database)
}

static CLUSTER_URL: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// The URL for another role, with its password or that of the role before.
fn as_role(url: &str, role: &str, password: Option<&str>) -> String {
    let (before, rest) = url.split_once('@').expect("a role");
    let own = before.rsplit(':').next().expect("a password");
    format!("postgres://{role}:{}@{rest}", password.unwrap_or(own))
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut database = PgConnection::connect(url).await?;
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut database).await;
    database.close().await?;
    done.map(drop)
}

async fn postroom(arguments: &[&str], url: &str, keys: &Path) -> (Option<i32>, String) {
    let keys = keys.to_str().expect("UTF-8");
    let output = run(&[arguments, &["--database-url", url, "--vault-keys", keys]].concat()).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

async fn prepare() -> Prepared {
    let url = cluster().await.url_of("DATABASE");
    CLUSTER_URL.get_or_init(|| url);
    Prepared::new().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_under_the_lesser_role() {
    let prepared = prepare().await;
    let (_folder, keys) = {
        let (folder, _vault) = vault();
        let keys = folder.path().join("vault.keys");
        (folder, keys)
    };
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["site", "list"], &["migrate"]] {
        let (code, text) = postroom(arguments, &prepared.app, &keys).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("(0 of ") && text.contains("run `postroom migrate` as the owner"), "{text}");
    }
    let (code, text) = postroom(&["migrate"], &prepared.owner, &keys).await;
    assert_eq!((code, text.as_str()), (Some(0), "the schema is up to date\n"));
    let (code, text) = postroom(&["migrate"], &prepared.app, &keys).await;
    assert_eq!((code, text.as_str()), (Some(0), "the schema is up to date\n"));

    let server = Behaviour::default().login("shop", "secret").start().await;
    let options = Options { database_url: Some(prepared.app.clone()), ..Options::default() };
    let running = Postroom::start_with(options).await;
    running.create_account(with_login(plain_account(&server, FROM), "shop", "secret")).await;
    let sent = running.send_and_wait(letter(FROM, &["ann@example.org"])).await;
    assert_eq!(sent.state(), State::Sent);
    assert!(!running.entries("send-admin-1").await.is_empty());
    let name = "sites/shop/logs/send-admin-1".to_owned();
    running.logs().clear_log(ClearLogRequest { name }).await.expect("cleared");

    let file = running.vault_file();
    for arguments in [
        &["key", "create", "--site", "sites/shop", "--role", "sender"][..],
        &["key", "list"],
        &["site", "create", "portal"],
        &["site", "list"],
        &["vault", "rotate", "--new-key"],
        &["vault", "check"],
    ] {
        let (code, text) = postroom(arguments, &prepared.app, &file).await;
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
    assert_eq!(running.send_and_wait(letter(FROM, &["bob@example.org"])).await.state(), State::Sent);

    let store = running.store();
    store.synchronise().await.expect("a clock");
    let retention = std::time::Duration::ZERO;
    let later = store.clock().now() + time::Duration::days(1);
    assert!(cleaning::clean(&store, &shop(), retention, later).await.expect("cleaned") > 0);
    closing::expire(&store, &shop(), retention, 10).await.expect("swept");
    logs::drop_leavings(&store, &shop()).await.expect("dropped");
    // What only the owner may is left to autovacuum, without a word.
    logs::give_room_back(&store).await.expect("left alone");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lesser_role_changes_no_schema() {
    let prepared = prepare().await;
    let (_folder, vault) = vault();
    let open = |url: &str| open_store(url, vault.clone());
    let owner = open(&prepared.owner);
    owner.migrate().await.expect("the owner may");
    owner.close().await;
    for statement in [
        "create table mine (id int)",
        "create schema mine",
        "create temporary table mine (id int)",
        "create function mine() returns int language sql return 1",
        "create role mine",
        "create database mine",
        "drop table accounts",
        "alter table accounts add column mine int",
        "create index mine on accounts (host)",
        "truncate accounts",
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, '', true, '', 0)",
        "update _sqlx_migrations set checksum = ''",
        "delete from _sqlx_migrations",
        "alter role current_user superuser",
        "select setval('log_positions', 1)",
        "copy sites to program 'true'",
        "select pg_read_file('postgresql.conf')",
    ] {
        let error = execute(&prepared.app, statement).await.expect_err(statement);
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    // What a later migration makes is the servers' to use.
    execute(&prepared.owner, "create table later (id bigserial primary key)").await.expect("the owner may");
    execute(&prepared.app, "insert into later default values").await.expect("a row");
    execute(&prepared.app, "delete from later").await.expect("no row");
    // A stranger does not even get in.
    execute(&prepared.superuser, "create role stranger_of_the_tests login password 'x'")
        .await
        .expect("a role");
    let stranger = as_role(&prepared.app, "stranger_of_the_tests", Some("x"));
    let error = execute(&stranger, "select 1").await.expect_err("no connection");
    assert!(error.to_string().contains("permission denied for database"), "{error}");

    // A binary that is newer than the schema.
    execute(
        &prepared.owner,
        "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
    )
    .await
    .expect("the owner may");
    let app = open(&prepared.app);
    let error = app.migrate().await.expect_err("not up to date");
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    app.close().await;
}
