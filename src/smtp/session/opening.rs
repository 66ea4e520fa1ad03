//! From a target to a session that is ready for letters: connection, greeting, TLS, EHLO, login.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::dialogue::{Dialogue, Shown};
use super::login;
use super::progress::Progress;
use crate::domain::account::{Auth, Security};
use crate::domain::log::EntryKind;
use crate::domain::outcome::Step;
use crate::domain::reply::Reply;
use crate::metrics::OpenSession;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::connect::{connect, resolve};
use crate::smtp::connector::{Connector, Target};
use crate::smtp::deadlines::Deadlines;
use crate::smtp::failure::{Failure, FailureKind};
use crate::smtp::printable;
use crate::smtp::redact::Redactor;
use crate::smtp::reply::RawReply;
use crate::smtp::tls;
use crate::smtp::transcript::Transcript;
use crate::smtp::wire::{Broken, Wire};

/// How long a silent server gets to answer a TLS handshake, after it did not greet.
const TLS_PROBE: Duration = Duration::from_millis(500);

const TLS_EXPECTED: &str = "this port expects TLS from the start: use IMPLICIT_TLS";
const NO_MAIL_SERVER: &str = "this is no mail server for sending: check host and port";

/// What an opened connection offers.
pub(in crate::smtp) struct Opened {
    pub(in crate::smtp) dialogue: Dialogue,
    pub(in crate::smtp) capabilities: Capabilities,
    /// The lines of the last EHLO behind the first, printable.
    pub(in crate::smtp) lines: Vec<String>,
    pub(in crate::smtp) counted: OpenSession,
}

/// Opens; `progress` tells afterwards how far it came.
pub(in crate::smtp) async fn open(
    connector: &Connector,
    target: &Target,
    deadlines: Deadlines,
    progress: &mut Progress,
    log: &Transcript,
) -> Result<Opened, Failure> {
    let start = Instant::now();
    let mut opened = Opening { connector, target, progress, log }.run(deadlines, start).await;
    if let Err(failure) = &mut opened {
        // A server may put what it learnt in a session before into a list of mechanisms, or a certificate.
        failure.reply.text = Redactor::new(&target.auth).mask_text(&failure.reply.text);
    }
    match &opened {
        Ok(_) => tracing::debug!(host = %target.server.host, "SMTP session opened"),
        Err(failure) => {
            connector.metrics.smtp.failed(failure.step);
            tracing::debug!(host = %target.server.host, step = ?failure.step, kind = ?failure.kind, code = failure.reply.code, "SMTP session not opened");
            log.record(EntryKind::Error, failure.to_string());
        }
    }
    opened
}

struct Opening<'a> {
    connector: &'a Connector,
    target: &'a Target,
    progress: &'a mut Progress,
    log: &'a Transcript,
}

