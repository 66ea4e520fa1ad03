//! TLS as clients of others see it: openssl, Python, plain text that comes to the wrong door.

use postroom::api::proto::ListSitesRequest;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::certs::{Authority, Files};
use super::channels::{client_config, openssl, tls_channel};
use crate::binary::{DataDir, Serving};
use crate::python_client;
use crate::scripted::ordinary::Behaviour;
use crate::support::{PATIENCE, bare_channel, patiently, reason};

/// A server of the built program with TLS, and an admin key.
async fn serve(data_dir: &DataDir, files: &Files, more: &[&str]) -> (Serving, String) {
    let flags = files.flags();
    let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let serving = Serving::start(&data_dir.path(), &arguments).await;
    let key = data_dir.lines(&["key", "create", "--site", "sites/-", "--role", "admin"]).await.concat();
    (serving, key)
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().expect("a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_agrees_on_versions_and_protocol() {
    let authority = Authority::new("Authority of TLS");
    let files = Files::new(&authority.server(), None);
    std::fs::write(files.path("root.pem"), &authority.pem).expect("written");
    let root = files.text("root.pem");
    let data_dir = DataDir::new();
    // Off the loopback, without --insecure.
    let (serving, _key) = serve(&data_dir, &files, &["--listen", "0.0.0.0:0"]).await;
    let address = format!("127.0.0.1:{}", port_of(&serving.address));
    let trusting = ["-CAfile", root.as_str(), "-verify_return_error", "-alpn", "h2"];
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let (done, said) = openssl(&address, &[&trusting[..], &[version]].concat()).await;
        assert!(done && said.contains("ALPN protocol: h2") && said.contains(name), "{version}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    let (done, said) =
        openssl(&address, &[&trusting[..], &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]].concat()).await;
    assert!(!done, "TLS 1.1 was agreed upon: {said}");
    let other = ["-CAfile", root.as_str(), "-alpn", "http/1.1"];
    let (done, said) = openssl(&address, &other).await;
    assert!(!done && said.contains("no application protocol"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_at_the_door_of_tls_just_ends() {
    let authority = Authority::new("Authority of TLS");
    let files = Files::new(&authority.server(), None);
    let data_dir = DataDir::new();
    let (serving, key) = serve(&data_dir, &files, &[]).await;
    // A gRPC client that was not told of TLS.
    let mut plain = HealthClient::new(bare_channel(&serving.address));
    let refused = plain.check(HealthCheckRequest::default()).await.expect_err("plain text");
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled),
        "{refused:?}"
    );
    // And one that speaks HTTP/1.
    let mut stream = TcpStream::connect(&serving.address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    // An alert, if anything; a reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // Those who were told are served.
    let channel = tls_channel(&serving.address, client_config(&authority, None), &key);
    let settings = SettingsServiceClient::new(channel);
    let sites = patiently(async || settings.clone().list_sites(ListSitesRequest::default()).await).await;
    assert!(sites.expect("sites").sites.is_empty());
    let channel = tls_channel(&serving.address, client_config(&authority, None), "prm_wrong");
    let refused = SettingsServiceClient::new(channel).list_sites(ListSitesRequest::default()).await;
    assert_eq!(reason(&refused.expect_err("no key")), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
}

/// tests/clients/python goes the whole way over TLS, and over mutual TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_goes_the_whole_way_over_tls() {
    let python = python_client::environment().await;
    let authority = Authority::new("Authority of TLS");
    let client = authority.client();
    for mutual in [false, true] {
        let server = Behaviour::default().login("python", python_client::PASSWORD).start().await;
        let files = Files::new(&authority.server(), mutual.then_some(&authority));
        for (name, pem) in
            [("root.pem", &authority.pem), ("client.pem", &client.cert), ("client-key.pem", &client.key)]
        {
            std::fs::write(files.path(name), pem).expect("written");
        }
        let data_dir = DataDir::new();
        let (serving, key) = serve(&data_dir, &files, &[]).await;
        let mut command = python_client::client(&python, &serving.address, &key, server.port());
        command.args(["--ca", &files.text("root.pem")]);
        if mutual {
            command.args(["--cert", &files.text("client.pem"), "--cert-key", &files.text("client-key.pem")]);
        }
        python_client::run(command).await;
        assert_eq!(server.journal().letters.len(), 1);
    }
}
