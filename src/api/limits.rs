//! Too large a request: tonic has words and codes of its own; the contract says `RESOURCE_EXHAUSTED`, `MESSAGE_TOO_LARGE`.
//! One that cannot be read at all goes the same way; `malformed` has the words for it.

use tonic::{Code, Status};

use super::malformed;
use crate::domain::error::{Problem, Reason};

/// What a request that holds a letter may be larger than the largest letter.
pub(super) const LETTER_OVERHEAD_BYTES: usize = 1024 * 1024;
/// The largest request that holds none, unpacked: accounts and settings have some hundred bytes, masks and lists some more.
pub(super) const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// Where requests hold letters.
const LETTERS: &str = "/postroom.v1.SendService/Send";

/// Code and words of tonic for too large a request, and for a compressed one that unpacks to too much.
const TONIC_TOO_LARGE: [(Code, &str); 2] = [
    (Code::OutOfRange, "decoded message length too large"),
    (Code::ResourceExhausted, "exceeded while decompressing message"),
];

/// What is too large: a letter, or a request of this path that holds none.
#[derive(Clone, Copy)]
pub(super) enum Largest {
    /// Bytes of a letter after MIME encoding.
    Letter(usize),
    /// Bytes of a request.
    Request(usize),
}

impl Largest {
    /// Of a whole request, in bytes.
    pub(super) fn request_bytes(self) -> usize {
        match self {
            Self::Letter(max_letter_bytes) => max_letter_bytes + LETTER_OVERHEAD_BYTES,
            Self::Request(max_bytes) => max_bytes,
        }
    }

    fn problem(self) -> Problem {
        match self {
            Self::Letter(max_letter_bytes) => problem(max_letter_bytes),
            Self::Request(max_bytes) => {
                let text = format!("a request may have at most {max_bytes} bytes");
                Problem::new(Reason::MessageTooLarge, text).with("max_bytes", max_bytes.to_string())
            }
        }
    }
}

/// What a call of this path may bring.
pub(super) fn largest(path: &str, max_letter_bytes: usize) -> Largest {
    if path.starts_with(LETTERS) {
        Largest::Letter(max_letter_bytes)
    } else {
        Largest::Request(MAX_REQUEST_BYTES)
    }
}

/// The answer to a call, translated where it says that the request was too large or cannot be read; others as they are.
pub(super) fn translate_too_large<Body: Default>(
    response: http::Response<Body>,
    largest: Largest,
) -> http::Response<Body> {
    let translated = Status::from_header_map(response.headers()).and_then(|status| {
        if is_too_large(&status) { Some(largest.problem()) } else { malformed::problem(&status) }
    });
    translated.map_or(response, |problem| Status::from(problem).into_http())
}

/// Whether this is how tonic says that a request was too large.
pub(super) fn is_too_large(status: &Status) -> bool {
    TONIC_TOO_LARGE.iter().any(|(code, words)| status.code() == *code && status.message().contains(words))
}

/// The letter is larger than the operator allows.
pub(super) fn problem(max_letter_bytes: usize) -> Problem {
    let text = format!("a letter may have at most {max_letter_bytes} bytes after MIME encoding");
    Problem::new(Reason::MessageTooLarge, text).with("max_bytes", max_letter_bytes.to_string())
}
