//! Calls are counted with what they came to: told in the head of the answer, or behind the last of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::metrics::Running;

/// Where the code of a call stands.
const STATUS: &str = "grpc-status";

/// An answer that is counted at its end.
pub(super) fn counted(response: Response<Body>, running: Running) -> Response<Body> {
    if response.headers().contains_key(STATUS) {
        running.end(code(response.headers()));
        return response;
    }
    response.map(|inner| Body::new(Counted { inner, running: Some(running) }))
}

fn code(headers: &HeaderMap) -> Option<usize> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The body of an answer. One that is dropped before its end was cancelled.
struct Counted {
    inner: Body,
    running: Option<Running>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let end = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(code),
            Some(Err(status)) => Some(usize::try_from(i32::from(status.code())).ok()),
            None => Some(None),
        };
        if let Some(code) = end
            && let Some(running) = self.running.take()
        {
            running.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
