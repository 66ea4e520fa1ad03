//! The private PostgreSQL for real: made, shared by processes, stopped by the last one, found again after a kill.

use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid, User};
use postroom::private_postgres::{self, PrivatePostgres, PrivatePostgresError};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// Tells the tests that play another process where to work.
const DATA_DIR: &str = "POSTROOM_TEST_DATA_DIR";
/// How long a process that was told to end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(5);

/// A folder that the cluster's user can pass through.
fn temporary_folder() -> Result<TempDir, std::io::Error> {
    tempfile::Builder::new().prefix("postroom-test").permissions(Permissions::from_mode(0o711)).tempdir()
}

fn postmaster(data_dir: &Path) -> Result<Pid, Box<dyn Error>> {
    let text = fs::read_to_string(data_dir.join("postgres/cluster/postmaster.pid"))?;
    Ok(Pid::from_raw(text.lines().next().ok_or("empty pid file")?.parse()?))
}

fn runs(process: Pid) -> bool {
    kill(process, None).is_ok()
}

/// Waits until `gone` holds: a process has removed its pid file a moment before it is gone.
fn soon(gone: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !gone() && Instant::now() < deadline {
        std::thread::sleep(STEP);
    }
    gone()
}

async fn ask(postgres: &PrivatePostgres, question: &'static str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(&postgres.database_url()).await?;
    let answer = sqlx::query_scalar::<_, String>(question).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

/// This test binary again, as another process that plays one of the ignored tests.
fn another_process(program: &Path, part: &str, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", part, "--nocapture"]).env(DATA_DIR, data_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn cluster_is_made_shared_and_stopped_by_the_last() -> Outcome {
    let folder = temporary_folder()?;
    // Spaces and quotes: the path passes through shells and configuration files.
    let data_dir = folder.path().join(r#"it's "$HOME" here"#);
    let first = private_postgres::start(&data_dir).await?;
    let process = postmaster(&data_dir)?;
    assert_eq!(ask(&first, "select current_database() || ' ' || current_user").await?, "postroom postroom");
    assert_eq!(ask(&first, "show listen_addresses").await?, "");
    assert_eq!(ask(&first, "show fsync").await?, "on");
    assert_eq!(ask(&first, "show data_checksums").await?, "on");
    assert_eq!(
        ask(&first, "select usesuper::text from pg_user where usename = current_user").await?,
        "false"
    );

    let second = private_postgres::start(&data_dir).await?;
    assert_eq!(postmaster(&data_dir)?, process);
    first.stop().await?;
    assert!(runs(process), "a user is left");
    assert_eq!(ask(&second, "show server_encoding").await?, "UTF8");
    second.stop().await?;
    assert!(soon(|| !runs(process)), "the last one stops it");

    let again = private_postgres::start(&data_dir).await?;
    assert_eq!(ask(&again, "select current_user::text").await?, "postroom");
    let process = postmaster(&data_dir)?;
    drop(again);
    assert!(soon(|| !runs(process)), "a drop stops it as well");
    Ok(())
}

#[tokio::test]
async fn two_that_start_at_once_share_one_cluster() -> Outcome {
    let folder = temporary_folder()?;
    let (first, second) =
        tokio::join!(private_postgres::start(folder.path()), private_postgres::start(folder.path()));
    let (first, second) = (first?, second?);
    assert_eq!(first.database_url(), second.database_url());
    let (one, other) = tokio::join!(first.stop(), second.stop());
    one?;
    other?;
    assert!(!folder.path().join("postgres/cluster/postmaster.pid").exists());
    Ok(())
}

#[tokio::test]
async fn cluster_outlives_a_killed_server_and_is_attached_to() -> Outcome {
    let folder = temporary_folder()?;
    let mut server = another_process(&std::env::current_exe()?, "server_starts_and_stops", folder.path())
        // It stays open, so that the part holds the cluster until it is killed.
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let output = server.stdout.take().ok_or("no output")?;
    assert!(BufReader::new(output).lines().map_while(Result::ok).any(|line| line.contains("part is ready")));
    let process = postmaster(folder.path())?;
    server.kill()?;
    server.wait()?;
    assert!(runs(process));

    let postgres = private_postgres::start(folder.path()).await?;
    assert_eq!(postmaster(folder.path())?, process);
    assert_eq!(ask(&postgres, "select current_user::text").await?, "postroom");
    postgres.stop().await?;
    assert!(soon(|| !runs(process)));
    Ok(())
}

#[tokio::test]
async fn cluster_comes_back_after_a_crash_of_its_own() -> Outcome {
    let folder = temporary_folder()?;
    let postgres = private_postgres::start(folder.path()).await?;
    let process = postmaster(folder.path())?;
    kill(process, nix::sys::signal::Signal::SIGKILL)?;
    drop(postgres);
    // A stale pid file whose number belongs to a living process, as after a restart of a container.
    let path = folder.path().join("postgres/cluster/postmaster.pid");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replacen(&process.to_string(), &std::process::id().to_string(), 1))?;

    let postgres = private_postgres::start(folder.path()).await?;
    assert_eq!(ask(&postgres, "select current_user::text").await?, "postroom");
    postgres.stop().await?;
    Ok(())
}

#[tokio::test]
async fn start_that_was_cut_short_is_done_again() -> Outcome {
    let folder = temporary_folder()?;
    let left_over = folder.path().join("postgres/cluster.unfinished/base");
    fs::create_dir_all(&left_over)?;
    fs::write(folder.path().join("postgres/password"), "old")?;
    let postgres = private_postgres::start(folder.path()).await?;
    assert!(!left_over.exists());
    let password = fs::metadata(folder.path().join("postgres/password"))?;
    assert_eq!(password.mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.path().join("postgres"))?.mode() & 0o777, 0o700);
    postgres.stop().await?;
    Ok(())
}

