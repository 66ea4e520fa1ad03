//! The deadline of a call: `grpc-timeout` (gRPC over HTTP/2, "Requests"), obeyed here whether or not the client does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::places::Place;
use crate::api::follow::shutting_down;
use crate::domain::error::Problem;

const HEADER: &str = "grpc-timeout";
/// The protocol allows so many digits.
const MAX_DIGITS: usize = 8;
/// Longer deadlines are none: no call is ours for so long, and clocks cannot hold the largest.
const MAX: Duration = Duration::from_hours(365 * 24);

/// When the call is over for its client; `None` where it set no deadline.
///
/// # Errors
/// `INVALID_FIELD` where the deadline cannot be read.
pub(super) fn of(headers: &HeaderMap, now: Instant) -> Result<Option<Instant>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse);
    let timeout = timeout.ok_or_else(|| {
        Problem::invalid_field(HEADER, "must be up to eight digits and one of the units H, M, S, m, u, n")
    })?;
    Ok((timeout <= MAX).then(|| now + timeout))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number =
        (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What is answered when the time is over: as clients say it of themselves, without a reason of ours.
pub(super) fn passed() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed; what it had begun to store is stored")
}

/// What ends at the stop what would not end by itself.
pub(super) fn stopping() -> Status {
    shutting_down("ask another replica, or soon again").into()
}

/// The answer of a stream: it ends at the deadline, or at the stop, and gives its place back with its end. While its client
/// reads nothing nobody asks for more of it, so that its end waits for the client, or for the end of the connection.
pub(super) struct Answer {
    inner: Option<Body>,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    place: Option<Place>,
}

impl Answer {
    /// `stop` where nothing else ends it at the stop.
    pub(super) fn new(
        inner: Body,
        deadline: Option<Instant>,
        stop: Option<CancellationToken>,
        place: Place,
    ) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let stop = stop.map(|stop| Box::pin(stop.cancelled_owned()));
        Self { inner: Some(inner), deadline, stop, place: Some(place) }
    }

    fn end(&mut self) {
        self.inner = None;
        self.place = None;
    }

    /// Why it ends before it is complete.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(passed());
        }
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(stopping());
        }
        Poll::Pending
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        // First, so that one who always has more to say ends, too.
        if let Poll::Ready(end) = self.poll_end(context) {
            self.end();
            let mut trailers = end.into_http::<()>().into_parts().0.headers;
            trailers.remove(http::header::CONTENT_TYPE);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(context));
        if frame.is_none() {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_protocol_writes_it() {
        let good = [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("30S", Duration::from_secs(30)),
            ("00000250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ];
        for (text, timeout) in good {
            assert_eq!(parse(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "9ü", "ü"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn the_largest_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers, Instant::now()).expect("none"), None);
        headers.insert(HEADER, "99999999H".parse().expect("a value"));
        assert_eq!(of(&headers, Instant::now()).expect("a time"), None);
        headers.insert(HEADER, "soon".parse().expect("a value"));
        let problem = of(&headers, Instant::now()).expect_err("no time");
        assert_eq!(problem.violations[0].field, HEADER);
    }
}
