//! The password check behind Postfix's AUTH: its server side of the Dovecot protocol, with one user.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The one login that is right.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What a server says first (Dovecot authentication protocol 1.1).
const HELLO: &str = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\nCUID\t1\n\
    COOKIE\t00000000000000000000000000000000\nDONE\n";

/// Answers one of Postfix's processes until it closes.
pub(crate) fn serve(connection: &TcpStream, login: &Login) -> std::io::Result<()> {
    let mut writer = connection;
    writer.write_all(HELLO.as_bytes())?;
    // The user name of a LOGIN under way.
    let mut user: Option<String> = None;
    for line in BufReader::new(connection).lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let (id, response) = match fields[..] {
            ["AUTH", id, "PLAIN", ..] => {
                let text = response(&fields);
                let mut parts = text.split('\0').skip(1).map(str::to_owned);
                let given = Login {
                    user: parts.next().unwrap_or_default(),
                    password: parts.next().unwrap_or_default(),
                };
                (id, verdict(&given, login))
            }
            ["AUTH", id, "LOGIN", ..] => {
                let first = response(&fields);
                user = (!first.is_empty()).then_some(first);
                (id, Verdict::Ask(if user.is_some() { "Password:" } else { "Username:" }))
            }
            ["CONT", id, text] => match user.take() {
                None => {
                    user = Some(decoded(text));
                    (id, Verdict::Ask("Password:"))
                }
                Some(user) => (id, verdict(&Login { user, password: decoded(text) }, login)),
            },
            _ => continue,
        };
        let answer = match response {
            Verdict::Ask(prompt) => format!("CONT\t{id}\t{}\n", STANDARD.encode(prompt)),
            Verdict::Right => format!("OK\t{id}\tuser={}\n", login.user),
            Verdict::Wrong => format!("FAIL\t{id}\treason=wrong password\n"),
        };
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

enum Verdict {
    Ask(&'static str),
    Right,
    Wrong,
}

fn verdict(given: &Login, login: &Login) -> Verdict {
    if given.user == login.user && given.password == login.password { Verdict::Right } else { Verdict::Wrong }
}

/// The initial response of an AUTH line, empty where there is none.
fn response(fields: &[&str]) -> String {
    fields.iter().find_map(|field| field.strip_prefix("resp=")).map(decoded).unwrap_or_default()
}

fn decoded(text: &str) -> String {
    STANDARD.decode(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
