//! The built program as a process of its own, over a data folder that goes with it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::Outcome;
use crate::authorised::{Authorisation, Authorised};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postroom");

/// A running server.
pub(crate) struct Served {
    pub(crate) address: String,
    /// An admin key.
    pub(crate) key: String,
    pub(crate) pid: u32,
    child: Child,
    tls: Option<Arc<ClientConfig>>,
    authorisation: Authorisation,
    /// Holds the data folder, unless that is the caller's.
    _folder: Option<TempDir>,
}

impl Served {
    /// Starts one over a new data folder, with TLS or without.
    pub(crate) async fn start(with_tls: bool) -> Outcome<Self> {
        // The cluster's user must be able to pass through, where it is not ours.
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("postroom-bench").permissions(Permissions::from_mode(0o711)).tempdir()?;
        let served = Self::start_in(&folder.path().join("data"), with_tls, &[]).await?;
        Ok(Self { _folder: Some(folder), ..served })
    }

    /// Starts one over this data folder, with further arguments.
    pub(crate) async fn start_in(data: &Path, with_tls: bool, arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(PROGRAM);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--drain-wait",
            "0s",
            "--log-filter",
            "error",
            "--data-dir",
        ]);
        command.arg(data).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut tls = None;
        if with_tls {
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
            let folder = data.parent().unwrap_or(data);
            let (cert_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
            std::fs::write(&cert_file, cert.pem())?;
            std::fs::write(&key_file, key.serialize_pem())?;
            command.arg("--tls-cert").arg(cert_file).arg("--tls-key").arg(key_file);
            let mut roots = RootCertStore::empty();
            roots.add(cert.der().clone())?;
            let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec()];
            tls = Some(Arc::new(config));
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let address = line.trim_end().strip_prefix("listening on ").ok_or("no address")?.to_owned();
        let mut make = Command::new(PROGRAM);
        make.args(["key", "create", "--site", "sites/-", "--role", "admin", "--data-dir"]).arg(data);
        let key = String::from_utf8(make.output().await?.stdout)?.trim().to_owned();
        let authorisation = Authorisation::by(&key)?;
        let pid = child.id().ok_or("no process")?;
        Ok(Self { address, key, pid, child, tls, authorisation, _folder: None })
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> Authorised {
        let (address, tls) = (self.address.clone(), self.tls.clone());
        let channel = match tls {
            None => {
                Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_| {
                    let address = address.clone();
                    async move {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Ok::<_, std::io::Error>(TokioIo::new(stream))
                    }
                }))
            }
            Some(tls) => {
                Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_| {
                    let (address, tls) = (address.clone(), Arc::clone(&tls));
                    async move { shake_hands(&address, tls).await.map(TokioIo::new) }
                }))
            }
        };
        self.authorisation.over(channel)
    }

    /// A TLS handshake; an error over plain text.
    pub(crate) async fn shake_hands(&self) -> std::io::Result<TlsStream<TcpStream>> {
        match &self.tls {
            Some(tls) => shake_hands(&self.address, Arc::clone(tls)).await,
            None => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Resident bytes of the server.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        resident(self.pid)
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        kill(Pid::from_raw(self.pid.try_into()?), Signal::SIGTERM)?;
        self.child.wait().await?;
        Ok(())
    }
}

async fn shake_hands(address: &str, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    TlsConnector::from(tls).connect(name, stream).await
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
