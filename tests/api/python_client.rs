//! A client in another language: tests/clients/python goes the whole way against a real server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::scripted::ordinary::Behaviour;
use crate::support::Postroom;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The server thinks for so long before it takes the letter: what a tail shows in that time, it shows live.
const BEFORE_THE_LETTER_IS_TAKEN: Duration = Duration::from_millis(700);
pub(crate) const PASSWORD: &str = "correct horse";

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_goes_the_whole_way() {
    let python = environment().await;
    let behaviour = Behaviour::default().login("python", PASSWORD).delay("dot", BEFORE_THE_LETTER_IS_TAKEN);
    let server = behaviour.start().await;
    let postroom = Postroom::start().await;

    let mut client = client(&python, &postroom.address, &postroom.key, server.port());
    client.args(["--site", "python", "--expect-live"]);
    run(client).await;

    let letters = server.journal().letters;
    assert_eq!(letters.len(), 1, "one letter and no second one");
    let letter = &letters[0];
    assert_eq!(letter.user.as_deref(), Some("python"));
    assert_eq!(letter.recipients, ["<ann@example.org>", "<bob@example.org>", "<eve@example.org>"]);
    let content = String::from_utf8_lossy(&letter.content);
    assert!(!content.contains("eve@"), "the blind copy shows:\n{content}");
    let parts = [
        "multipart/mixed",
        "multipart/related",
        "multipart/alternative",
        "invoice.txt",
        "Content-ID: <pixel>",
        "X-Order: 4711",
    ];
    for part in parts {
        assert!(content.contains(part), "no {part} in:\n{content}");
    }
}

/// The client for a server of Postroom, whose account is at this port of this machine.
pub(crate) fn client(python: &Path, address: &str, key: &str, smtp_port: u16) -> Command {
    let mut client = Command::new(python);
    client.arg(Path::new(ROOT).join("tests/clients/python/client.py"));
    client.args(["--address", address, "--key", key]);
    client.args(["--smtp-host", "127.0.0.1", "--smtp-port", &smtp_port.to_string(), "--security", "NONE"]);
    client.args(["--username", "python", "--password", PASSWORD, "--sender", "shop@example.com"]);
    client.args(["--to", "Ann Lee <ann@example.org>", "--cc", "bob@example.org", "--bcc", "eve@example.org"]);
    // A proxy of the machine is not for the loopback.
    client.env("no_grpc_proxy", "127.0.0.1");
    client
}

/// Lets a client go its way, which must succeed.
pub(crate) async fn run(mut client: Command) {
    let output = tokio::task::spawn_blocking(move || client.output()).await.expect("no panic");
    must_succeed("client.py", &output.expect("Python starts"));
}

/// The interpreter of a virtual environment that has what requirements.txt names; made once under target/.
pub(crate) async fn environment() -> PathBuf {
    tokio::task::spawn_blocking(make_environment).await.expect("an environment")
}

fn make_environment() -> PathBuf {
    let requirements = Path::new(ROOT).join("tests/clients/python/requirements.txt");
    let wanted = fs::read_to_string(&requirements).expect("the requirements");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    fs::create_dir_all(&folder).expect("a folder under target/");
    // Held until this returns, so that runs side by side make one environment.
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let (venv, done) = (folder.join("venv"), folder.join("requirements.txt"));
    let python = venv.join("bin/python");
    if python.exists() && fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
    must_succeed("python3 -m venv (Debian: python3-venv)", &made.expect("python3 (Debian: python3)"));
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    must_succeed("pip install", &install.arg(&requirements).output().expect("pip"));
    // Last, so that an environment that was not finished is made anew.
    fs::write(done, wanted).expect("a note of what is installed");
    python
}

/// What a program said, unless it succeeded.
pub(crate) fn must_succeed(what: &str, output: &Output) {
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(status.success(), "{what}: {status}\n{stdout}\n{stderr}");
}
