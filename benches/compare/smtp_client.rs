//! A bare SMTP client for one session, which a measure can drive letter by letter.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::Outcome;

/// An open session.
pub(crate) struct SmtpClient {
    stream: BufReader<TcpStream>,
}

impl SmtpClient {
    pub(crate) async fn open(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply("220").await?;
        client.stream.get_mut().write_all(b"EHLO bench.example\r\n").await?;
        client.reply("250").await?;
        Ok(client)
    }

    /// Sends a letter whose lines end with line feeds and begin with no dot; back when it is accepted.
    pub(crate) async fn send(&mut self, from: &str, to: &str, letter: &str) -> Outcome<()> {
        let content = letter.replace('\n', "\r\n") + ".\r\n";
        let envelope = format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        self.stream.get_mut().write_all(envelope.as_bytes()).await?;
        for code in ["250", "250", "354"] {
            self.reply(code).await?;
        }
        self.stream.get_mut().write_all(content.as_bytes()).await?;
        self.reply("250").await
    }

    async fn reply(&mut self, code: &str) -> Outcome<()> {
        let mut line = String::new();
        while line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        if line.starts_with(code) { Ok(()) } else { Err(format!("not {code}: {}", line.trim_end()).into()) }
    }
}
