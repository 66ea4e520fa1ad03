//! TLS of the server: certificate, key and client authorities from PEM files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::digest;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{Error as RustlsError, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::config::TlsFiles;
use crate::smtp::certificate_end;

/// The protocol that clients must agree to (RFC 7301).
const ALPN: &[u8] = b"h2";
/// Larger files are no certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{flag} {}: {reason}", path.display())]
    Malformed {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Key and certificate are of different pairs.
    #[error("--tls-key {}: does not belong to the certificate of --tls-cert {}", key.display(), cert.display())]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        cert: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] RustlsError),
}

/// What the files hold, unparsed, and what tells it from other content.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

/// What handshakes use.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) config: Arc<ServerConfig>,
    /// End of the certificate's time, where it can be read.
    pub(super) end: Option<OffsetDateTime>,
}

/// Certificate and key, as they are now; clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    /// Hash of the files from which this was made at the start.
    first: [u8; 32],
    current: RwLock<Current>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let current = RwLock::new(contents.parse(&files)?);
        Ok(Self(Arc::new(Shared { files, first: contents.hash(), current })))
    }

    pub(super) fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    pub(super) fn first(&self) -> [u8; 32] {
        self.0.first
    }

    pub(super) fn current(&self) -> Current {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Handshakes from now on use these.
    pub(super) fn exchange(&self, current: Current) {
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// Shakes hands; HTTP/2 must have been agreed upon, as gRPC demands.
    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let stream = TlsAcceptor::from(self.current().config).accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
            return Ok(stream);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not offer HTTP/2 (ALPN h2)"))
    }
}

impl Contents {
    /// Reads all files.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { cert, key, client_ca } = files;
        let read_ca = |path: &PathBuf| read("--tls-client-ca", path);
        Ok(Self {
            cert: read("--tls-cert", cert)?,
            key: Zeroizing::new(read("--tls-key", key)?),
            client_ca: client_ca.as_ref().map(read_ca).transpose()?,
        })
    }

    /// Tells contents apart without keeping a key for it.
    pub(super) fn hash(&self) -> [u8; 32] {
        let Self { cert, key, client_ca } = self;
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [cert, &**key, client_ca.as_deref().unwrap_or_default()] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    /// What handshakes use, made of these contents of these files.
    pub(super) fn parse(&self, files: &TlsFiles) -> Result<Current, TlsError> {
        let Self { cert, key, client_ca } = self;
        let chain = certificates("--tls-cert", &files.cert, cert)?;
        let end = chain.first().and_then(|certificate| certificate_end(certificate));
        let malformed =
            |path: &Path, flag, reason: String| TlsError::Malformed { flag, path: path.to_owned(), reason };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            let reason = match error {
                pem::Error::NoItemsFound => "holds no private key in PEM form".to_owned(),
                other => other.to_string(),
            };
            malformed(&files.key, "--tls-key", reason)
        })?;
        let provider = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match files.client_ca.as_ref().zip(client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let wrong = |reason: String| malformed(path, "--tls-client-ca", reason);
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--tls-client-ca", path, pem)? {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            RustlsError::InconsistentKeys(_) => {
                TlsError::Mismatch { key: files.key.clone(), cert: files.cert.clone() }
            }
            RustlsError::InvalidCertificate(reason) => malformed(
                &files.cert,
                "--tls-cert",
                format!("is no certificate that can be used: {reason:?}"),
            ),
            other => malformed(&files.key, "--tls-key", other.to_string()),
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Current { config: Arc::new(config), end })
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    file.map_err(|source| TlsError::Unreadable { flag, path: path.to_owned(), source })?;
    Ok(bytes)
}

/// The certificates of a file, of which there must be one.
fn certificates(
    flag: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |reason: String| TlsError::Malformed { flag, path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("holds no certificate in PEM form".to_owned())) } else { Ok(found) }
}
