//! Case 9: certificates that must not be accepted, each with its exact reason, and those that must.

use postroom::domain::account::Security;
use postroom::domain::outcome::{Class, Step};
use postroom::smtp::{Connector, ConnectorError, ConnectorOptions, FailureKind};

use crate::scripted::Server;
use crate::scripted::certificates::{CaFile, Certificate};
use crate::scripted::ordinary::{Behaviour, Tls};
use crate::support::{PASSWORD, USER, classes, open, options, refused, send, target_at, with_login};

const WAYS: [Security; 2] = [Security::ImplicitTls, Security::StartTls];

fn showing(certificate: Certificate, security: Security) -> Tls {
    match security {
        Security::ImplicitTls => Tls::Implicit(certificate),
        Security::StartTls => Tls::AfterCommand(certificate),
        Security::None => Tls::Never,
    }
}

#[tokio::test]
async fn case_9_certificates_that_are_not_accepted() {
    for (certificate, reason) in [
        (Certificate::Expired, "the certificate expired on 2020-12-31 00:00 UTC"),
        (Certificate::SelfSigned, "the certificate is self-signed"),
        (
            Certificate::OtherName,
            "the certificate is not for localhost but for mail.example.com, mx.example.com",
        ),
        (Certificate::UnknownIssuer, "the certificate's issuer is unknown"),
    ] {
        for security in WAYS {
            let server =
                Behaviour::default().tls(showing(certificate, security)).login(USER, PASSWORD).start().await;
            let failure = refused(&with_login(&server, security)).await;
            assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Permanent), "{certificate:?}");
            assert_eq!(failure.reply.text, reason);
            assert!(failure.advice.is_some());
            let journal = server.wait_until(|journal| journal.ended == 1).await;
            assert!(!journal.commands.iter().any(|command| command.starts_with("AUTH")), "no fallback");
            assert_eq!(journal.connections, 1);
        }
    }
}

#[tokio::test]
async fn case_9_only_tls_1_1() {
    let server = Server::scripted(|mut peer| async move {
        // A protocol_version alert (RFC 8446 6.2), as from a server that can do no better.
        peer.say(b"\x15\x03\x02\x00\x02\x02\x46").await?;
        peer.fault("alert");
        peer.hold().await.map(|_| ())
    })
    .await;
    let failure = refused(&target_at("localhost", server.port(), Security::ImplicitTls)).await;
    assert_eq!((failure.step, failure.kind), (Step::Tls, FailureKind::Permanent));
    assert_eq!(failure.reply.text, "the server speaks no TLS newer than 1.1");
    assert_eq!(server.journal().faults, ["alert"]);
}

#[tokio::test]
async fn a_good_certificate_is_accepted() {
    for security in WAYS {
        for host in ["localhost", "127.0.0.1", "LOCALHOST"] {
            let server = Behaviour::default()
                .tls(showing(Certificate::Good, security))
                .login(USER, PASSWORD)
                .start()
                .await;
            let mut target = with_login(&server, security);
            target.server.host = host.to_owned();
            let mut session = open(&target).await;
            assert_eq!(classes(&send(&mut session, &["bob@example.com"]).await), [Class::Sent]);
            let letter = &server.journal().letters[0];
            assert!(letter.tls);
            assert_eq!(letter.user.as_deref(), Some(USER));
        }
    }
}

#[test]
fn options_that_cannot_be_used() {
    let ca = CaFile::new();
    let not_pem = std::env::current_exe().expect("a path").with_extension("no-such-file");
    let missing = Connector::new(ConnectorOptions { ca_file: Some(not_pem), ..options(&ca) });
    assert!(matches!(missing, Err(ConnectorError::CaFile { .. })), "{missing:?}");
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let empty = Connector::new(ConnectorOptions { ca_file: Some(manifest), ..options(&ca) });
    assert!(matches!(empty, Err(ConnectorError::CaFile { .. })), "{empty:?}");
    for name in ["", "two words", "a\r\nMAIL FROM:<x@example.com>", "пример.рф"] {
        let refused = Connector::new(ConnectorOptions { helo_name: name.to_owned(), ..options(&ca) });
        assert!(matches!(refused, Err(ConnectorError::HeloName(_))), "{name}");
    }
}
