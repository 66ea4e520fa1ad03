//! The way to the database is encrypted, and leads to the right one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use postroom::domain::clock::Clock;
use postroom::private_postgres;
use postroom::store::{Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::binary::{DataDir, run, run_in};
use crate::eventually::eventually;
use crate::support::vault;

/// An authority, and what it gives out as PEM files in a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of a database");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key for these names.
    fn give(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "postroom");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A PostgreSQL that listens on a port of 127.0.0.1, gone when dropped.
struct Listening {
    data_dir: DataDir,
    server: Child,
    port: u16,
    password: String,
}

impl Listening {
    /// One with TLS for `localhost` and 127.0.0.1. Its database `certified` wants a certificate of the caller's, too.
    async fn start(authority: &Authority) -> Self {
        let data_dir = DataDir::new();
        let cluster = private_postgres::start(&data_dir.path()).await.expect("a cluster");
        let url = cluster.database_url();
        let (before, _) = url.split_once('@').expect("a role");
        let password = before.rsplit(':').next().expect("a password").to_owned();
        cluster.create_database("certified", None).await.expect("a database");
        cluster.stop().await.expect("stopped");

        let folder = data_dir.path().join("postgres/cluster");
        let (certificate, key) = authority.give(&["localhost", "127.0.0.1"]);
        for (name, text) in
            [("server.crt", &certificate), ("server.key", &key), ("clients.crt", &authority.pem)]
        {
            write_for(&folder, name, text);
        }
        let hba = fs::read_to_string(folder.join("pg_hba.conf")).expect("readable");
        let certified = "hostssl certified all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
        let hba = format!("{certified}host certified all 127.0.0.1/32 reject\n{hba}");
        write_for(&folder, "pg_hba.conf", &hba);
        let mut listening = Self::of(data_dir, password).await;
        listening.set_tls("on").await;
        listening
    }

    async fn of(data_dir: DataDir, password: String) -> Self {
        let folder = data_dir.path().join("postgres/cluster");
        let owner = fs::metadata(&folder).expect("a folder");
        // Another may take the port before PostgreSQL does: then another one.
        loop {
            let port = {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                listener.local_addr().expect("an address").port()
            };
            let mut command = Command::new(program());
            command.env_clear().env("LC_ALL", "C").current_dir(&folder).arg("-D").arg(&folder);
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", &format!("port={port}")]);
            if nix::unistd::geteuid().is_root() {
                command.uid(owner.uid()).gid(owner.gid());
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let mut server = command.spawn().expect("postgres");
            let plain = format!("postgres://postroom:{password}@127.0.0.1:{port}/postroom?sslmode=disable");
            let came = eventually("a server, or its end", async || {
                PgConnection::connect(&plain).await.ok().map(drop)
            });
            tokio::select! {
                () = came => return Self { data_dir, server, port, password },
                _ = server.wait() => {}
            }
        }
    }

    /// Switches TLS on or off, for connections to come.
    async fn set_tls(&mut self, state: &str) {
        let folder = self.data_dir.path().join("postgres/cluster");
        let lines = format!(
            "ssl = {state}\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'clients.crt'\n"
        );
        write_for(&folder, "own.conf", &lines);
        let pid = self.data_dir.postmaster().expect("a postmaster");
        nix::sys::signal::kill(pid, Signal::SIGHUP).expect("ours");
        let url = self.url("127.0.0.1", "postroom?sslmode=disable");
        eventually("the setting", async || {
            let mut database = PgConnection::connect(&url).await.ok()?;
            let now: String = sqlx::query_scalar("show ssl").fetch_one(&mut database).await.ok()?;
            (now == state).then_some(())
        })
        .await;
    }

    fn url(&self, host: &str, rest: &str) -> String {
        let Self { port, password, .. } = self;
        format!("postgres://postroom:{password}@{host}:{port}/{rest}")
    }

    async fn stop(mut self) {
        nix::sys::signal::kill(self.data_dir.postmaster().expect("a postmaster"), Signal::SIGQUIT)
            .expect("ours");
        self.server.wait().await.expect("an end");
    }
}

/// Writes a file for the cluster's user alone.
fn write_for(folder: &Path, name: &str, text: &str) {
    let (owner, path) = (fs::metadata(folder).expect("a folder"), folder.join(name));
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
    chown(&path, Some(owner.uid()), Some(owner.gid())).expect("ours");
}

/// PostgreSQL's server, the newest of Debian's or that of the path.
fn program() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| number(path));
    newest.map_or_else(|| "postgres".into(), |version| version.join("bin/postgres"))
}

/// Opens a store and uses it; whether its connections are encrypted.
async fn reach(url: &str) -> Result<bool, StoreError> {
    let (_folder, vault) = vault();
    let store = Store::open(url, vault, Clock::default())?;
    let result = store.migrate().await;
    store.close().await;
    result?;
    let mut database = PgConnection::connect(url).await.expect("a connection");
    let encrypted = sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()");
    Ok(encrypted.fetch_one(&mut database).await.expect("an answer"))
}

