//! An authority of the tests' own and the certificates it gives to scripted servers: good ones and bad ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a server shows in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// For `localhost` and 127.0.0.1, by the authority whose certificate is in [`CaFile`].
    Good,
    /// As `Good`, but it expired at the end of 2020.
    Expired,
    /// By the same authority, for `mail.example.com` and `mx.example.com`.
    OtherName,
    /// Vouched for by itself.
    SelfSigned,
    /// By an authority nobody knows.
    UnknownIssuer,
}

/// Who gives certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> rcgen::Certificate {
        params.signed_by(key, &self.issuer).expect("a certificate")
    }

    fn known() -> &'static Self {
        static KNOWN: OnceLock<Authority> = OnceLock::new();
        KNOWN.get_or_init(|| Self::new("Authority of the tests"))
    }
}

impl Certificate {
    /// The configuration of a server that shows this certificate.
    pub(crate) fn server_config(self) -> Arc<ServerConfig> {
        let names = match self {
            Self::OtherName => ["mail.example.com", "mx.example.com"],
            Self::Good | Self::Expired | Self::SelfSigned | Self::UnknownIssuer => ["localhost", "127.0.0.1"],
        };
        let mut params = CertificateParams::new(names.map(str::to_owned)).expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        if self == Self::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 12, 31);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = match self {
            Self::SelfSigned => params.self_signed(&key).expect("a certificate"),
            Self::UnknownIssuer => Authority::new("Nobody").sign(&params, &key),
            Self::Good | Self::Expired | Self::OtherName => Authority::known().sign(&params, &key),
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a key that fits");
        Arc::new(config)
    }
}

/// The authority's certificate as a PEM file, removed when dropped.
#[derive(Debug)]
pub(crate) struct CaFile(PathBuf);

impl CaFile {
    /// Writes it into the directory for temporary files.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("postroom-test-ca-{}-{number}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, &Authority::known().pem).expect("the directory for temporary files can be written");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CaFile {
    fn drop(&mut self) {
        // Left behind, it does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
