//! Keeps the house's one rule: modules know what is to the right of them, never what is to the left or beside them.
//!
//! Reads src/ as text (`source`), so that a rule is broken by what is written, whether or not it compiles in this build.

mod documents;
mod rights;
mod source;

use std::fs;
use std::path::Path;

use self::source::{Mention, mentions};

/// `main -> cli -> app -> {api, delivery} -> {store, smtp, mime} -> {vault, metrics, domain}`: each module, and what it may know.
/// An entry with a path may know only what is below that path.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "api",
            "delivery",
            "store",
            "smtp",
            "mime",
            "vault",
            "domain",
            "config",
            "telemetry",
            "shutdown",
            "transport",
            "private_postgres",
        ],
    ),
    (
        "app",
        &[
            "api",
            "delivery",
            "store",
            "smtp",
            "mime",
            "vault",
            "domain",
            "config",
            "telemetry",
            "shutdown",
            "transport",
            "private_postgres",
        ],
    ),
    ("api", &["store", "smtp", "mime", "vault", "metrics", "domain"]),
    ("delivery", &["store", "smtp", "mime", "vault", "metrics", "domain", "shutdown"]),
    ("store", &["vault", "metrics", "domain"]),
    ("smtp", &["vault", "metrics", "domain"]),
    ("mime", &["vault", "domain"]),
    // Secrets are a type of the domain, since accounts have them.
    ("vault", &["domain::secret"]),
    // It counts what the domain has words for.
    ("metrics", &["domain"]),
    ("domain", &[]),
    // The operator's rules of egress and defaults of settings are read with the flags, so that an error names its flag.
    ("config", &["private_postgres", "smtp::egress", "telemetry", "domain::settings", "domain::log"]),
    ("private_postgres", &["domain::secret"]),
    // One place reads what a certificate says of itself.
    ("transport", &["config::TlsFiles", "smtp::certificate_end", "domain::clock", "metrics"]),
    ("telemetry", &[]),
    ("shutdown", &[]),
];

/// Crates, and the only modules that may know them.
const CRATES: &[(&[&str], &[&str])] = &[
    (&["sqlx"], &["store"]),
    (&["lettre", "mail_parser"], &["mime"]),
    (&["rustls", "tokio_rustls", "rustls_native_certs", "rustls_pki_types"], &["smtp", "transport"]),
    (&["hyper", "hyper_util"], &["transport"]),
    (&["prost", "prost_types", "tonic_prost"], &["api", "cli"]),
    (
        &[
            "tonic",
            "tonic_types",
            "tonic_health",
            "tonic_reflection",
            "tower",
            "tower_http",
            "http",
            "http_body",
        ],
        &["api", "app", "cli", "transport"],
    ),
    (
        &["tokio", "tokio_util", "tokio_stream"],
        &["api", "app", "cli", "delivery", "store", "smtp", "private_postgres", "shutdown", "transport"],
    ),
    (&["clap"], &["cli", "config", "telemetry"]),
    (&["prometheus_client", "procfs"], &["metrics"]),
];

/// What touches the process's surroundings (paths as they are written, or as imports make them), and who may do it.
/// The private PostgreSQL needs PATH and a folder for its socket.
const SURROUNDINGS: &[(&[&str], &[&str])] = &[
    (&["std::env"], &["cli", "config", "shutdown", "private_postgres"]),
    (
        &[
            "tokio::net::TcpListener::bind",
            "tokio::net::UdpSocket::bind",
            "tokio::net::UnixListener::bind",
            "tokio::net::TcpSocket",
            "std::net::TcpListener::bind",
            "std::net::UdpSocket::bind",
            "std::os::unix::net::UnixListener::bind",
        ],
        &["cli"],
    ),
    // Where mail goes is judged there; nothing else connects to what a caller names.
    (
        &[
            "tokio::net::TcpStream::connect",
            "tokio::net::lookup_host",
            "std::net::TcpStream",
            "std::net::ToSocketAddrs",
        ],
        &["smtp"],
    ),
    (
        &["tokio::signal", "signal_hook", "nix::sys::signal::signal", "nix::sys::signal::sigaction"],
        &["shutdown"],
    ),
];

/// Generated types are known to these; `app` registers their descriptors.
const GENERATED: &str = "api::proto";
const MAY_KNOW_GENERATED: &[&str] = &["api", "cli"];
const GENERATED_FOR_ALL: &str = "api::proto::DESCRIPTORS";

/// The aim is 400; from here on a file must be split by noun.
const MAX_LINES: usize = 450;

