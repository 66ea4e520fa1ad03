//! Too large a request: tonic answers it `OUT_OF_RANGE`; the contract says `RESOURCE_EXHAUSTED`, `MESSAGE_TOO_LARGE`.

use std::task::{Context, Poll};

use futures_util::future::{FutureExt, Map};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::domain::error::{Problem, Reason};

/// What tonic's message for too large a request contains.
const TONIC_TOO_LARGE: &str = "decoded message length too large";

/// Wraps a service in [`TooLarge`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TooLargeLayer;

/// Translates the answer to too large a request.
#[derive(Clone, Debug)]
pub struct TooLarge<S>(S);

impl<S> Layer<S> for TooLargeLayer {
    type Service = TooLarge<S>;

    fn layer(&self, inner: S) -> TooLarge<S> {
        TooLarge(inner)
    }
}

impl<S, Request, Body> Service<Request> for TooLarge<S>
where
    S: Service<Request, Response = http::Response<Body>>,
    Body: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Map<S::Future, fn(Result<S::Response, S::Error>) -> Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request).map(|answer| answer.map(translate))
    }
}

fn translate<Body: Default>(response: http::Response<Body>) -> http::Response<Body> {
    let too_large = Status::from_header_map(response.headers()).is_some_and(|status| {
        status.code() == Code::OutOfRange && status.message().contains(TONIC_TOO_LARGE)
    });
    if !too_large {
        return response;
    }
    let text = format!("a request may have at most {} bytes", super::MAX_LETTER_BYTES);
    let problem =
        Problem::new(Reason::MessageTooLarge, text).with("max_bytes", super::MAX_LETTER_BYTES.to_string());
    Status::from(problem).into_http()
}
