//! Servers that know the password and say it wherever a server says anything.

use super::USER;
use super::canary::{HALVES, PASSWORD, echo};
use crate::scripted::Server;
use crate::scripted::certificates::Certificate;
use crate::scripted::ordinary::{Behaviour, Then, Tls};

/// Who is said what instead of the letter being taken.
pub(super) const RECIPIENTS: [&str; 5] =
    ["long@example.org", "noise@example.org", "cut@example.org", "half@example.org", "split@example.org"];

/// The servers of the test.
pub(super) struct Hostile {
    /// Takes AUTH PLAIN.
    pub(super) plain: Server,
    /// Knows only AUTH LOGIN, and says so late.
    pub(super) login: Server,
    /// AUTH LOGIN in TLS.
    pub(super) starttls: Server,
    /// Takes the first logins and no more.
    pub(super) parking: Server,
    /// Opens no session at all.
    pub(super) failing: [Server; 4],
}

impl Hostile {
    pub(super) async fn start() -> Self {
        let all = echo(USER);
        let auth = |code: &str| format!("{code} {all}\r\n");
        let asking = || hostile().on("prompt", format!("334 {all}\r\n"));
        let tls = asking().tls(Tls::AfterCommand(Certificate::Good)).mechanisms("LOGIN");
        let welcome = auth("235 2.7.0");
        let parking = hostile().once("AUTH", &welcome, Then::GoOn).once("AUTH", &welcome, Then::GoOn);
        let refusing = hostile().on("AUTH", auth("535 5.7.8"));
        Self {
            plain: hostile().on("AUTH", &welcome).start().await,
            login: asking().on("AUTH PLAIN", auth("504 5.5.4")).on("AUTH LOGIN", &welcome).start().await,
            starttls: tls.on("STARTTLS", auth("220 2.0.0")).on("AUTH", &welcome).start().await,
            parking: parking.on("AUTH", auth("535 5.7.8")).start().await,
            failing: [
                refusing.start().await,
                // Goes on asking.
                asking().mechanisms("LOGIN").on("AUTH", auth("334")).start().await,
                hostile().mechanisms(&format!("X-{PASSWORD}")).start().await,
                hostile()
                    .on("AUTH", format!("535-5.7.8 {}\r\n535 5.7.8 {}\r\n", HALVES[0], rest()))
                    .start()
                    .await,
            ],
        }
    }
}

/// What is behind the first half.
fn rest() -> &'static str {
    &PASSWORD[HALVES[0].len()..]
}

/// Says the password at every step; takes letters for everybody but those it has something else to say to.
fn hostile() -> Behaviour {
    let all = echo(USER);
    // The password across every place at which a line could be cut.
    let lines = (1_990..2_060).map(|pad| format!("451-{}{PASSWORD}\r\n", "x".repeat(pad)));
    let long = lines.collect::<Vec<_>>().concat();
    let split = format!("451-4.3.0 you said {}\r\n451 4.3.0 {}, didn't you?\r\n", HALVES[0], rest());
    Behaviour::default()
        .login(USER, PASSWORD)
        .extensions(&["PIPELINING", "8BITMIME", &format!("X-ECHO {all}")])
        .on("greeting", format!("220 hostile.example {all}\r\n"))
        .on("MAIL FROM", format!("250-2.1.0 {all}\r\n250 2.1.0 {PASSWORD}\r\n"))
        .on("RCPT TO:<nobody@", format!("550 5.1.1 {all}\r\n"))
        .on("RCPT TO:<later@", format!("451 4.3.0 {all}\r\n"))
        .on("RCPT TO:<long@", format!("{long}451 4.3.0 done\r\n"))
        .on("RCPT TO:<split@", split)
        .each("RCPT TO:<noise@", format!("{PASSWORD} {all}\r\n"), Then::Close)
        .each("RCPT TO:<cut@", format!("250-{all}"), Then::Close)
        .each("RCPT TO:<half@", format!("250 taken, {}", HALVES[0]), Then::Close)
        .on("RCPT TO", format!("250 2.1.5 {all}\r\n"))
        .on("DATA", format!("354 go ahead, {all}\r\n"))
        .on("dot", format!("250 2.0.0 taken, {all}\r\n"))
        .on("RSET", format!("250 2.0.0 {all}\r\n"))
        .on("QUIT", format!("221 2.0.0 bye, {all}\r\n"))
}
