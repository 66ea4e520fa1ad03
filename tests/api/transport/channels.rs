//! Channels over TLS, and what openssl says of a server.

use std::io;
use std::process::{Output, Stdio};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::certs::{Authority, Issued};
use crate::calls::Authorisation;
use crate::support::{Authorised, PATIENCE};

/// What a client trusts and presents.
pub(crate) fn client_config(trusted: &Authority, present: Option<&Issued>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.pem.as_bytes()).expect("PEM");
    roots.add(root).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match present {
        None => builder.with_no_client_auth(),
        Some(Issued { cert, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a key that fits")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Shakes hands with the server at an address.
pub(crate) async fn shake_hands(
    address: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// A channel without a key.
pub(crate) fn bare_tls_channel(address: &str, config: Arc<ClientConfig>) -> Channel {
    let address = address.to_owned();
    let connector = service_fn(move |_| {
        let (address, config) = (address.clone(), Arc::clone(&config));
        async move { shake_hands(&address, config).await.map(TokioIo::new) }
    });
    // The scheme would make tonic want TLS of its own.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// A channel with a key.
pub(crate) fn tls_channel(address: &str, config: Arc<ClientConfig>, key: &str) -> Authorised {
    let value = Some(format!("Bearer {key}").parse().expect("a key is ASCII"));
    InterceptedService::new(bare_tls_channel(address, config), Authorisation(value))
}

/// Runs `openssl s_client` against an address, with nothing to say; what it printed, of both kinds.
pub(crate) async fn openssl(address: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", address, "-servername", "localhost"]).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(PATIENCE, command.output()).await.expect("an end in time");
    let Output { status, stdout, stderr } = ended.expect("openssl (Debian: openssl)");
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}
