//! Letters like those of the real world, as plain data, with what must arrive of each; no gRPC in here.

mod arrived;
mod charsets;
mod composed;
mod files;
mod raw;

pub(crate) use arrived::check;

/// One letter: what is handed in and what must arrive.
pub(crate) struct Letter {
    /// What is special about it.
    pub(crate) name: &'static str,
    /// What is handed in.
    pub(crate) kind: Kind,
    /// Addresses of the envelope, Bcc included.
    pub(crate) recipients: Vec<String>,
    /// Those of them that nobody may read.
    pub(crate) bcc: Vec<String>,
    /// Decoded Subject.
    pub(crate) subject: String,
    /// The leaves of the tree of parts, in order. A forwarded message is one leaf.
    pub(crate) parts: Vec<Part>,
}

/// The two forms of content.
pub(crate) enum Kind {
    Composed(Composed),
    Raw(Raw),
}

/// The fields of a composed letter, as a caller fills them in.
#[derive(Default)]
pub(crate) struct Composed {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) cc: Vec<String>,
    pub(crate) bcc: Vec<String>,
    pub(crate) reply_to: Vec<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) headers: Vec<(String, String)>,
}

/// A file of a composed letter.
#[derive(Default)]
pub(crate) struct Attachment {
    pub(crate) filename: String,
    pub(crate) content_type: String,
    pub(crate) content: Vec<u8>,
    pub(crate) content_id: String,
}

/// A raw message.
pub(crate) struct Raw {
    /// What is handed in.
    pub(crate) bytes: Vec<u8>,
    /// What must arrive at the end of the bytes: the message without Bcc, with CRLF; only Date, Message-ID and trace
    /// fields may stand before it.
    pub(crate) kept: Vec<u8>,
    /// The server must offer SMTPUTF8.
    pub(crate) utf8_headers: bool,
}

/// A leaf as it must arrive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// `type/subtype`.
    pub(crate) content_type: String,
    /// Empty = none.
    pub(crate) filename: String,
    /// Empty = none.
    pub(crate) content_id: String,
    /// Bytes behind the transfer encoding, in the charset of the part.
    pub(crate) bytes: Vec<u8>,
    /// The text in Unicode where the part has another charset.
    pub(crate) text: Option<String>,
}

impl Part {
    fn new(content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            content_type: content_type.to_owned(),
            filename: String::new(),
            content_id: String::new(),
            bytes: bytes.into(),
            text: None,
        }
    }

    fn named(self, filename: &str) -> Self {
        Self { filename: filename.to_owned(), ..self }
    }

    fn reads(self, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..self }
    }
}

/// Bytes from this size on make a letter large; a quick test leaves such letters out.
const LARGE_BYTES: usize = 5 << 20;

impl Letter {
    /// Over 5 MiB. The largest has an attachment of 20 MiB, which is over the default limit of 25 MiB once encoded.
    pub(crate) fn is_large(&self) -> bool {
        self.parts.iter().map(|part| part.bytes.len()).sum::<usize>() > LARGE_BYTES
    }
}

/// All letters, the largest last.
pub(crate) fn all() -> Vec<Letter> {
    [composed::letters(), raw::letters(), charsets::letters(), files::letters()]
        .into_iter()
        .flatten()
        .collect()
}

/// Bytes that look random and are the same each time (xorshift64*).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The address in `Name <address>` or `address`.
fn address(mailbox: &str) -> String {
    let inside = mailbox.rsplit_once('<').map_or(mailbox, |(_, inside)| inside);
    inside.trim_end_matches('>').to_owned()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// A composed letter with what its own fields say must arrive: the texts, the pictures of the HTML, the files.
fn composed(name: &'static str, letter: Composed) -> Letter {
    let Composed { from: _, to, cc, bcc, reply_to: _, subject, text, html, attachments, headers: _ } =
        &letter;
    let mut parts = Vec::new();
    if !text.is_empty() || html.is_empty() {
        parts.push(Part::new("text/plain", canonical(text)));
    }
    if !html.is_empty() {
        parts.push(Part::new("text/html", canonical(html)));
    }
    let (pictures, files): (Vec<_>, Vec<_>) =
        attachments.iter().partition(|file| !html.is_empty() && !file.content_id.is_empty());
    parts.extend(pictures.into_iter().chain(files).map(|file| {
        let essence = file.content_type.split(';').next().unwrap_or_default().trim();
        let essence = if essence.is_empty() { "application/octet-stream" } else { essence };
        Part {
            filename: file.filename.clone(),
            content_id: file.content_id.clone(),
            ..Part::new(essence, file.content.clone())
        }
    }));
    Letter {
        name,
        recipients: to.iter().chain(cc).chain(bcc).map(|mailbox| address(mailbox)).collect(),
        bcc: bcc.iter().map(|mailbox| address(mailbox)).collect(),
        subject: subject.clone(),
        parts,
        kind: Kind::Composed(letter),
    }
}

/// Where every line break is a bare LF, CRLF arrives; everything else arrives as it is.
fn canonical(text: &str) -> String {
    if text.contains(['\r', '\0']) { text.to_owned() } else { text.replace('\n', "\r\n") }
}

/// A raw message: its header with the Bcc fields apart, and its body.
struct RawText<'a> {
    name: &'static str,
    /// Header lines before Bcc, each with CRLF.
    header: &'a str,
    /// Bcc fields, each line with CRLF.
    bcc: &'a str,
    body: &'a [u8],
    recipients: &'a [&'a str],
    hidden: &'a [&'a str],
    subject: &'a str,
    parts: Vec<Part>,
}

impl RawText<'_> {
    fn letter(self) -> Letter {
        let Self { name, header, bcc, body, recipients, hidden, subject, parts } = self;
        let whole = |bcc: &str| [header.as_bytes(), bcc.as_bytes(), b"\r\n", body].concat();
        Letter {
            name,
            recipients: strings(recipients),
            bcc: strings(hidden),
            subject: subject.to_owned(),
            parts,
            kind: Kind::Raw(Raw { bytes: whole(bcc), kept: whole(""), utf8_headers: !header.is_ascii() }),
        }
    }

    /// The same, handed in with another line end.
    fn letter_with(self, line_end: &str) -> Letter {
        let mut letter = self.letter();
        if let Kind::Raw(raw) = &mut letter.kind {
            let text = String::from_utf8(std::mem::take(&mut raw.bytes)).expect("UTF-8");
            raw.bytes = text.replace("\r\n", line_end).into_bytes();
        }
        letter
    }
}