fn files(authority: &Authority) -> (TempDir, [String; 3]) {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = authority.give(&[]);
    let files = [("ca.crt", &authority.pem), ("own.crt", &certificate), ("own.key", &key)];
    let paths = files.map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    });
    (folder, paths)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_the_right_one_and_nobody_reads_along() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut postgres = Listening::start(&authority).await;
    let (_folder, [ca, certificate, key]) = files(&authority);
    let (_other_folder, [wrong_ca, wrong_certificate, wrong_key]) = files(&other);
    // Connects to the loopback, and yet is no loopback address: stands for any other machine.
    let elsewhere = "0.0.0.0";

    for (host, rest, encrypted) in [
        ("localhost", format!("postroom?sslmode=verify-full&sslrootcert={ca}"), true),
        ("127.0.0.1", format!("postroom?sslmode=verify-full&sslrootcert={ca}"), true),
        (elsewhere, format!("postroom?sslmode=verify-ca&sslrootcert={ca}"), true),
        (elsewhere, "postroom?sslmode=require".to_owned(), true),
        (elsewhere, "postroom?sslmode=disable".to_owned(), false),
        ("127.0.0.1", "postroom".to_owned(), true),
        (
            "localhost",
            format!("certified?sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}"),
            true,
        ),
    ] {
        let reached = reach(&postgres.url(host, &rest)).await;
        assert_eq!(reached.as_ref().ok(), Some(&encrypted), "{host} {rest}: {reached:?}");
    }
    for (host, rest) in [
        // An authority that nobody knows here; another one; another name, said or by default.
        ("localhost", "postroom?sslmode=verify-full".to_owned()),
        ("localhost", format!("postroom?sslmode=verify-full&sslrootcert={wrong_ca}")),
        ("localhost", format!("postroom?sslmode=verify-ca&sslrootcert={wrong_ca}")),
        (elsewhere, format!("postroom?sslmode=verify-full&sslrootcert={ca}")),
        (elsewhere, format!("postroom?sslrootcert={ca}")),
        (elsewhere, "postroom".to_owned()),
    ] {
        let error = reach(&postgres.url(host, &rest)).await.expect_err(&rest);
        assert!(matches!(error, StoreError::Encryption(_)), "{host} {rest}: {error:?}");
    }
    for client in ["", &format!("&sslcert={wrong_certificate}&sslkey={wrong_key}")] {
        let rest = format!("certified?sslmode=verify-full&sslrootcert={ca}{client}");
        reach(&postgres.url("localhost", &rest)).await.expect_err("no certificate of ours");
    }

    // The password need not stand in the URL.
    let (key_folder, _vault) = vault();
    let keys = key_folder.path().join("vault.keys");
    let keys = keys.to_str().expect("UTF-8");
    let passes = key_folder.path().join("pgpass");
    let Listening { port, password, .. } = &postgres;
    fs::write(&passes, format!("localhost:{port}:postroom:postroom:{password}\n")).expect("written");
    fs::set_permissions(&passes, Permissions::from_mode(0o600)).expect("ours");
    let url = format!("postgres://postroom@localhost:{port}/postroom?sslmode=verify-full&sslrootcert={ca}");
    let migrate = ["migrate", "--database-url", &url, "--vault-keys", keys];
    for variable in [("PGPASSWORD", password.as_str()), ("PGPASSFILE", passes.to_str().expect("UTF-8"))] {
        let done = run_in(&migrate, &[variable]).await;
        assert!(done.status.success(), "{variable:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(!run(&migrate).await.status.success(), "without a password");

    // A server, or somebody in between, that has no TLS: nothing is said in plain text that was to be encrypted.
    postgres.set_tls("off").await;
    for (host, rest) in [
        ("localhost", format!("postroom?sslmode=verify-full&sslrootcert={ca}")),
        (elsewhere, "postroom".to_owned()),
        (elsewhere, "postroom?sslmode=require".to_owned()),
    ] {
        let error = reach(&postgres.url(host, &rest)).await.expect_err(&rest);
        assert!(matches!(error, StoreError::Encryption(_)), "{host} {rest}: {error:?}");
    }
    for (host, rest) in [(elsewhere, "postroom?sslmode=disable"), (elsewhere, "postroom?sslmode=prefer")] {
        assert!(!reach(&postgres.url(host, rest)).await.expect("meant"), "{rest}");
    }
    let url = postgres.url(elsewhere, "postroom");
    for command in [&["site", "list"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let refused = run(&[command, &["--database-url", &url, "--vault-keys", keys]].concat()).await;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("no encrypted connection") && told.contains("sslmode=disable"), "{told}");
        assert!(!told.contains(&postgres.password), "{told}");
    }
    postgres.stop().await;
}
