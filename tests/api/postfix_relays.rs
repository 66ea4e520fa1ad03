//! The letters through a real Postfix, by a client as plain as can be: proves Postfix's set-up, and that the letters
//! are what a real server takes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postroom::mime::Content;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::catcher::Catcher;
use crate::letters::{self, Letter};
use crate::letters_compose::content;
use crate::postfix::Postfix;

const USER: &str = "shop";
const PASSWORD: &str = "correct horse";
/// A letter is here in milliseconds; a busy machine may take seconds.
const LIMIT: Duration = Duration::from_secs(30);

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Sends lines and gives the last line of each reply.
struct Client {
    stream: BufReader<Tls>,
}

impl Client {
    fn submission(postfix: &Postfix) -> Self {
        let stream = connect(postfix.submission);
        let mut plain = BufReader::new(stream.try_clone().expect("a second handle"));
        assert!(reply(&mut plain).starts_with("220 "));
        for (line, code) in
            [("EHLO test\r\n", "250 "), ("MAIL FROM:<a@example.com>\r\n", "530 "), ("STARTTLS\r\n", "220 ")]
        {
            plain.get_mut().write_all(line.as_bytes()).expect("written");
            let reply = reply(&mut plain);
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
        Self { stream: BufReader::new(tls(postfix, stream)) }
    }

    fn implicit_tls(postfix: &Postfix) -> Self {
        let mut client = Self { stream: BufReader::new(tls(postfix, connect(postfix.implicit_tls))) };
        assert!(reply(&mut client.stream).starts_with("220 "));
        client
    }

    fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> String {
        self.stream.get_mut().write_all(bytes).expect("written");
        self.stream.get_mut().flush().expect("flushed");
        reply(&mut self.stream)
    }

    fn log_in(&mut self, password: &str) -> String {
        assert!(self.say("EHLO test").starts_with("250 "));
        self.say(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{USER}\0{password}"))))
    }

    fn deliver(&mut self, recipients: &[String], content: &Content) {
        let body = if content.eight_bit { " BODY=8BITMIME" } else { "" };
        let utf8 = if content.utf8_headers { " SMTPUTF8" } else { "" };
        let mut lines = vec![format!("MAIL FROM:<shop@example.com>{body}{utf8}")];
        lines.extend(recipients.iter().map(|address| format!("RCPT TO:<{}>", ascii(address))));
        for line in lines {
            let reply = self.say(&line);
            assert!(reply.starts_with("250 "), "{line}: {reply}");
        }
        assert!(self.say("DATA").starts_with("354 "));
        let mut stuffed = Vec::with_capacity(content.bytes.len() + 64);
        for line in content.bytes.split_inclusive(|&b| b == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        stuffed.extend_from_slice(b".\r\n");
        let reply = self.send(&stuffed);
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("Postfix listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

fn tls(postfix: &Postfix, stream: TcpStream) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&postfix.ca_file).expect("the CA")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a session"), stream)
}

fn reply(reader: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("a reply") > 0, "the connection was closed");
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

/// An address as it stands in an envelope.
fn ascii(address: &str) -> String {
    postroom::domain::address::Address::parse(address).expect(address).to_string()
}

#[test]
fn postfix_takes_and_relays_every_letter() {
    let catcher = Catcher::start();
    let postfix = Postfix::start(catcher.address(), USER, PASSWORD);

    for mut client in [Client::submission(&postfix), Client::implicit_tls(&postfix)] {
        assert!(client.log_in("wrong").starts_with("535 "), "{}", postfix.log());
        assert!(client.log_in(PASSWORD).starts_with("235 "), "{}", postfix.log());
    }
    let mut login = Client::implicit_tls(&postfix);
    assert!(login.say("EHLO test").starts_with("250 "));
    assert!(login.say("AUTH LOGIN").starts_with("334 VXNlcm5hbWU6"));
    assert!(login.say(&STANDARD.encode(USER)).starts_with("334 UGFzc3dvcmQ6"));
    assert!(login.say(&STANDARD.encode(PASSWORD)).starts_with("235 "));

    let letters: Vec<Letter> = letters::all().into_iter().filter(|letter| !letter.is_large()).collect();
    let mut clients = [Client::submission(&postfix), Client::implicit_tls(&postfix)];
    for client in &mut clients {
        assert!(client.log_in(PASSWORD).starts_with("235 "));
    }
    for (index, letter) in letters.iter().enumerate() {
        clients[index % 2].deliver(&letter.recipients, &content(letter));
        let caught = catcher.next(LIMIT);
        assert_eq!(caught.from, "shop@example.com", "{}", letter.name);
        let mut expected: Vec<String> = letter.recipients.iter().map(|address| ascii(address)).collect();
        let mut got = caught.recipients;
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "{}", letter.name);
        letters::check(letter, &caught.bytes);
    }
}
