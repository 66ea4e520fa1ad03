//! AUTH (RFC 4954): PLAIN and LOGIN, by what the server offers.

use super::dialogue::{CLOSING, Dialogue, Shown};
use crate::domain::outcome::Step;
use crate::domain::reply::Reply;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::failure::{Failure, FailureKind};
use crate::smtp::printable;
use crate::smtp::redact::{HIDDEN, base64, plain_blob};
use crate::smtp::reply::RawReply;
use crate::smtp::transcript::Transcript;

/// A server that asks more often than this does not want to know.
const MAX_PROMPTS: usize = 3;

const ACCEPTED: u16 = 235;
const PROMPT: u16 = 334;
/// Unrecognised authentication type (RFC 4954 4).
const MECHANISM_UNKNOWN: u16 = 504;

/// The mechanisms we can do, best first. Both send the password; PLAIN needs one round trip less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    const ALL: [Self; 2] = [Self::Plain, Self::Login];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// Logs in. The caller has made sure that a password may be sent here.
pub(super) async fn log_in(
    dialogue: &mut Dialogue,
    offered: &Capabilities,
    username: &str,
    password: &[u8],
    log: &Transcript,
) -> Result<Reply, Failure> {
    let usable: Vec<Mechanism> =
        Mechanism::ALL.into_iter().filter(|mechanism| offered.offers(mechanism.name())).collect();
    let Some((last, first)) = usable.split_last() else {
        return Err(no_mechanism(offered));
    };
    for mechanism in first {
        let reply = say(dialogue, *mechanism, username, password, log).await?;
        // Offered and yet unknown: some servers offer what only their back end could do.
        if reply.code != MECHANISM_UNKNOWN {
            return judge(dialogue, &reply);
        }
    }
    let reply = say(dialogue, *last, username, password, log).await?;
    judge(dialogue, &reply)
}

/// One exchange, up to the reply that ends it.
async fn say(
    dialogue: &mut Dialogue,
    mechanism: Mechanism,
    username: &str,
    password: &[u8],
    log: &Transcript,
) -> Result<RawReply, Failure> {
    let (command, shown, answers) = match mechanism {
        Mechanism::Plain => {
            let blob = base64(&plain_blob(username.as_bytes(), password));
            // A prompt after the initial response comes from servers that ignore it: they get it again.
            (format!("AUTH PLAIN {blob}"), format!("AUTH PLAIN {HIDDEN}"), vec![blob])
        }
        Mechanism::Login => {
            let answers = vec![base64(username.as_bytes()), base64(password)];
            ("AUTH LOGIN".to_owned(), "AUTH LOGIN".to_owned(), answers)
        }
    };
    let mut answers = answers.into_iter();
    let mut heard = dialogue.command(&command, Shown::Instead(&shown), log).await;
    for _ in 0..MAX_PROMPTS {
        let reply = heard.map_err(|broken| Failure {
            reply: dialogue.absent(&broken),
            ..Failure::other(Step::Auth, FailureKind::Temporary, "")
        })?;
        if reply.code != PROMPT {
            return Ok(reply);
        }
        let Some(answer) = answers.next() else { break };
        heard = dialogue.command(&answer, Shown::Instead(HIDDEN), log).await;
    }
    Err(Failure::other(
        Step::Auth,
        FailureKind::Temporary,
        "the server goes on asking without deciding about the login",
    ))
}

fn judge(dialogue: &Dialogue, reply: &RawReply) -> Result<Reply, Failure> {
    let stored = dialogue.stored(reply);
    let advice = match reply.code {
        ACCEPTED => return Ok(stored),
        535 => {
            "535: the server does not accept this user name and password; some providers want an app password"
        }
        534 | 538 => {
            "the server wants a stronger login or another kind of connection: check security and the provider's settings"
        }
        530 => "the server wants TLS before a login: use IMPLICIT_TLS or STARTTLS",
        CLOSING | 432 | 454 => "the server cannot check logins at present: try again later",
        _ => return Err(Failure::refused(Step::Auth, stored)),
    };
    Err(Failure::refused(Step::Auth, stored).with_advice(advice))
}

fn no_mechanism(offered: &Capabilities) -> Failure {
    if offered.mechanisms.is_empty() {
        return Failure::other(Step::Auth, FailureKind::Permanent, "the server offers no login")
            .with_advice("save the account without a login, or use the port for submission (465 or 587)");
    }
    let list = printable::escape(offered.mechanisms.join(" "));
    Failure::other(
        Step::Auth,
        FailureKind::Permanent,
        format!("the server offers only logins that are not supported: {list}"),
    )
    .with_advice("PLAIN or LOGIN must be switched on at the server, or use another one")
}
