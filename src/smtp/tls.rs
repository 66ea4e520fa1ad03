//! TLS: whom we trust, the handshake, and the exact reason why it failed. Certificates are always verified.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct, OtherError,
    PeerIncompatible, RootCertStore, SignatureScheme,
};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::connector_error::ConnectorError;
use super::failure::{Failure, FailureKind};
use super::printable;
use crate::domain::outcome::Step;

/// How many names of a certificate are told; some carry hundreds.
const MAX_NAMES_TOLD: usize = 5;

/// What every handshake of this process uses: system roots and the operator's own, TLS 1.2 and 1.3.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectorError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        tracing::warn!(%error, "a system root certificate could not be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let unreadable = |reason: String| ConnectorError::CaFile { path: path.to_owned(), reason };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(e.to_string()))? {
            let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
            roots.add(certificate).map_err(|e| unreadable(e.to_string()))?;
        }
        if roots.len() == before {
            return Err(unreadable("it holds no certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        tracing::warn!("no root certificates: no server's certificate will be accepted");
        // The verifier refuses to be built without a root; an empty store of the plain kind refuses every server.
        return Ok(Arc::new(builder()?.with_root_certificates(roots).with_no_client_auth()));
    }
    let webpki =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider::default_provider()))
            .build()
            .map_err(|error| ConnectorError::Tls(error.to_string()))?;
    let verifier = Arc::new(Explaining { webpki });
    Ok(Arc::new(builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ConnectorError> {
    ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| ConnectorError::Tls(error.to_string()))
}

/// The handshake, before the deadline. `host` is the name the certificate must be for.
pub(super) async fn handshake(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = host.strip_suffix('.').unwrap_or(host).to_owned();
    let name = match super::egress::literal(host) {
        Some(address) => ServerName::from(address),
        None => ServerName::try_from(name)
            .map_err(|_| permanent("no certificate can be for this host name", "correct the host name"))?,
    };
    match timeout_at(deadline, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(explain(host, &error)),
        Err(_) => Err(temporary("the server did not finish the TLS handshake in time")),
    }
}

/// What a handshake agreed on and whom it showed: version and cipher, and the certificate. Neither masked nor escaped.
pub(super) fn describe(stream: &TlsStream<TcpStream>, mask: impl Fn(&str) -> String) -> (String, String) {
    let (_, connection) = stream.get_ref();
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        other => format!("TLS {other:?}"),
    };
    let cipher = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let told = shown.and_then(|shown| certificate::describe(shown, mask)).unwrap_or_default();
    let fingerprint = fingerprint(connection).unwrap_or_default();
    (
        format!("{version}, {}", cipher.unwrap_or_default()),
        format!("certificate {told}, sha256 {fingerprint}"),
    )
}

fn fingerprint<Data>(connection: &ConnectionCommon<Data>) -> Option<String> {
    let certificate = connection.peer_certificates()?.first()?;
    let suite = provider::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    let digest = suite.common.hash_provider.hash(certificate);
    let mut text = String::new();
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

fn temporary(what: impl Into<String>) -> Failure {
    Failure::other(Step::Tls, FailureKind::Temporary, what)
}

fn permanent(what: impl Into<String>, advice: &str) -> Failure {
    Failure::other(Step::Tls, FailureKind::Permanent, what).with_advice(advice)
}

/// The reason of a failed handshake.
fn explain(host: &str, error: &std::io::Error) -> Failure {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return temporary(format!(
            "the connection broke in the TLS handshake: {}",
            printable::escape(error.to_string())
        ));
    };
    match tls {
        rustls::Error::InvalidCertificate(reason) => not_accepted(host, reason),
        rustls::Error::InvalidMessage(_) => permanent(
            "the server does not answer in TLS",
            "this port does not expect TLS from the start: use STARTTLS, or another port",
        ),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => permanent(
            "the server speaks no TLS newer than 1.1",
            "TLS 1.2 or 1.3 is needed: the server must be updated, or use another one",
        ),
        rustls::Error::AlertReceived(alert) => permanent(
            format!("the server ended the TLS handshake: {alert:?}"),
            "check that host, port and security belong together",
        ),
        other => permanent(
            format!("TLS handshake failed: {}", printable::escape(other.to_string())),
            "check that host, port and security belong together",
        ),
    }
}

/// The reason why a certificate was not accepted.
fn not_accepted(host: &str, reason: &CertificateError) -> Failure {
    match reason {
        CertificateError::Expired => permanent("the certificate has expired", RENEW),
        CertificateError::ExpiredContext { not_after, .. } => {
            permanent(format!("the certificate expired on {}", date(*not_after)), RENEW)
        }
        CertificateError::NotValidYet => permanent("the certificate is not valid yet", RENEW),
        CertificateError::NotValidYetContext { not_before, .. } => {
            permanent(format!("the certificate is not valid before {}", date(*not_before)), RENEW)
        }
        CertificateError::NotValidForName => {
            permanent(format!("the certificate is for another name than {host}"), OTHER_NAME)
        }
        CertificateError::NotValidForNameContext { presented, .. } => permanent(
            format!("the certificate is not for {host} but for {}", told_names(presented)),
            OTHER_NAME,
        ),
        CertificateError::UnknownIssuer => permanent(
            "the certificate's issuer is unknown",
            "the server must send its whole chain, or the operator adds the issuer to the CA file",
        ),
        CertificateError::Other(other) if other.0.downcast_ref::<SelfSigned>().is_some() => permanent(
            SelfSigned.to_string(),
            "use a certificate of a known issuer, or the operator adds it to the CA file",
        ),
        other => permanent(
            format!("the certificate is not acceptable: {}", printable::escape(other.to_string())),
            "the server's certificate must be replaced",
        ),
    }
}

const RENEW: &str = "the server's certificate must be renewed (or a clock is wrong)";
const OTHER_NAME: &str = "use a host name the certificate is for";

fn date(time: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&format).ok())
        .unwrap_or_else(|| "an impossible date".to_owned())
}

/// The names of a certificate, without the `DnsName("…")` around them that rustls writes.
fn told_names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        printable::escape(inner.trim_matches('"').to_owned())
    };
    let names = presented.iter().take(MAX_NAMES_TOLD).map(bare).collect::<Vec<_>>().join(", ");
    if presented.len() > MAX_NAMES_TOLD {
        return format!("{names} and {} more", presented.len() - MAX_NAMES_TOLD);
    }
    if names.is_empty() { "no name at all".to_owned() } else { names }
}

/// A certificate that nobody but itself vouches for.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is self-signed")]
struct SelfSigned;

/// The verifier of rustls, unchanged in what it accepts; only tells a self-signed certificate from an unknown issuer.
#[derive(Debug)]
struct Explaining {
    webpki: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Not only UnknownIssuer: some systems trust a certificate of their own by the same name, another key's.
            Err(rustls::Error::InvalidCertificate(reason))
                if !is_of_the_certificate_itself(&reason) && certificate::is_self_issued(end_entity) =>
            {
                Err(CertificateError::Other(OtherError(Arc::new(SelfSigned))).into())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Reasons that would stay if the issuer were trusted.
fn is_of_the_certificate_itself(reason: &CertificateError) -> bool {
    matches!(
        reason,
        CertificateError::BadEncoding
            | CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Revoked
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
    )
}
