//! Too large a request: tonic answers it `OUT_OF_RANGE`; the contract says `RESOURCE_EXHAUSTED`, `MESSAGE_TOO_LARGE`.

use tonic::{Code, Status};

use crate::domain::error::{Problem, Reason};

/// What tonic's message for too large a request contains.
const TONIC_TOO_LARGE: &str = "decoded message length too large";

/// The answer to a call, translated where it says that the request was too large; others as they are.
pub fn translate_too_large<Body: Default>(
    response: http::Response<Body>,
    max_letter_bytes: usize,
) -> http::Response<Body> {
    let too_large = Status::from_header_map(response.headers()).is_some_and(|status| {
        status.code() == Code::OutOfRange && status.message().contains(TONIC_TOO_LARGE)
    });
    if too_large { Status::from(problem(max_letter_bytes)).into_http() } else { response }
}

/// The letter is larger than the operator allows.
pub(super) fn problem(max_letter_bytes: usize) -> Problem {
    let text = format!("a letter may have at most {max_letter_bytes} bytes after MIME encoding");
    Problem::new(Reason::MessageTooLarge, text).with("max_bytes", max_letter_bytes.to_string())
}
