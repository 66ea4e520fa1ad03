//! A well-behaved SMTP server that records what it takes, with rules for the events at which it should misbehave.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::certificates::Certificate;
use super::{Peer, Received, Server};

/// When the server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Never.
    Never,
    /// From the first byte.
    Implicit(Certificate),
    /// After STARTTLS, and before that it takes no letter and no login.
    AfterCommand(Certificate),
}

/// What the server does after it has answered an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Goes on.
    GoOn,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Says nothing any more.
    Silence,
}

/// What happens instead of the usual at events that begin with a text: `greeting`, a command such as `RCPT TO:<a@`,
/// `prompt` within a login, or `dot`.
struct Rule {
    event: String,
    delay: Duration,
    /// `None`: the usual reply.
    reply: Option<Vec<u8>>,
    then: Then,
    /// How often it still applies.
    times: AtomicUsize,
}

/// How the server behaves.
pub(crate) struct Behaviour {
    tls: Tls,
    login: Option<(String, String)>,
    mechanisms: String,
    extensions: Vec<String>,
    rules: Vec<Rule>,
}

impl Default for Behaviour {
    /// Plain text, no login, PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and ENHANCEDSTATUSCODES, takes everything.
    fn default() -> Self {
        let extensions = ["PIPELINING", "SIZE 30000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
        Self {
            tls: Tls::Never,
            login: None,
            mechanisms: "PLAIN LOGIN".to_owned(),
            extensions: extensions.map(str::to_owned).to_vec(),
            rules: Vec::new(),
        }
    }
}

impl Behaviour {
    /// When it speaks TLS.
    pub(crate) fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Takes letters only after this login.
    pub(crate) fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Offers these ways to log in.
    pub(crate) fn mechanisms(mut self, names: &str) -> Self {
        names.clone_into(&mut self.mechanisms);
        self
    }

    /// Offers exactly these extensions, beside STARTTLS and AUTH.
    pub(crate) fn extensions(mut self, extensions: &[&str]) -> Self {
        self.extensions = extensions.iter().map(|extension| (*extension).to_owned()).collect();
        self
    }

    /// Answers events that begin with `event` like this, each time.
    pub(crate) fn on(self, event: &str, reply: impl AsRef<[u8]>) -> Self {
        self.rule(event, Duration::ZERO, Some(reply.as_ref().to_vec()), Then::GoOn, usize::MAX)
    }

    /// Answers the first such event like this, and then does that.
    pub(crate) fn once(self, event: &str, reply: impl AsRef<[u8]>, then: Then) -> Self {
        self.rule(event, Duration::ZERO, Some(reply.as_ref().to_vec()), then, 1)
    }

    /// Answers each such event like this, and then does that.
    pub(crate) fn each(self, event: &str, reply: impl AsRef<[u8]>, then: Then) -> Self {
        self.rule(event, Duration::ZERO, Some(reply.as_ref().to_vec()), then, usize::MAX)
    }

    /// Waits before it answers such events as usual.
    pub(crate) fn delay(self, event: &str, delay: Duration) -> Self {
        self.rule(event, delay, None, Then::GoOn, usize::MAX)
    }

    fn rule(
        mut self,
        event: &str,
        delay: Duration,
        reply: Option<Vec<u8>>,
        then: Then,
        times: usize,
    ) -> Self {
        let event = event.to_ascii_uppercase();
        self.rules.push(Rule { event, delay, reply, then, times: AtomicUsize::new(times) });
        self
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Server {
        let behaviour = Arc::new(self);
        Server::scripted(move |peer| Arc::clone(&behaviour).serve(peer)).await
    }

    /// Serves one connection of a scripted server.
    pub(crate) async fn serve(self: Arc<Self>, peer: Peer) -> io::Result<()> {
        Connection::new(peer, self).run().await
    }

    fn rule_for(&self, event: &str) -> Option<&Rule> {
        let event = event.to_ascii_uppercase();
        self.rules.iter().find(|rule| {
            event.starts_with(&rule.event)
                && rule
                    .times
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| match times {
                        usize::MAX => Some(times),
                        _ => times.checked_sub(1),
                    })
                    .is_ok()
        })
    }
}

struct Connection {
    peer: Peer,
    behaviour: Arc<Behaviour>,
    user: Option<String>,
    sender: Option<String>,
    recipients: Vec<String>,
}

impl Connection {
    fn new(peer: Peer, behaviour: Arc<Behaviour>) -> Self {
        Self { peer, behaviour, user: None, sender: None, recipients: Vec::new() }
    }

