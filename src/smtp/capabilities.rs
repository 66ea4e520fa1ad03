//! What a server offers in its answer to EHLO (RFC 5321 4.1.1.1), understood as far as the session uses it.

use super::reply::RawReply;

/// The extensions that change what a session does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension of its own that is offered or not")]
pub(super) struct Capabilities {
    pub(super) pipelining: bool,
    pub(super) starttls: bool,
    pub(super) eight_bit_mime: bool,
    pub(super) smtp_utf8: bool,
    /// SIZE was offered.
    pub(super) size: bool,
    /// Largest letter in bytes, where the server names one other than 0 (RFC 1870 4).
    pub(super) max_size: Option<u64>,
    /// Login mechanisms in the server's order, and in its letters: in others a secret among them would not be known.
    pub(super) mechanisms: Vec<String>,
}

impl Capabilities {
    /// From the reply to EHLO; its first line is the server's name.
    pub(super) fn of(reply: &RawReply) -> Self {
        let mut capabilities = Self::default();
        for text in reply.texts().skip(1) {
            capabilities.add(&String::from_utf8_lossy(text));
        }
        capabilities
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "STARTTLS" => self.starttls = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtp_utf8 = true,
            "SIZE" => {
                self.size = true;
                self.max_size = words.next().and_then(|size| size.parse().ok()).filter(|size| *size > 0);
            }
            "AUTH" => self.add_mechanisms(words),
            // The form before RFC 4954, which some servers offer beside the standard one or instead of it.
            upper => {
                if upper.starts_with("AUTH=")
                    && let Some((_, first)) = keyword.split_once('=')
                {
                    self.add_mechanisms(std::iter::once(first).chain(words));
                }
            }
        }
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names.filter(|name| !name.is_empty()) {
            if !self.offers(name) {
                self.mechanisms.push(name.to_owned());
            }
        }
    }

    pub(super) fn offers(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|offered| offered.eq_ignore_ascii_case(mechanism))
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;
    use crate::smtp::reply::Assembler;

    fn of(text: &str) -> Capabilities {
        let reply = Assembler::default().feed(text.as_bytes()).1.expect("whole").expect("a reply");
        Capabilities::of(&reply)
    }

    #[test]
    fn what_is_understood() {
        let all =
            of("250-mail.example.com STARTTLS\r\n250-PIPELINING\r\n250-size 35882577\r\n250-StartTLS\r\n\
                      250-AUTH PLAIN login\r\n250-AUTH=PLAIN XOAUTH2\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n");
        assert_eq!(
            all,
            Capabilities {
                pipelining: true,
                starttls: true,
                eight_bit_mime: true,
                smtp_utf8: true,
                size: true,
                max_size: Some(35_882_577),
                mechanisms: ["PLAIN", "login", "XOAUTH2"].map(str::to_owned).to_vec(),
            }
        );
    }

    #[test]
    fn what_is_not_offered() {
        assert_eq!(of("250 PIPELINING\r\n"), Capabilities::default(), "the first line is a name");
        let odd = of("250-x\r\n250-\r\n250-SIZE\r\n250-AUTH\r\n250-AUTH=\r\n250 X-PIPELINING\r\n");
        assert_eq!(odd, Capabilities { size: true, ..Capabilities::default() });
        assert_eq!(of("250-x\r\n250 SIZE 0\r\n").max_size, None);
        assert_eq!(of("250-x\r\n250 SIZE 99999999999999999999999\r\n").max_size, None);
    }
}
