//! A letter built from its parts: header section, texts, inline pictures, attachments. Pure ASCII on the wire, but for
//! addresses whose local part is not ASCII.

use crate::domain::error::Violation;
use crate::mime::body::{encode_text, end_quoted, push_base64};
use crate::mime::check::{bare_content_id, check};
use crate::mime::content_type::ContentType;
use crate::mime::field::Field;
pub use crate::mime::letter::{Attachment, Composed};
use crate::mime::{Content, MAX_LINE_BYTES, rfc5322_date};

/// Room for header fields and part headers, in bytes; more grows.
const HEADER_ROOM_BYTES: usize = 4_096;
/// Characters of the Message-ID that a boundary is made of; with its marks it stays below 70 (RFC 2046 5.1.1).
const BOUNDARY_ID_CHARS: usize = 40;

/// Builds the bytes of a letter.
///
/// # Errors
/// All bad fields, with their paths below the message: `composed.subject`, `to[3]`, `composed.attachments[2].filename`.
pub fn compose(letter: &Composed<'_>) -> Result<Content, Vec<Violation>> {
    let content_types = check(letter)?;
    let encoded = letter.attachments.iter().map(|a| a.content.len() / 57 * 78 + 512).sum::<usize>();
    let mut out =
        Vec::with_capacity(encoded + (letter.text.len() + letter.html.len()) * 5 / 4 + HEADER_ROOM_BYTES);
    write_header_section(&mut out, letter);
    let utf8_headers = !out.is_ascii();
    let mut writer = Writer { out: &mut out, message_id: letter.message_id, boundaries: 0 };
    writer.part(&tree(letter, content_types), Place::Top);
    Ok(Content { bytes: out, message_id: letter.message_id.to_owned(), eight_bit: false, utf8_headers })
}

fn write_header_section(out: &mut Vec<u8>, letter: &Composed<'_>) {
    let Composed {
        from,
        to,
        cc,
        reply_to,
        subject,
        text: _,
        html: _,
        attachments: _,
        headers,
        date,
        message_id,
    } = letter;
    let mut field = |name: &str, write: &dyn Fn(&mut Field<'_>)| {
        let mut field = Field::new(out, name);
        write(&mut field);
        field.end();
    };
    field("Date", &|f| f.token(&rfc5322_date(*date)));
    field("From", &|f| f.mailboxes(std::slice::from_ref(*from)));
    for (name, list) in [("Reply-To", reply_to), ("To", to), ("Cc", cc)] {
        if !list.is_empty() {
            field(name, &|f| f.mailboxes(list));
        }
    }
    if to.is_empty() && cc.is_empty() {
        // All recipients are Bcc: an empty group says so (RFC 5322 3.4), a letter without To looks like spam.
        field("To", &|f| f.token("undisclosed-recipients:;"));
    }
    if !subject.is_empty() {
        field("Subject", &|f| f.text(subject));
    }
    field("Message-ID", &|f| f.token(message_id));
    for (name, value) in *headers {
        field(name, &|f| f.text(value));
    }
    field("MIME-Version", &|f| f.token("1.0"));
}

/// A part of a letter.
enum Part<'a> {
    Text { subtype: &'static str, text: &'a str },
    File { file: &'a Attachment<'a>, content_type: ContentType, inline: bool },
    Multi { subtype: &'static str, parts: Vec<Part<'a>> },
}

/// The tree of parts: mixed(alternative(text, related(html, pictures)), files), each level only where it is needed.
fn tree<'a>(letter: &Composed<'a>, content_types: Vec<ContentType>) -> Part<'a> {
    let has_html = !letter.html.is_empty();
    let files = letter.attachments.iter().zip(content_types).map(|(file, content_type)| {
        // A content id without HTML that could show it: an ordinary file.
        let inline = has_html && !file.content_id.is_empty();
        Part::File { file, content_type, inline }
    });
    let (pictures, files): (Vec<_>, Vec<_>) =
        files.partition(|part| matches!(part, Part::File { inline: true, .. }));

    let mut bodies = Vec::new();
    if !letter.text.is_empty() || !has_html {
        bodies.push(Part::Text { subtype: "plain", text: letter.text });
    }
    if has_html {
        bodies.push(joined("related", Part::Text { subtype: "html", text: letter.html }, pictures));
    }
    let body = if bodies.len() == 1 { bodies.pop() } else { None };
    let body = body.unwrap_or(Part::Multi { subtype: "alternative", parts: bodies });
    joined("mixed", body, files)
}

