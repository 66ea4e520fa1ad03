//! What an operator may get wrong with the files of TLS: told before anything is begun, with flag and file.

use clap::Args as _;
use nix::sys::signal::Signal;
use postroom::config::ServeOptions;
use postroom::transport::{
    DEFAULT_MAX_CALLS, DEFAULT_MAX_CONNECTION_AGE, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_STREAMS,
};

use super::certs::{Authority, Files, Issued};
use super::channels::{client_config, shake_hands};
use crate::binary::{DataDir, Serving, run};
use crate::support::PATIENCE;

/// The command line has defaults of its own, which must be those that count elsewhere.
#[test]
fn the_command_line_has_the_defaults_that_count() {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let default = |name: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(name));
        let values = argument.expect("a flag").get_default_values();
        values[0].to_str().expect("UTF-8").to_owned()
    };
    assert_eq!(default("max-connections"), DEFAULT_MAX_CONNECTIONS.to_string());
    assert_eq!(default("max-concurrent-calls"), DEFAULT_MAX_CALLS.to_string());
    assert_eq!(default("max-concurrent-streams"), DEFAULT_MAX_STREAMS.to_string());
    let age = humantime::parse_duration(&default("max-connection-age")).expect("a duration");
    assert_eq!(age, DEFAULT_MAX_CONNECTION_AGE);
}

async fn refused(data_dir: &DataDir, flags: &[&str]) -> String {
    let path = data_dir.path();
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path.to_str().expect("UTF-8")];
    let output = run(&[&fixed[..], flags].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{flags:?}");
    assert!(output.stdout.is_empty() && !path.exists(), "{flags:?}: something was begun");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("Authority of options");
    let (good, other) = (authority.server(), authority.server());
    let files = Files::new(&good, None);
    std::fs::write(files.path("other-key.pem"), &other.key).expect("written");
    std::fs::write(files.path("nonsense.pem"), "no PEM").expect("written");
    std::fs::write(
        files.path("broken.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    let path = |name: &str| files.text(name);
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let data_dir = DataDir::new();
    let table: [(&[&str], &[&str]); 10] = [
        (&["--tls-cert", &cert], &["--tls-cert needs --tls-key"]),
        (&["--tls-key", &key], &["--tls-key needs --tls-cert"]),
        (&["--tls-client-ca", &cert], &["--tls-client-ca needs --tls-cert and --tls-key"]),
        (
            &["--tls-cert", &path("none.pem"), "--tls-key", &key],
            &["--tls-cert", "none.pem: cannot be read: No such file"],
        ),
        (&["--tls-cert", &cert, "--tls-key", &path("none.pem")], &["--tls-key", "none.pem: cannot be read"]),
        (
            &["--tls-cert", &path("nonsense.pem"), "--tls-key", &key],
            &["--tls-cert", "nonsense.pem: holds no certificate"],
        ),
        (&["--tls-cert", &cert, "--tls-key", &cert], &["--tls-key", "cert.pem: holds no private key"]),
        (
            &["--tls-cert", &path("broken.pem"), "--tls-key", &key],
            &["--tls-cert", "broken.pem: is no certificate that can be used"],
        ),
        (
            &["--tls-cert", &cert, "--tls-key", &path("other-key.pem")],
            &["other-key.pem: does not belong to the certificate of --tls-cert"],
        ),
        (
            &["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &path("nonsense.pem")],
            &["--tls-client-ca", "nonsense.pem: holds no certificate"],
        ),
    ];
    for (flags, expected) in table {
        let said = refused(&data_dir, flags).await;
        for part in expected {
            assert!(said.contains(part), "{flags:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_served_and_told_of() {
    let authority = Authority::new("Authority of options");
    let Issued { cert, key } = authority.expired();
    let files = Files::new(&Issued { cert, key }, None);
    let data_dir = DataDir::new();
    let flags = files.flags();
    let serving =
        Serving::start(&data_dir.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let refused = shake_hands(&serving.address, client_config(&authority, None)).await.expect_err("expired");
    assert!(refused.to_string().contains("xpired"), "{refused}");
    serving.signal(Signal::SIGTERM);
    let (status, output) = serving.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("the certificate of --tls-cert has expired"), "{output}");
}
