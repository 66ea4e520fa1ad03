//! Content types of attachments (RFC 2045 5.1), taken apart so that they can be written again safely.

use crate::mime::field::is_token;

/// Longest content type in bytes; real ones stay below 200.
const MAX_BYTES: usize = 500;

/// `type/subtype` and parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentType {
    /// Lower case, such as `image/png`.
    pub(super) essence: String,
    /// Key in lower case, value without quotes.
    pub(super) parameters: Vec<(String, String)>,
}

impl ContentType {
    /// What nothing is known about.
    pub(super) fn octet_stream() -> Self {
        Self { essence: "application/octet-stream".to_owned(), parameters: Vec::new() }
    }

    /// Parses `type/subtype; key=value; key="value"`; an empty text is `application/octet-stream`.
    ///
    /// # Errors
    /// What is wrong, in words for the caller.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::octet_stream());
        }
        if text.len() > MAX_BYTES {
            return Err("must be at most 500 bytes");
        }
        if !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err("must be printable ASCII");
        }
        let (essence, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        let essence = essence.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/').ok_or("must have the form type/subtype")?;
        if !is_token(kind) || !is_token(subtype) {
            return Err("must have the form type/subtype");
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        while let Some(behind) = rest.strip_prefix(';') {
            let behind = behind.trim_start();
            if behind.is_empty() || behind.starts_with(';') {
                rest = behind;
                continue;
            }
            let (key, value) = behind.split_once('=').ok_or("must have parameters of the form key=value")?;
            let key = key.trim().to_ascii_lowercase();
            let (value, behind) =
                parse_value(value.trim_start()).ok_or("has a parameter that is not valid")?;
            if !is_token(&key) || parameters.iter().any(|(other, _)| *other == key) {
                return Err("has a parameter that is not valid or occurs twice");
            }
            parameters.push((key, value));
            rest = behind.trim_start();
        }
        if !rest.is_empty() {
            return Err("has something behind a parameter");
        }
        Ok(Self { essence, parameters })
    }

    /// Whether a parameter is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.parameters.iter().any(|(other, _)| other == key)
    }
}

/// A token or a quoted string, and what is behind it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find([';', ' ']).unwrap_or(text.len()));
        return is_token(value).then(|| (value.to_owned(), behind));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => value.push(characters.next()?),
            '"' => return Some((value, characters.as_str())),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::ContentType;

    #[test]
    fn content_types_that_are_right() {
        for (text, essence, parameters) in [
            ("", "application/octet-stream", vec![]),
            ("image/PNG", "image/png", vec![]),
            (
                "text/calendar; method=REQUEST;charset=\"utf-8\";",
                "text/calendar",
                vec![("method", "REQUEST"), ("charset", "utf-8")],
            ),
            ("application/x; name=\"a \\\"b\\\"; c\"", "application/x", vec![("name", "a \"b\"; c")]),
            ("application/vnd.ms-excel ; x=1", "application/vnd.ms-excel", vec![("x", "1")]),
        ] {
            let got = ContentType::parse(text).expect(text);
            assert_eq!(got.essence, essence);
            let got: Vec<_> = got.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(got, parameters, "{text}");
        }
    }

    #[test]
    fn content_types_that_are_wrong() {
        let long = format!("a/{}", "b".repeat(500));
        for text in [
            "image",
            "image/",
            "/png",
            "a/b/c",
            "image/png x",
            "a b/c",
            "text/plain; charset",
            "text/plain; =x",
            "text/plain; a=\"b",
            "text/plain; a=b c",
            "text/plain; a=1; A=2",
            "text/plain; a=",
            "text/pl\r\nain",
            "text/plain\r\nX: y",
            "täxt/plain",
            long.as_str(),
        ] {
            assert!(ContentType::parse(text).is_err(), "{text}");
        }
    }
}