    async fn run(mut self) -> io::Result<()> {
        if let Tls::Implicit(certificate) = self.behaviour.tls {
            self.peer = self.peer.tls(certificate).await?;
        }
        let mut then = self.reply("greeting", "220 ordinary.example ESMTP\r\n").await?.1;
        while then == Then::GoOn {
            let command = self.peer.command().await?;
            let verb = command.to_ascii_uppercase();
            then = match verb.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => {
                    let reply = self.capabilities();
                    self.reply(&command, &reply).await?.1
                }
                "HELO" => self.reply(&command, "250 ordinary.example\r\n").await?.1,
                "STARTTLS" => {
                    let (ready, then) = self.reply(&command, "220 2.0.0 ready\r\n").await?;
                    if let (true, Tls::AfterCommand(certificate)) = (ready, self.behaviour.tls) {
                        self.peer = self.peer.tls(certificate).await?;
                    }
                    then
                }
                "AUTH" => self.auth(&command).await?,
                "MAIL" => self.mail(&command).await?,
                "RCPT" => self.rcpt(&command).await?,
                "DATA" => self.data(&command).await?,
                "RSET" => {
                    self.sender = None;
                    self.recipients.clear();
                    self.reply(&command, "250 2.0.0 reset\r\n").await?.1
                }
                "NOOP" => self.reply(&command, "250 2.0.0 ok\r\n").await?.1,
                "QUIT" => {
                    self.reply(&command, "221 2.0.0 bye\r\n").await?;
                    Then::Close
                }
                _ => self.reply(&command, "500 5.5.2 unknown command\r\n").await?.1,
            };
        }
        match then {
            Then::GoOn | Then::Close => Ok(()),
            Then::Reset => self.peer.reset(),
            Then::Silence => self.peer.hold().await.map(|_| ()),
        }
    }

    /// Answers as the rules or as usual; whether it was a positive answer, and what comes then.
    async fn reply(&mut self, event: &str, usual: &str) -> io::Result<(bool, Then)> {
        let behaviour = Arc::clone(&self.behaviour);
        let Some(rule) = behaviour.rule_for(event) else {
            self.peer.say(usual).await?;
            return Ok((matches!(usual.as_bytes()[0], b'2' | b'3'), Then::GoOn));
        };
        if !rule.delay.is_zero() {
            tokio::time::sleep(rule.delay).await;
        }
        let reply = rule.reply.as_deref().unwrap_or(usual.as_bytes());
        self.peer.fault(&rule.event);
        self.peer.say(reply).await?;
        Ok((matches!(reply.first(), Some(b'2' | b'3')), rule.then))
    }

    fn may_proceed(&self) -> bool {
        !matches!(self.behaviour.tls, Tls::AfterCommand(_)) || self.peer.is_tls()
    }

    fn capabilities(&self) -> String {
        let mut lines = vec!["ordinary.example".to_owned()];
        lines.extend(self.behaviour.extensions.iter().cloned());
        if !self.may_proceed() {
            lines.push("STARTTLS".to_owned());
        } else if self.behaviour.login.is_some() {
            lines.push(format!("AUTH {}", self.behaviour.mechanisms));
        }
        let last = lines.len() - 1;
        let line = |(number, line): (usize, &String)| {
            let separator = if number == last { ' ' } else { '-' };
            format!("250{separator}{line}\r\n")
        };
        lines.iter().enumerate().map(line).collect()
    }

