//! Letters a second over one session to Postfix's `smtp-sink`, beside a raw pipelined client that knows no errors.
//!
//! `cargo bench --bench session [-- <letters>]`. Figures are printed; nothing is judged.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use postroom::domain::account::{Auth, Security, Server};
use postroom::domain::address::Address;
use postroom::domain::clock::Clock;
use postroom::domain::log::LogLevel;
use postroom::domain::outcome::Class;
use postroom::smtp::egress::{ElementError, Policy};
use postroom::smtp::{Connector, ConnectorOptions, Floors, Letter, Names, Session, Target, Transcript};
use rand::RngExt as _;

const LETTERS: usize = 20_000;
/// Rounds of each client, in turn, so that a change of the machine's mood meets both.
const ROUNDS: usize = 4;
const LETTER_BYTES: usize = 4096;
const LINE_BYTES: usize = 76;
/// Letters that differ; more would only measure the cache.
const DIFFERENT: usize = 64;

fn main() -> ExitCode {
    let letters = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(LETTERS);
    let sink = match Sink::start() {
        Ok(sink) => sink,
        Err(error) => {
            eprintln!(
                "smtp-sink cannot be started ({error}); install it: apt-get install -y --no-install-recommends postfix"
            );
            return ExitCode::FAILURE;
        }
    };
    match measure(&sink, letters) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(sink: &Sink, letters: usize) -> Result<(), Box<dyn std::error::Error>> {
    let contents: Vec<Vec<u8>> = (0..DIFFERENT).map(|_| content()).collect();
    let each = (letters / ROUNDS).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut session, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(raw_client(sink, &contents, each)?);
        // In a task of its own, as in the server; what `block_on` runs itself wakes up differently.
        let (port, contents) = (sink.port, contents.clone());
        let elapsed =
            runtime.block_on(runtime.spawn(async move { session_client(port, &contents, each).await }))?;
        session.push(elapsed.map_err(io::Error::other)?);
    }
    let rate = |rounds: &[Duration]| {
        let seconds = rounds.iter().sum::<Duration>().as_secs_f64();
        f64::from(u32::try_from(each * rounds.len()).unwrap_or(u32::MAX)) / seconds
    };
    let (session, raw) = (rate(&session), rate(&raw));
    println!("letters of {LETTER_BYTES} bytes, {} each, in {ROUNDS} rounds", each * ROUNDS);
    println!("session, transcript at CLIENT_SERVER   {session:8.0} letters/s");
    println!("raw pipelined client                   {raw:8.0} letters/s");
    println!("ratio                                  {:8.1} %", 100.0 * session / raw);
    Ok(())
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
    for content in contents.iter().cycle().take(letters) {
        let letter =
            Letter { sender, recipients, content, eight_bit: false, utf8_headers: false, is_private: false };
        let results = session.deliver(&letter, &log).await;
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
fn raw_client(sink: &Sink, contents: &[Vec<u8>], letters: usize) -> io::Result<Duration> {
    const ENVELOPE: &[u8] = b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";
    let mut stream = TcpStream::connect(("127.0.0.1", sink.port))?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    read_until(&mut stream, &mut buffer, |text| text.ends_with(b"\r\n"))?;
    stream.write_all(b"EHLO bench.example\r\n")?;
    read_until(&mut stream, &mut buffer, |text| {
        text.windows(4).any(|end| end == b"250 ") && text.ends_with(b"\r\n")
    })?;
    let wire: Vec<Vec<u8>> = contents.iter().map(|content| [content, &b".\r\n"[..]].concat()).collect();
    let start = Instant::now();
    for content in wire.iter().cycle().take(letters) {
        stream.write_all(ENVELOPE)?;
        read_until(&mut stream, &mut buffer, |text| text.split(|byte| *byte == b'\n').count() == 4)?;
        stream.write_all(content)?;
        read_until(&mut stream, &mut buffer, |text| text.ends_with(b"\n"))?;
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

/// The sink, ended when dropped.
struct Sink {
    child: Child,
    port: u16,
}

impl Sink {
    fn start() -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Debian keeps it in sbin, which is not in everybody's path.
        let program = ["/usr/sbin/smtp-sink", "smtp-sink"]
            .into_iter()
            .find(|program| !program.starts_with('/') || std::path::Path::new(program).exists())
            .unwrap_or("smtp-sink");
        // As root it wants to be told whom to become.
        let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "nobody"] } else { &[] };
        let child = Command::new(program)
            .args(user)
            .args([format!("127.0.0.1:{port}"), "100".to_owned()])
            .stdout(Stdio::null())
            .spawn()?;
        let sink = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(sink)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