/// What a file of src/ does wrong, one line each.
fn violations(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{file} does not begin with //!: say what lives here"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{file} has {lines} lines, more than {MAX_LINES}: split it by noun"));
    }
    let module = module_path(file);
    let Some(layer) = module.first() else { return found };
    if !MAY_KNOW.iter().any(|(name, _)| name == layer) {
        found.push(format!(
            "{file} lives in `{layer}`, which tests/architecture does not know: give it a place"
        ));
        return found;
    }
    for Mention { path, line } in mentions(text, &module) {
        if let Some(what) = forbidden(layer, &path) {
            found.push(format!("{file}:{line}: {what}"));
        }
    }
    found
}

/// Why this layer may not mention this path, which is absolute: `crate::...` or that of another crate.
fn forbidden(layer: &str, path: &str) -> Option<String> {
    let may = |allowed: &[&str]| allowed.contains(&layer);
    if let Some(own) = path.strip_prefix("crate::") {
        let target = own.split("::").next().unwrap_or_default();
        if is_below(own, GENERATED)
            && own != GENERATED_FOR_ALL
            && own != GENERATED
            && !may(MAY_KNOW_GENERATED)
        {
            return Some(format!("`{layer}` may not know generated types: {own}"));
        }
        if target == layer {
            return None;
        }
        let (_, known) = MAY_KNOW.iter().find(|(name, _)| *name == layer)?;
        let knows = known.iter().any(|known| is_below(own, known));
        return (!knows).then(|| format!("`{layer}` may not know `{own}`"));
    }
    let name = path.split("::").next().unwrap_or_default();
    if let Some((_, allowed)) = CRATES.iter().find(|(names, _)| names.contains(&name))
        && !may(allowed)
    {
        return Some(format!("`{layer}` may not know the crate `{name}`"));
    }
    let surroundings =
        SURROUNDINGS.iter().find(|(paths, _)| paths.iter().any(|prefix| is_below(path, prefix)));
    surroundings.filter(|(_, allowed)| !may(allowed)).map(|_| format!("`{layer}` may not use `{path}`"))
}

/// Whether `path` is `top` or below it.
fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `src/api/logs/tail.rs` is `api`, `logs`, `tail`; lib.rs is the root.
fn module_path(file: &str) -> Vec<String> {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = inside.split('/').filter(|part| !matches!(*part, "mod" | "lib"));
    parts.map(str::to_owned).collect()
}

fn rust_files(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path.to_str().expect("UTF-8").to_owned());
        }
    }
}

#[test]
fn the_house_keeps_its_rule() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut files = Vec::new();
    rust_files(&Path::new(root).join("src"), &mut files);
    assert!(files.len() > 50, "src/ was not found: {files:?}");
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable file");
        let name = file.trim_start_matches(root).trim_start_matches('/');
        found.extend(violations(name, &text));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The egress policy is asked where connections are opened, so they are opened in one place.
#[test]
fn one_file_connects_and_one_looks_up_names() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut files = Vec::new();
    rust_files(&Path::new(root).join("src"), &mut files);
    // Tables may be compared with what the system says.
    files.retain(|file| !file.ends_with("/tests.rs"));
    for (paths, only) in [
        (&["tokio::net::TcpStream::connect", "tokio::net::TcpSocket"][..], "src/smtp/connect.rs"),
        (&["std::net::ToSocketAddrs", "tokio::net::lookup_host"], "src/smtp/names.rs"),
    ] {
        let mentioning = files.iter().map(|file| (file, fs::read_to_string(file).expect("a readable file")));
        let mentioning = mentioning.filter_map(|(file, text)| {
            let name = file.trim_start_matches(root).trim_start_matches('/');
            let mentions = mentions(&text, &module_path(name));
            let found = mentions.iter().any(|mention| paths.iter().any(|path| is_below(&mention.path, path)));
            found.then(|| name.to_owned())
        });
        assert_eq!(mentioning.collect::<Vec<_>>(), [only]);
    }
}

/// Violations of a file that holds this code.
fn broken(file: &str, code: &str) -> Vec<String> {
    violations(file, &format!("//! A file.\n{code}\n"))
}