    async fn auth(&mut self, command: &str) -> io::Result<Then> {
        let Some((user, password)) = self.behaviour.login.clone() else {
            return Ok(self.reply(command, "503 5.5.1 no login here\r\n").await?.1);
        };
        let plain = base64(format!("\0{user}\0{password}").as_bytes());
        let mut words = command.split(' ').skip(1);
        let right = match (words.next().unwrap_or_default(), words.next()) {
            ("PLAIN", Some(blob)) => blob == plain,
            ("PLAIN", None) => self.prompt("").await? == plain,
            ("LOGIN", None) => {
                let name = self.prompt("VXNlcm5hbWU6").await?;
                let word = self.prompt("UGFzc3dvcmQ6").await?;
                (name, word) == (base64(user.as_bytes()), base64(password.as_bytes()))
            }
            _ => return Ok(self.reply(command, "504 5.5.4 unknown mechanism\r\n").await?.1),
        };
        let usual = if right { "235 2.7.0 welcome\r\n" } else { "535 5.7.8 wrong user name or password\r\n" };
        let (accepted, then) = self.reply(command, usual).await?;
        self.user = accepted.then_some(user);
        Ok(then)
    }

    async fn prompt(&mut self, text: &str) -> io::Result<String> {
        self.reply("prompt", &format!("334 {text}\r\n")).await?;
        self.peer.command().await
    }

    async fn mail(&mut self, command: &str) -> io::Result<Then> {
        let usual = if !self.may_proceed() {
            "530 5.7.0 STARTTLS first\r\n"
        } else if self.behaviour.login.is_some() && self.user.is_none() {
            "530 5.7.0 log in first\r\n"
        } else if self.sender.is_some() {
            "503 5.5.1 one at a time\r\n"
        } else {
            "250 2.1.0 sender ok\r\n"
        };
        let (accepted, then) = self.reply(command, usual).await?;
        if accepted {
            self.sender = command.get("MAIL FROM:".len()..).map(str::to_owned);
        }
        Ok(then)
    }

    async fn rcpt(&mut self, command: &str) -> io::Result<Then> {
        let usual =
            if self.sender.is_some() { "250 2.1.5 recipient ok\r\n" } else { "503 5.5.1 MAIL first\r\n" };
        let (accepted, then) = self.reply(command, usual).await?;
        if accepted {
            self.recipients.extend(command.get("RCPT TO:".len()..).map(str::to_owned));
        }
        Ok(then)
    }

    async fn data(&mut self, command: &str) -> io::Result<Then> {
        let usual = if self.recipients.is_empty() { "503 5.5.1 RCPT first\r\n" } else { "354 go ahead\r\n" };
        let (ready, then) = self.reply(command, usual).await?;
        if !ready || then != Then::GoOn {
            return Ok(then);
        }
        let letter = Received {
            content: self.peer.content().await?,
            sender: self.sender.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            user: self.user.clone(),
            tls: self.peer.is_tls(),
            connection: self.peer.number,
        };
        // Taken before it is said, as by any server that can be trusted.
        let behaviour = Arc::clone(&self.behaviour);
        let refused = behaviour.rules.iter().any(|rule| {
            rule.event == "DOT" && rule.times.load(Ordering::Relaxed) > 0 && !rule.takes_letter()
        });
        if !refused {
            self.peer.take(letter);
        }
        Ok(self.reply("dot", "250 2.0.0 taken\r\n").await?.1)
    }
}

impl Rule {
    fn takes_letter(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| reply.starts_with(b"2"))
    }
}

/// Base64 with padding; a test server does not need a crate for that.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            let digit = usize::try_from(group >> (18 - 6 * position) & 63).expect("under 64");
            text.push(if position <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}
