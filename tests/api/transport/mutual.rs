//! Mutual TLS: who shows no certificate of the right authority gets nothing.

use std::fs;

use postroom::api::proto::ListSitesRequest;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use tokio::io::AsyncReadExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use super::certs::{Authority, Files, Issued};
use super::channels::{bare_tls_channel, client_config, openssl, shake_hands, tls_channel};
use crate::support::{Options, PATIENCE, Postroom, patiently};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_gets_nothing() {
    let (own, foreign) = (Authority::new("Authority of clients"), Authority::new("Authority of others"));
    let files = Files::new(&own.server(), Some(&own));
    // `setup` of a server goes over plain text in these tests; the site is not needed here.
    let postroom = Postroom::start().await;
    let guarded = postroom.another_with(Options { transport: files.transport(), ..Options::default() }).await;
    let address = &guarded.address;

    let known = own.client();
    let channel = tls_channel(address, client_config(&own, Some(&known)), &postroom.key);
    let settings = SettingsServiceClient::new(channel);
    let sites = patiently(async || settings.clone().list_sites(ListSitesRequest::default()).await).await;
    assert_eq!(sites.expect("sites").sites.len(), 1);

    let stranger = foreign.client();
    for present in [None, Some(&stranger)] {
        let config = client_config(&own, present);
        let channel = || bare_tls_channel(address, config.clone());
        let health = HealthClient::new(channel()).check(HealthCheckRequest::default()).await;
        let code = health.expect_err("no certificate").code();
        assert!(
            matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled),
            "{code:?}"
        );
        let question = tokio_stream::once(ServerReflectionRequest::default());
        let reflection = ServerReflectionClient::new(channel()).server_reflection_info(question).await;
        assert!(reflection.is_err(), "reflection was answered");
        let authorised = tls_channel(address, config.clone(), &postroom.key);
        let sites = SettingsServiceClient::new(authorised).list_sites(ListSitesRequest::default()).await;
        assert!(sites.is_err(), "a key was enough");
        // Not a byte: in TLS 1.3 the client is through before the server has seen that there is no certificate.
        if let Ok(mut stream) = shake_hands(address, config).await {
            let mut bytes = Vec::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
            assert!(read.is_err() && bytes.is_empty(), "{read:?} {bytes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_with_and_without_a_certificate() {
    let own = Authority::new("Authority of clients");
    let files = Files::new(&own.server(), Some(&own));
    let Issued { cert, key } = own.client();
    fs::write(files.path("client.pem"), cert).expect("written");
    fs::write(files.path("client-key.pem"), key).expect("written");
    let (cert, key) = (files.text("client.pem"), files.text("client-key.pem"));
    let postroom = Postroom::start().await;
    let guarded = postroom.another_with(Options { transport: files.transport(), ..Options::default() }).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let (done, said) =
            openssl(&guarded.address, &[version, "-alpn", "h2", "-cert", &cert, "-key", &key]).await;
        assert!(done && said.contains("ALPN protocol: h2"), "{version}: {said}");
    }
    // With TLS 1.2 the handshake itself fails. With 1.3 openssl has ended by the time it is told.
    let (done, said) = openssl(&guarded.address, &["-tls1_2", "-alpn", "h2"]).await;
    assert!(!done && said.contains("alert"), "{said}");
}