fn joined<'a>(subtype: &'static str, first: Part<'a>, others: Vec<Part<'a>>) -> Part<'a> {
    if others.is_empty() {
        return first;
    }
    let mut parts = vec![first];
    parts.extend(others);
    Part::Multi { subtype, parts }
}

/// Where a part stands: behind the last bytes of the letter a CRLF must come, inside a multipart the boundary brings it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Inside,
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    message_id: &'a str,
    boundaries: usize,
}

impl Writer<'_> {
    fn part(&mut self, part: &Part<'_>, place: Place) {
        match part {
            Part::Text { subtype, text } => self.text(subtype, text, place),
            Part::File { file, content_type, inline } => self.file(file, content_type, *inline),
            Part::Multi { subtype, parts } => self.multi(subtype, parts, place),
        }
    }

    fn text(&mut self, subtype: &str, text: &str, place: Place) {
        let mut encoded = encode_text(text);
        self.line(&format!("Content-Type: text/{subtype}; charset=utf-8"));
        self.line(&format!("Content-Transfer-Encoding: {}", encoded.encoding));
        self.line("");
        if place == Place::Top {
            match encoded.encoding {
                "quoted-printable" => end_quoted(&mut encoded.bytes),
                _ => encoded.bytes.extend_from_slice(b"\r\n"),
            }
        }
        self.out.append(&mut encoded.bytes);
    }

    fn file(&mut self, file: &Attachment<'_>, content_type: &ContentType, inline: bool) {
        let composite = content_type.essence.starts_with("message/");
        let as_it_is = composite && self.may_go_as_it_is(file.content);
        let opaque = ContentType::octet_stream();
        let content_type = if (composite && !as_it_is) || content_type.essence.starts_with("multipart/") {
            &opaque
        } else {
            content_type
        };
        self.content_type_field(file, content_type);
        self.line(&format!("Content-Transfer-Encoding: {}", if as_it_is { "7bit" } else { "base64" }));
        let id = bare_content_id(file.content_id);
        if !id.is_empty() {
            self.line(&format!("Content-ID: <{id}>"));
        }
        let mut field = Field::new(self.out, "Content-Disposition");
        field.token(if inline { "inline" } else { "attachment" });
        if !file.filename.is_empty() {
            field.extended_parameter("filename", file.filename);
        }
        field.end();
        self.line("");
        if as_it_is {
            self.out.extend_from_slice(file.content);
        } else {
            push_base64(self.out, file.content);
        }
    }

    fn content_type_field(&mut self, file: &Attachment<'_>, content_type: &ContentType) {
        let mut field = Field::new(self.out, "Content-Type");
        field.token(&content_type.essence);
        for (key, value) in &content_type.parameters {
            field.parameter(key, value);
        }
        if content_type.essence.starts_with("text/")
            && !content_type.has("charset")
            && !file.content.is_ascii()
            && std::str::from_utf8(file.content).is_ok()
        {
            // Without it RFC 2046 4.1.2 says US-ASCII, and programs guess.
            field.parameter("charset", "utf-8");
        }
        if !file.filename.is_ascii() && !content_type.has("name") {
            // For programs that do not know RFC 2231.
            field.parameter("name", file.filename);
        }
        field.end();
    }

    /// Whether a message inside a letter may travel without encoding: 7-bit, canonical, and without our boundaries.
    fn may_go_as_it_is(&self, content: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(content) else { return false };
        text.is_ascii()
            && text
                .split("\r\n")
                .all(|line| line.len() <= MAX_LINE_BYTES && !line.contains(['\r', '\n', '\0']))
            && !text.contains(&self.boundary_id())
    }

    fn multi(&mut self, subtype: &str, parts: &[Part<'_>], place: Place) {
        self.boundaries += 1;
        // "=_" occurs neither in base64 nor in quoted-printable, and the number keeps one boundary from being the
        // beginning of another.
        let boundary = format!("=_{}_{}", self.boundaries, self.boundary_id());
        // RFC 2387 3.1 asks for the type of the root.
        let root = if subtype == "related" { " type=\"text/html\";" } else { "" };
        self.line(&format!("Content-Type: multipart/{subtype};{root}\r\n boundary=\"{boundary}\""));
        for part in parts {
            self.line("");
            self.line(&format!("--{boundary}"));
            self.part(part, Place::Inside);
        }
        self.line("");
        self.out.extend_from_slice(format!("--{boundary}--").as_bytes());
        if place == Place::Top {
            self.line("");
        }
    }

    fn boundary_id(&self) -> String {
        self.message_id.chars().filter(char::is_ascii_alphanumeric).take(BOUNDARY_ID_CHARS).collect()
    }

    fn line(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}