#[tokio::test]
async fn long_data_folder_has_its_socket_elsewhere() -> Outcome {
    let folder = temporary_folder()?;
    let data_dir = folder.path().join("long".repeat(30));
    let postgres = private_postgres::start(&data_dir).await?;
    let socket_dir = postgres.socket_dir().to_owned();
    assert!(!socket_dir.starts_with(&data_dir));
    assert_eq!(fs::metadata(&socket_dir)?.mode() & 0o777, 0o700);
    assert_eq!(ask(&postgres, "select current_user::text").await?, "postroom");
    postgres.stop().await?;
    assert!(!socket_dir.exists());
    Ok(())
}

#[tokio::test]
async fn throwaway_holds_databases_and_leaves_nothing() -> Outcome {
    let postgres = private_postgres::start_throwaway().await?;
    postgres.create_database("one", None).await?;
    postgres.create_database("two", Some("one")).await?;
    let mut connection = PgConnection::connect(&postgres.url_of("two")).await?;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&mut connection).await?;
    assert_eq!(name, "two");
    let taken = postgres.create_database("one", None).await.expect_err("it exists");
    assert!(taken.to_string().contains("already exists"), "{taken}");

    let folder = postgres.socket_dir().ancestors().nth(2).ok_or("short path")?.to_owned();
    let process = postmaster(&folder)?;
    postgres.stop().await?;
    assert!(soon(|| !runs(process)));
    assert!(!folder.exists());
    Ok(())
}

#[tokio::test]
async fn throwaway_ends_with_its_process() -> Outcome {
    let mut owner =
        another_process(&std::env::current_exe()?, "throwaway_answers", Path::new("/")).spawn()?;
    let output = owner.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("part is ready")).ok_or("not ready")?;
    let folder = Path::new(line.split_once("ready in ").ok_or("no folder")?.1).to_owned();
    let process = postmaster(&folder)?;
    owner.kill()?;
    owner.wait()?;
    assert!(soon(|| !runs(process) && !folder.exists()));
    Ok(())
}

#[tokio::test]
async fn barred_folder_is_named_to_root() -> Outcome {
    if !Uid::effective().is_root() {
        // An ordinary user runs the cluster himself; there is no second user who could be barred.
        return Ok(());
    }
    let folder = temporary_folder()?;
    let barred = folder.path().join("barred");
    fs::create_dir(&barred)?;
    fs::set_permissions(&barred, Permissions::from_mode(0o700))?;
    let error = private_postgres::start(&barred.join("deep/data")).await.expect_err("barred");
    let text = error.to_string();
    assert!(matches!(&error, PrivatePostgresError::NotReachable { path, .. } if *path == barred), "{text}");
    assert!(text.contains("chmod o+x"), "{text}");
    Ok(())
}

#[test]
fn ordinary_user_has_a_cluster_too_and_root_may_join() -> Outcome {
    if !Uid::effective().is_root() {
        // Then all the other tests here show it.
        return Ok(());
    }
    let nobody = User::from_name("nobody")?.ok_or("no user nobody")?;
    let folder = temporary_folder()?;
    // The target folder may lie where this user cannot go.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe()?, &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir)?;
    chown(&data_dir, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))?;

    let mut server = another_process(&program, "server_starts_and_stops", &data_dir);
    let mut server =
        server.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).stdin(Stdio::piped()).spawn()?;
    let output = server.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("part is ready")));
    let process = postmaster(&data_dir)?;

    let runtime = tokio::runtime::Runtime::new()?;
    let ours = runtime.block_on(private_postgres::start(&data_dir))?;
    assert_eq!(postmaster(&data_dir)?, process);
    assert_eq!(runtime.block_on(ask(&ours, "select current_user::text"))?, "postroom");
    drop(server.stdin.take());
    assert!(server.wait()?.success());
    assert!(runs(process));
    runtime.block_on(ours.stop())?;
    assert!(soon(|| !runs(process)));
    assert_eq!(fs::metadata(data_dir.join("postgres"))?.uid(), nobody.uid.as_raw());
    Ok(())
}

/// By itself: a cluster starts, answers and stops. As another process (the folder is given): it is held until the end
/// of the input.
#[tokio::test]
async fn server_starts_and_stops() -> Outcome {
    let given = std::env::var_os(DATA_DIR);
    let folder = temporary_folder()?;
    let data_dir = given.as_deref().map_or(folder.path(), Path::new);
    let postgres = private_postgres::start(data_dir).await?;
    assert_eq!(ask(&postgres, "select current_user::text").await?, "postroom");
    println!("part is ready");
    if given.is_some() {
        wait_for_end_of_input();
    }
    postgres.stop().await?;
    Ok(())
}

/// By itself: a throw-away cluster starts and answers. As another process: it is held until the process is killed.
#[tokio::test]
async fn throwaway_answers() -> Outcome {
    let postgres = private_postgres::start_throwaway().await?;
    assert_eq!(ask(&postgres, "select current_user::text").await?, "postroom");
    let folder = postgres.socket_dir().ancestors().nth(2).ok_or("short path")?;
    println!("part is ready in {}", folder.display());
    if std::env::var_os(DATA_DIR).is_some() {
        std::future::pending::<()>().await;
    }
    postgres.stop().await?;
    Ok(())
}

fn wait_for_end_of_input() {
    let _ = std::io::stdin().lines().count();
}
