//! What is delivered, and whether a server can take it at all.

use crate::domain::address::Address;
use crate::domain::reply::Reply;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::content::Content;

/// One letter with its envelope.
#[derive(Clone, Copy)]
pub struct Letter<'a> {
    /// The envelope sender.
    pub sender: &'a Address,
    /// The envelope recipients.
    pub recipients: &'a [Address],
    /// Header and body in canonical form: CR LF ends each line and stands nowhere else. Not dot-stuffed.
    pub content: &'a [u8],
    /// Whether the content has bytes above 127 (RFC 6152).
    pub eight_bit: bool,
    /// Whether its header has UTF-8 outside of encoded words (RFC 6532).
    pub utf8_headers: bool,
    /// Whether its lines are kept out of every transcript.
    pub is_private: bool,
}

/// A letter that this server can take, as far as that is known before MAIL.
pub(super) struct Admitted<'a> {
    pub(super) letter: &'a Letter<'a>,
    pub(super) content: Content<'a>,
    eight_bit: bool,
}

impl<'a> Admitted<'a> {
    /// Refuses what the server cannot take, before it hears of it.
    pub(super) fn new(letter: &'a Letter<'a>, offered: &Capabilities) -> Result<Self, Reply> {
        let content = Content::new(letter.content).map_err(|error| Reply::absent(error.to_string()))?;
        // A letter that says it is 7-bit and is not would be cut to 7 bits, or refused after it was sent.
        let eight_bit = letter.eight_bit || !letter.content.is_ascii();
        if let Some(limit) = offered.max_size
            && u64::try_from(content.size()).unwrap_or(u64::MAX) > limit
        {
            return Err(Reply::absent(format!(
                "the letter has {} bytes, the server takes at most {limit}",
                content.size()
            )));
        }
        if eight_bit && !offered.eight_bit_mime {
            return Err(Reply::absent("the letter is 8-bit, and the server does not offer 8BITMIME"));
        }
        if (letter.utf8_headers || letter.sender.needs_smtputf8()) && !offered.smtp_utf8 {
            return Err(Reply::absent(
                "the letter has a header or sender in UTF-8, and the server does not offer SMTPUTF8",
            ));
        }
        Ok(Self { letter, content, eight_bit })
    }

    /// Why this recipient cannot be named to the server.
    pub(super) fn unnameable(recipient: &Address, offered: &Capabilities) -> Option<Reply> {
        (recipient.needs_smtputf8() && !offered.smtp_utf8)
            .then(|| Reply::absent("the address needs SMTPUTF8, and the server does not offer it"))
    }

    /// The MAIL command for a transaction with these recipients.
    pub(super) fn mail(&self, recipients: &[usize], offered: &Capabilities) -> String {
        let Letter { sender, recipients: all, utf8_headers, content: _, eight_bit: _, is_private: _ } =
            self.letter;
        let size = if offered.size { format!(" SIZE={}", self.content.size()) } else { String::new() };
        let mut line = format!("MAIL FROM:<{sender}>{size}");
        if self.eight_bit {
            line.push_str(" BODY=8BITMIME");
        }
        if *utf8_headers
            || sender.needs_smtputf8()
            || recipients.iter().any(|recipient| all[*recipient].needs_smtputf8())
        {
            line.push_str(" SMTPUTF8");
        }
        line
    }

    /// The RCPT command for one recipient.
    pub(super) fn rcpt(&self, recipient: usize) -> String {
        format!("RCPT TO:<{}>", self.letter.recipients[recipient])
    }

    /// The commands of a transaction with these recipients up to DATA, as one group (RFC 2920).
    pub(super) fn group(&self, recipients: &[usize], offered: &Capabilities, out: &mut Vec<u8>) {
        say(out, &self.mail(recipients, offered));
        for recipient in recipients {
            say(out, &self.rcpt(*recipient));
        }
        say(out, "DATA");
    }
}

/// Adds a command to what is written next.
pub(super) fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