impl Opening<'_> {
    async fn run(mut self, deadlines: Deadlines, start: Instant) -> Result<Opened, Failure> {
        let server = &self.target.server;
        let Connector { egress, look_ups, .. } = self.connector;
        let addresses = resolve(egress, look_ups, server, deadlines.reply, self.log).await?;
        let found = addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ");
        self.progress.pass(Reply::absent(found));

        self.progress.enter(Step::Connect);
        let stream = connect(&addresses, deadlines.reply, self.log).await?;
        self.progress.pass(Reply::absent("connected"));
        let redactor = Redactor::new(&self.target.auth);
        let mut dialogue = Dialogue { wire: Wire::new(stream), deadlines, redactor };
        let opened = self.talk(&mut dialogue).await;
        match opened {
            Ok((capabilities, lines)) => {
                let counted = OpenSession::begin(&self.connector.metrics, start.elapsed());
                Ok(Opened { dialogue, capabilities, lines, counted })
            }
            Err(failure) => {
                dialogue.close(self.log).await;
                Err(failure)
            }
        }
    }

    async fn talk(&mut self, dialogue: &mut Dialogue) -> Result<(Capabilities, Vec<String>), Failure> {
        let security = self.target.server.security;
        if security == Security::ImplicitTls {
            self.tls(dialogue).await?;
        }
        self.greeting(dialogue).await?;
        let mut offered = self.hello(dialogue).await?;
        if security == Security::StartTls {
            self.starttls(dialogue, &offered.0).await?;
            // Whatever was said before TLS may come from anybody in between (RFC 3207 4.2).
            offered = self.hello(dialogue).await?;
        }
        self.login(dialogue, &offered.0).await?;
        Ok(offered)
    }

    async fn greeting(&mut self, dialogue: &mut Dialogue) -> Result<(), Failure> {
        self.progress.enter(Step::Connect);
        match dialogue.timed_reply("the greeting", dialogue.deadlines.reply, self.log).await {
            Ok(reply) if reply.code == 220 => {
                self.progress.pass(dialogue.stored(&reply));
                Ok(())
            }
            Ok(reply) => Err(Failure::refused(Step::Connect, dialogue.stored(&reply))
                .with_advice("the server does not want connections from here: ask its operator")),
            Err(broken) => Err(self.no_greeting(dialogue, broken).await),
        }
    }

    /// Says what it is that does not greet like a mail server.
    async fn no_greeting(&self, dialogue: &mut Dialogue, broken: Broken) -> Failure {
        let plain = self.target.server.security != Security::ImplicitTls;
        let first = broken.lines().first().map(|line| line.bytes.clone()).unwrap_or_default();
        let silent = matches!(&broken, Broken::TimedOut(lines) if lines.is_empty());
        let advice = if plain && (is_tls_record(&first) || (silent && self.answers_tls(dialogue).await)) {
            Some(TLS_EXPECTED)
        } else if [&b"HTTP/"[..], b"SSH-", b"* OK", b"+OK"].iter().any(|start| first.starts_with(start)) {
            Some(NO_MAIL_SERVER)
        } else {
            None
        };
        let kind = if advice.is_some() { FailureKind::Permanent } else { FailureKind::Temporary };
        let advice = advice
            .or(silent
                .then_some("check port and security: the server accepts connections but does not greet"));
        Failure {
            step: Step::Connect,
            kind,
            reply: dialogue.absent(&broken),
            advice: advice.map(str::to_owned),
        }
    }

    /// Whether a server that says nothing was waiting for a TLS handshake. The connection is given up either way.
    async fn answers_tls(&self, dialogue: &mut Dialogue) -> bool {
        let Some(stream) = dialogue.wire.take_plain() else { return false };
        let Ok(name) = ServerName::try_from("localhost") else { return false };
        let connect = TlsConnector::from(self.connector.tls.clone()).connect(name, stream);
        match tokio::time::timeout(TLS_PROBE, connect).await {
            Ok(Ok(_)) => true,
            // Only what comes in TLS can be wrong in these ways.
            Ok(Err(error)) => matches!(
                error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
                Some(
                    rustls::Error::InvalidCertificate(_)
                        | rustls::Error::AlertReceived(_)
                        | rustls::Error::PeerIncompatible(_)
                )
            ),
            Err(_) => false,
        }
    }

    async fn tls(&mut self, dialogue: &mut Dialogue) -> Result<(), Failure> {
        self.progress.enter(Step::Tls);
        let start = Instant::now();
        let plain = dialogue.wire.take_plain();
        let stream = plain
            .ok_or_else(|| Failure::other(Step::Tls, FailureKind::Temporary, "the connection is gone"))?;
        let deadline = start + dialogue.deadlines.reply;
        let stream = tls::handshake(&self.connector.tls, &self.target.server.host, stream, deadline).await?;
        let elapsed = start.elapsed().as_millis();
        // A server may put what it learnt in a session before into the names of a certificate.
        let (agreed, certificate) = tls::describe(&stream, |name| dialogue.redactor.mask_text(name));
        let certificate = printable::escape(certificate);
        self.log.record(EntryKind::Connection, format!("{agreed}, in {elapsed} ms"));
        self.log.record(EntryKind::Connection, certificate.as_str());
        dialogue.wire.put_tls(stream);
        self.progress.pass(Reply::absent(format!("{agreed}, {certificate}")));
        Ok(())
    }

    async fn starttls(&mut self, dialogue: &mut Dialogue, offered: &Capabilities) -> Result<(), Failure> {
        self.progress.enter(Step::Tls);
        if !offered.starttls {
            let what = "the server does not offer STARTTLS";
            return Err(Failure::other(Step::Tls, FailureKind::Permanent, what).with_advice(
                "use IMPLICIT_TLS on port 465 if the server has it; nothing of the login was sent",
            ));
        }
        let reply = self.ask(dialogue, Step::Tls, "STARTTLS").await?;
        if reply.code != 220 {
            return Err(Failure::refused(Step::Tls, dialogue.stored(&reply)));
        }
        // Plain text behind the 220 would be read as if it had come through TLS (CVE-2011-0411 and its kin).
        if dialogue.wire.is_disturbed() && !dialogue.wire.buffered().is_empty() {
            self.connector.metrics.smtp.injections.inc();
            let injected = dialogue.wire.buffered();
            let count = injected.len();
            self.log
                .record(EntryKind::Data, String::from_utf8_lossy(&dialogue.redactor.mask(injected, true)));
            let what = format!(
                "security: the server, or somebody on the way, sent {count} bytes behind its answer to STARTTLS"
            );
            tracing::warn!(host = %self.target.server.host, count, "plain text injected behind STARTTLS");
            return Err(Failure::other(Step::Tls, FailureKind::Permanent, what).with_advice(
                "somebody may tamper with this connection: use IMPLICIT_TLS, and tell the server's operator",
            ));
        }
        self.tls(dialogue).await
    }

    async fn hello(&mut self, dialogue: &mut Dialogue) -> Result<(Capabilities, Vec<String>), Failure> {
        self.progress.enter(Step::Hello);
        let name = &self.connector.helo_name;
        let reply = self.ask(dialogue, Step::Hello, &format!("EHLO {name}")).await?;
        let stored = dialogue.stored(&reply);
        if reply.code == 250 {
            let lines = stored.text.lines().skip(1).map(str::to_owned).collect();
            self.progress.pass(stored);
            return Ok((Capabilities::of(&reply), lines));
        }
        let needed = match (self.target.server.security, &self.target.auth) {
            (Security::StartTls, _) => Some("STARTTLS needs EHLO, which this server refuses"),
            (_, Auth::Password { .. }) => Some("a login needs EHLO, which this server refuses"),
            (Security::ImplicitTls | Security::None, Auth::None) => None,
        };
        if !stored.is_permanent() {
            return Err(Failure::refused(Step::Hello, stored));
        }
        if let Some(advice) = needed {
            return Err(Failure::refused(Step::Hello, stored).with_advice(advice));
        }
        // A server from before ESMTP (RFC 5321 3.2).
        let reply = self.ask(dialogue, Step::Hello, &format!("HELO {name}")).await?;
        let stored = dialogue.stored(&reply);
        if reply.code != 250 {
            return Err(Failure::refused(Step::Hello, stored));
        }
        self.progress.pass(stored);
        Ok((Capabilities::default(), Vec::new()))
    }

    async fn login(&mut self, dialogue: &mut Dialogue, offered: &Capabilities) -> Result<(), Failure> {
        let Auth::Password { username, password } = &self.target.auth else {
            return Ok(());
        };
        self.progress.enter(Step::Auth);
        let server = &self.target.server;
        if server.security == Security::None && !self.connector.allows_plaintext_auth(&server.host) {
            let what = "a password is not sent without TLS";
            return Err(Failure::other(Step::Auth, FailureKind::Permanent, what)
                .with_advice("use IMPLICIT_TLS or STARTTLS; only the operator can allow this host to get passwords in plain text"));
        }
        let start = Instant::now();
        let reply = login::log_in(dialogue, offered, username, password.expose(), self.log).await?;
        self.log
            .record(EntryKind::Connection, format!("authenticated in {} ms", start.elapsed().as_millis()));
        self.progress.pass(reply);
        Ok(())
    }

    async fn ask(&self, dialogue: &mut Dialogue, step: Step, line: &str) -> Result<RawReply, Failure> {
        dialogue.command(line, Shown::AsSaid, self.log).await.map_err(|broken| Failure {
            step,
            kind: FailureKind::Temporary,
            reply: dialogue.absent(&broken),
            advice: None,
        })
    }
}

/// A TLS handshake or alert record (RFC 8446 5.1), as a TLS server sends it to whoever does not speak TLS.
fn is_tls_record(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 0x03, ..])
}