#[test]
fn what_breaks_the_rule_is_found() {
    let bad = [
        ("src/store/queue.rs", "use crate::delivery::Pulse;"),
        ("src/store/queue.rs", "use crate::smtp::Session;"),
        ("src/api/auth.rs", "use crate::{domain::access::Caller, delivery::{self, Pulse}};"),
        ("src/api/auth.rs", "fn f() { crate::app::run(); }"),
        ("src/smtp/tls.rs", "pub(super) type T = super::super::store::Store;"),
        ("src/smtp/mod.rs", "mod tests { mod deep { use super::super::super::mime::raw; } }"),
        ("src/domain/site.rs", "type V = crate::vault::Vault;"),
        ("src/vault/mod.rs", "use crate::domain::site::SiteId;"),
        ("src/config/mod.rs", "use crate::store as shop;"),
        ("src/main.rs", "fn main() { postroom::app::run() }"),
        ("src/app.rs", "use crate::cli;"),
        ("src/app.rs", "use crate::api; type T = api::proto::Account;"),
        ("src/app.rs", "use crate::api::{proto as p}; type T = p::Account;"),
        ("src/delivery/mod.rs", "use crate::api::proto::Account;"),
        ("src/domain/clock.rs", "use tokio::time::Instant;"),
        ("src/domain/error.rs", "impl From<E> for tonic::Status {}"),
        ("src/domain/error.rs", "#[derive(sqlx::Type)] struct S;"),
        ("src/api/auth.rs", "use sqlx;"),
        ("src/api/auth.rs", "use {std::fmt, sqlx::query};"),
        ("src/delivery/attempt.rs", "use lettre::message::Mailbox;"),
        ("src/api/send/letter.rs", "let m = ::mail_parser::MessageParser::new();"),
        ("src/app.rs", "use rustls::ClientConfig;"),
        ("src/store/mod.rs", "fn f() { let _ = std::env::var(\"HOME\"); }"),
        ("src/smtp/mod.rs", "use std::env; fn f() { env::var_os(\"HOME\"); }"),
        ("src/app.rs", "use tokio::net::TcpListener; async fn f() { TcpListener::bind(1).await; }"),
        ("src/delivery/mod.rs", "use tokio::signal::ctrl_c;"),
        ("src/delivery/mod.rs", "use tokio::net::TcpStream; async fn f() { TcpStream::connect(1).await; }"),
        ("src/api/auth.rs", "use std::net::{IpAddr, ToSocketAddrs as _};"),
        ("src/janitor.rs", "fn f() {}"),
        ("src/store/mod.rs", "fn f<'a>(c: char) { if c == '\"' { crate::api::routes(); } }"),
        ("src/store/mod.rs", "/* a /* nested */ comment */ use crate::app; // and \" one"),
    ];
    for (file, code) in bad {
        let found = broken(file, code);
        assert!(!found.is_empty(), "not found in {file}: {code}");
    }
    assert_eq!(
        broken("src/store/mod.rs", "\n\nuse crate::app;"),
        ["src/store/mod.rs:4: `store` may not know `app`"]
    );
    assert_eq!(violations("src/store/x.rs", "use std::fmt;\n").len(), 1, "no header");
    assert_eq!(broken("src/store/x.rs", &"\n".repeat(MAX_LINES)).len(), 1, "too long");
}

#[test]
fn what_keeps_the_rule_is_let_through() {
    let good = [
        ("src/app.rs", "use crate::api; fn f() { api::proto::DESCRIPTORS; crate::delivery::run(); }"),
        ("src/app.rs", "use tokio::net::TcpListener; fn f(l: TcpListener) {}"),
        ("src/api/logs/tail.rs", "use super::convert; use crate::api::proto::Log; use super::super::fields;"),
        ("src/store/logs.rs", "use crate::vault::Place; fn f() { query.bind(1); } // use crate::api;"),
        (
            "src/store/logs.rs",
            "fn f<'a>() -> &'a str { let _ = ('\\'', r#\"use crate::api\"#); \"crate::api::x\" }",
        ),
        ("src/vault/mod.rs", "use crate::domain::secret::Secret; mod tests { use super::*; }"),
        ("src/smtp/session/mod.rs", "pub(in crate::smtp) struct S; use crate::smtp::tls;"),
        (
            "src/cli/demo/mod.rs",
            "use crate::api::proto::Account; fn f() { tokio::net::TcpListener::bind(1); }",
        ),
        ("src/private_postgres/mod.rs", "fn f() { std::env::temp_dir(); }"),
        ("src/main.rs", "fn main() { postroom::cli::run() }"),
        ("src/lib.rs", "pub mod api;"),
    ];
    for (file, code) in good {
        assert_eq!(broken(file, code), Vec::<String>::new(), "{file}: {code}");
    }
}
