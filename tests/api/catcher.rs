//! The last server on a letter's way: takes every letter and keeps it for the test to look at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::acceptor::Acceptor;

/// What it offers.
const EXTENSIONS: &str = "250-catcher.test\r\n250-PIPELINING\r\n250-SIZE 41943040\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n";
/// Longest command line with its parameters.
const MAX_COMMAND_BYTES: u64 = 4_096;

/// A letter that arrived.
#[derive(Debug, Default)]
pub(crate) struct Caught {
    /// The address in MAIL FROM.
    pub(crate) from: String,
    /// The addresses in RCPT TO, in their order.
    pub(crate) recipients: Vec<String>,
    /// The bytes without dot-stuffing.
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Catcher {
    acceptor: Acceptor,
    caught: Receiver<Caught>,
}

impl Catcher {
    pub(crate) fn start() -> Self {
        let (sender, caught) = channel();
        let acceptor = Acceptor::start(move |connection| {
            // A peer that goes away in the middle is no fault of the catcher.
            drop(talk(&connection, &sender));
        });
        Self { acceptor, caught }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// The next letter; panics where none comes in time.
    pub(crate) fn next(&self, within: Duration) -> Caught {
        self.caught.recv_timeout(within).unwrap_or_else(|_| panic!("no letter within {within:?}"))
    }
}

fn talk(connection: &TcpStream, caught: &Sender<Caught>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    let mut letter = Caught::default();
    writer.write_all(b"220 catcher.test ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if reader.by_ref().take(MAX_COMMAND_BYTES).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let verb = line.split([' ', ':', '\r']).next().unwrap_or_default().to_ascii_uppercase();
        let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
        let reply = match verb.as_str() {
            "EHLO" => EXTENSIONS,
            "MAIL" => {
                letter = Caught { from: path.unwrap_or_default().to_owned(), ..Caught::default() };
                "250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                letter.recipients.push(path.unwrap_or_default().to_owned());
                "250 2.1.5 ok\r\n"
            }
            "DATA" => {
                writer.write_all(b"354 go\r\n")?;
                letter.bytes = content(&mut reader)?;
                // The test may be over already.
                drop(caught.send(std::mem::take(&mut letter)));
                "250 2.0.0 caught\r\n"
            }
            "RSET" | "NOOP" => "250 2.0.0 ok\r\n",
            "QUIT" => "221 2.0.0 bye\r\n",
            _ => "502 5.5.1 unknown\r\n",
        };
        writer.write_all(reply.as_bytes())?;
        if verb == "QUIT" {
            return Ok(());
        }
    }
}

/// The lines up to the dot alone, without the dots that were doubled.
fn content(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if bytes[start..] == *b".\r\n" {
            bytes.truncate(start);
            return Ok(bytes);
        }
        if bytes[start] == b'.' {
            bytes.remove(start);
        }
    }
}
