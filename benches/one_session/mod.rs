//! Letters over one session to Postfix's `smtp-sink`: Postroom's SMTP session beside a raw pipelined client that knows no
//! errors.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use postroom::domain::account::{Auth, Security, Server};
use postroom::domain::address::Address;
use postroom::domain::clock::Clock;
use postroom::domain::log::LogLevel;
use postroom::domain::outcome::Class;
use postroom::smtp::egress::{ElementError, Policy};
use postroom::smtp::{Connector, ConnectorOptions, Floors, Letter, Names, Session, Target, Transcript};
use rand::RngExt as _;

/// Rounds of each client, in turn, so that a change of the machine's mood meets both.
pub(crate) const ROUNDS: usize = 4;
/// Size of each letter.
pub(crate) const LETTER_BYTES: usize = 4096;
const LINE_BYTES: usize = 76;
/// Letters that differ; more would only measure the cache.
const DIFFERENT: usize = 64;

/// Letters a second.
pub(crate) struct Rates {
    /// Of Postroom's session, its transcript at `CLIENT_SERVER`.
    pub(crate) session: f64,
    /// Of the raw client, in two turns a letter.
    pub(crate) raw: f64,
    /// Of the raw client that says the next envelope with the dot, as Postroom's session does.
    pub(crate) raw_ahead: f64,
}

/// Measures both, with so many letters each.
///
/// # Errors
///
/// In words.
pub(crate) fn measure(sink: SocketAddr, letters: usize) -> io::Result<Rates> {
    let contents: Vec<Vec<u8>> = (0..DIFFERENT).map(|_| content()).collect();
    let each = (letters / ROUNDS).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut session, mut raw, mut raw_ahead) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(raw_client(sink, &contents, each, false)?);
        raw_ahead.push(raw_client(sink, &contents, each, true)?);
        // In a task of its own, as in the server; what `block_on` runs itself wakes up differently.
        let contents = contents.clone();
        let elapsed = runtime
            .block_on(runtime.spawn(async move { session_client(sink.port(), &contents, each).await }))?;
        session.push(elapsed.map_err(io::Error::other)?);
    }
    let rate = |rounds: &[Duration]| {
        let seconds = rounds.iter().sum::<Duration>().as_secs_f64();
        f64::from(u32::try_from(each * rounds.len()).unwrap_or(u32::MAX)) / seconds
    };
    Ok(Rates { session: rate(&session), raw: rate(&raw), raw_ahead: rate(&raw_ahead) })
}

async fn session_client(port: u16, contents: &[Vec<u8>], letters: usize) -> Result<Duration, String> {
    let allow = "127.0.0.0/8".parse().map_err(|error: ElementError| error.to_string())?;
    let ports = "1-65535".parse().map_err(|error: ElementError| error.to_string())?;
    let connector = Connector::new(ConnectorOptions {
        ca_file: None,
        egress: Policy { allow: vec![allow], ports: vec![ports], ..Policy::default() },
        names: Names::System,
        plaintext_auth_hosts: Vec::new(),
        helo_name: "bench.example".to_owned(),
        clock: Clock::default(),
        floors: Floors::default(),
    })
    .map_err(|error| error.to_string())?;
    let server = Server { host: "127.0.0.1".to_owned(), port, security: Security::None };
    let target = Target { server, auth: Auth::None };
    let log = Transcript::new(LogLevel::ClientServer, Clock::default());
    let timeout = Duration::from_secs(10);
    let mut session =
        Session::open(&connector, &target, timeout, &log).await.map_err(|failure| failure.to_string())?;
    let address = |text| Address::parse(text).map_err(|error| error.to_string());
    let (sender, recipients) = (&address("ann@example.com")?, &[address("bob@example.com")?]);
    let start = Instant::now();
    let letter = |number: usize| {
        let content = &contents[number % contents.len()];
        Letter { sender, recipients, content, eight_bit: false, utf8_headers: false, is_private: false }
    };
    for number in 0..letters {
        // As a worker does that has more than one letter in hand.
        if number + 1 < letters {
            session.announce(&letter(number + 1), 1);
        }
        let results = session.deliver(&letter(number), &log).await;
        if let Some(result) = results.iter().find(|result| result.class != Class::Sent) {
            return Err(format!("not sent: {}", result.reply));
        }
        // As whoever records an attempt does.
        drop(log.take());
    }
    let elapsed = start.elapsed();
    session.quit(&log).await;
    Ok(elapsed)
}

/// Blocking, with fixed bytes, looking at no more than the number of lines.
fn raw_client(sink: SocketAddr, contents: &[Vec<u8>], letters: usize, ahead: bool) -> io::Result<Duration> {
    const ENVELOPE: &[u8] = b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";
    let mut stream = TcpStream::connect(sink)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    read_until(&mut stream, &mut buffer, |text| text.ends_with(b"\r\n"))?;
    stream.write_all(b"EHLO bench.example\r\n")?;
    read_until(&mut stream, &mut buffer, |text| {
        text.windows(4).any(|end| end == b"250 ") && text.ends_with(b"\r\n")
    })?;
    let behind_dot = if ahead { ENVELOPE } else { b"" };
    let wire: Vec<Vec<u8>> =
        contents.iter().map(|content| [content, &b".\r\n"[..], behind_dot].concat()).collect();
    let lines = |count: usize| move |text: &[u8]| text.split(|byte| *byte == b'\n').count() == count + 1;
    let start = Instant::now();
    if ahead {
        stream.write_all(ENVELOPE)?;
        read_until(&mut stream, &mut buffer, lines(3))?;
    }
    for content in wire.iter().cycle().take(letters) {
        if ahead {
            stream.write_all(content)?;
            read_until(&mut stream, &mut buffer, lines(4))?;
        } else {
            stream.write_all(ENVELOPE)?;
            read_until(&mut stream, &mut buffer, lines(3))?;
            stream.write_all(content)?;
            read_until(&mut stream, &mut buffer, lines(1))?;
        }
    }
    let elapsed = start.elapsed();
    stream.write_all(b"QUIT\r\n")?;
    Ok(elapsed)
}

fn read_until(stream: &mut TcpStream, buffer: &mut [u8], end: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut filled = 0;
    while !end(&buffer[..filled]) {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// A letter of random text, so that nothing on the way can compress it.
fn content() -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.";
    let mut random = rand::rng();
    let mut content = b"From: ann@example.com\r\nTo: bob@example.com\r\nSubject: bench\r\n\r\n".to_vec();
    while content.len() < LETTER_BYTES {
        let length = LINE_BYTES.min(LETTER_BYTES.saturating_sub(content.len() + 2).max(1));
        // Never a dot at the beginning: the raw client does not double them.
        content.push(b'x');
        content.extend((1..length).map(|_| DIGITS[random.random_range(0..DIGITS.len())]));
        content.extend_from_slice(b"\r\n");
    }
    content
}
