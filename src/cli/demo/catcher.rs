//! A local SMTP server that takes every letter and keeps it: enough of RFC 5321 to show a dialogue, and no more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// The one user whom the catcher lets in, and his password.
pub(super) const USER: &str = "demo";
pub(super) const PASSWORD: &str = "open sesame";
/// Each reply takes so long, so that a person can watch the dialogue.
const REPLY_DELAY: Duration = Duration::from_millis(250);
/// Largest letter it takes.
const MAX_LETTER_BYTES: u64 = 30 * 1024 * 1024;

/// A running catcher; it stops when it is dropped.
pub(super) struct Catcher {
    /// Where it listens.
    pub(super) port: u16,
    letters: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Catcher {
    /// Starts on a free port of the loopback.
    pub(super) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let letters = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&letters);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that misbehaves ends its own session and nothing else.
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Ok(Self { port, letters, _serving: AbortOnDropHandle::new(serving) })
    }

    /// The letters so far.
    pub(super) fn letters(&self) -> Vec<String> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, letters: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    reply(&mut stream, "220 catcher.example ESMTP").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut stream).take(4_096).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let offers = "250-catcher.example\r\n250-PIPELINING\r\n250-SIZE 31457280\r\n250-8BITMIME\r\n\
                              250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN";
                reply(&mut stream, offers).await?;
            }
            "AUTH" if is_right_login(command) => {
                reply(&mut stream, "235 2.7.0 Authentication successful").await?;
            }
            "AUTH" => reply(&mut stream, "535 5.7.8 Authentication credentials invalid").await?,
            "MAIL" => reply(&mut stream, "250 2.1.0 Sender ok").await?,
            "RCPT" => reply(&mut stream, "250 2.1.5 Recipient ok").await?,
            "RSET" | "NOOP" => reply(&mut stream, "250 2.0.0 Ok").await?,
            "DATA" => {
                reply(&mut stream, "354 End data with <CR><LF>.<CR><LF>").await?;
                let letter = read_letter(&mut stream).await?;
                let answer = format!("250 2.0.0 Ok: {} bytes caught", letter.len());
                letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
                reply(&mut stream, &answer).await?;
            }
            "QUIT" => return reply(&mut stream, "221 2.0.0 Bye").await,
            _ => reply(&mut stream, "502 5.5.1 Command not implemented").await?,
        }
    }
}

/// `AUTH PLAIN` with the initial response that user and password give (RFC 4616).
fn is_right_login(command: &str) -> bool {
    use base64::Engine;
    let right = base64::engine::general_purpose::STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    command.split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).is_some_and(|(_, blob)| blob == right)
}

/// The content up to the dot, its doubled dots made single (RFC 5321 4.5.2).
async fn read_letter(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut letter = Vec::new();
    let mut limited = stream.take(MAX_LETTER_BYTES);
    loop {
        let mut line = Vec::new();
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(String::from_utf8_lossy(&letter).into_owned());
        }
        letter.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

async fn reply(stream: &mut BufReader<TcpStream>, text: &str) -> std::io::Result<()> {
    sleep(REPLY_DELAY).await;
    stream.write_all(format!("{text}\r\n").as_bytes()).await
}
