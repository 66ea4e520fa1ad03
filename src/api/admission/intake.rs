//! A request's body on its way in: what it holds of memory, how long it may take, and how large it may be without a key.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::deadline::stopping;
use super::frames::{Frames, Piece, Prefix};
use super::unpacking::Queue;
use crate::api::memory::{Hold, SMALL_BYTES, Share};
use crate::domain::error::{Problem, Reason};
use crate::metrics::{Metrics, Shed};

/// A message has this long to come in,
const TIME: Duration = Duration::from_secs(30);
/// and a second more for each so many bytes that have: a place and memory are not held by who sends nothing.
const BYTES_A_SECOND: u64 = 64 * 1024;
/// Compressed messages up to this size unpack to a mebibyte at most, and need no turn.
const NO_TURN_BYTES: usize = 1024;
/// To how many times its size a message unpacks at most: 258 bytes need two bits (RFC 1951 3.2.5).
const MAX_RATIO: usize = 1_032;
/// A call waits so long for memory before it is refused; a stream as long as it takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// When to try again: a large letter is stored in less.
const RETRY: Duration = Duration::from_secs(1);

/// How many messages a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    /// One, which must be the last of the request, and come in within its time from the beginning of the call.
    One,
    /// Any number over hours, each of which must come in within its time from its beginning.
    Many,
}

/// What a body may cost.
pub(super) struct Terms {
    pub(super) messages: Messages,
    /// Largest message, packed or unpacked.
    pub(super) max_message: usize,
    /// What its key may take; none where none is needed.
    pub(super) share: Option<Share>,
    /// Ends it where nothing else would at the stop.
    pub(super) stop: Option<CancellationToken>,
}

/// The body of a request, in its extensions, too: its handler learns there what its message holds.
#[derive(Clone)]
pub(in crate::api) struct Reception(Arc<Mutex<Intake>>);

impl Reception {
    pub(super) fn new(inner: Body, terms: Terms, queue: Queue, metrics: Arc<Metrics>) -> Self {
        let Terms { messages, max_message, share, stop } = terms;
        Self(Arc::new(Mutex::new(Intake {
            inner,
            messages,
            max_message,
            share,
            stop: stop.map(|stop| Box::pin(stop.cancelled_owned())),
            queue,
            frames: Frames::default(),
            rest: Bytes::new(),
            has_ended: false,
            taking: None,
            hold: None,
            prefix: None,
            last: None,
            takes_turn: false,
            start: Instant::now(),
            received: 0,
            late: None,
            metrics,
        })))
    }

    /// A message was decoded: it is the turn of others to unpack, and what it holds is the caller's; `None` for a small one.
    pub(in crate::api) fn decoded(&self) -> Option<Hold> {
        let mut intake = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        intake.queue.over();
        let is_complete = !intake.frames.is_within() && intake.taking.is_none() && intake.last.is_none();
        intake.hold.take_if(|_| is_complete)
    }
}

impl HttpBody for Reception {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut intake = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        intake.poll_data(context).map(|data| data.map(|data| data.map(Frame::data)))
    }
}

type Taking = Pin<Box<dyn Future<Output = Result<Hold, Problem>> + Send>>;

struct Intake {
    inner: Body,
    messages: Messages,
    max_message: usize,
    share: Option<Share>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    queue: Queue,
    frames: Frames,
    /// What came in and was not cut yet.
    rest: Bytes,
    has_ended: bool,
    /// Waits for the memory of the message that begins.
    taking: Option<Taking>,
    /// The memory of the message at hand.
    hold: Option<Hold>,
    /// The decoder gets memory for a whole message when it sees its prefix, which waits until there is some.
    prefix: Option<Bytes>,
    /// What completes the message. It is decoded when it has its turn, and where it is the only one when the request has
    /// ended: until then whoever sends it may take as long as it likes, and what is decoded is larger.
    last: Option<Bytes>,
    /// Whether the message at hand is unpacked by turns.
    takes_turn: bool,
    /// Since when time counts,
    start: Instant,
    /// and what came in since.
    received: u64,
    late: Option<Pin<Box<Sleep>>>,
    metrics: Arc<Metrics>,
}

impl Intake {
    /// What the decoder gets next. Who asks has decoded the complete messages that it has.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.queue.over();
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(stopping())));
        }
        loop {
            if let Some(taking) = &mut self.taking {
                let taken = ready!(taking.as_mut().poll(context));
                self.taking = None;
                match taken {
                    Ok(hold) => self.hold = Some(hold),
                    Err(problem) => return Poll::Ready(Some(Err(problem.into()))),
                }
                // The time for which it waited for us is not its own.
                self.begin_time();
            }
            if let Some(prefix) = self.prefix.take() {
                return Poll::Ready(Some(Ok(prefix)));
            }
            if self.last.is_some() {
                if self.messages == Messages::One && !self.rest.is_empty() {
                    let problem = Problem::new(Reason::InvalidField, "the request must be one message");
                    return Poll::Ready(Some(Err(problem.into())));
                }
                if self.messages == Messages::Many || self.has_ended {
                    if self.takes_turn {
                        ready!(self.queue.poll(context));
                    }
                    return Poll::Ready(self.last.take().map(Ok));
                }
            }
            match self.frames.cut(&mut self.rest) {
                Some(Piece::Prefix(prefix, bytes)) => {
                    if let Err(problem) = self.begin(prefix, bytes) {
                        return Poll::Ready(Some(Err(problem.into())));
                    }
                }
                Some(Piece::Part(piece)) => {
                    self.count(&piece);
                    return Poll::Ready(Some(Ok(piece)));
                }
                Some(Piece::Last(piece)) => {
                    self.count(&piece);
                    self.last = Some(piece);
                }
                None if self.has_ended => return Poll::Ready(self.frames.torn().map(Ok)),
                None => {
                    if let Err(status) = ready!(self.poll_inner(context)) {
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
        }
    }

    /// A message begins: it takes all that it will need, or waits for it, before the decoder hears of it.
    fn begin(&mut self, prefix: Prefix, bytes: Bytes) -> Result<(), Problem> {
        let Prefix { is_compressed, length } = prefix;
        self.takes_turn = is_compressed && length > NO_TURN_BYTES;
        // Its handler has what the one before it held, unless it wanted none.
        self.hold = None;
        self.begin_time();
        if length == 0 {
            self.last = Some(bytes);
            return Ok(());
        }
        self.prefix = Some(bytes);
        let Some(share) = self.share.clone() else {
            // What is behind has limits of its own, which we did not choose.
            let text = "the request is too large";
            return if length > self.max_message {
                Err(Problem::new(Reason::MessageTooLarge, text))
            } else {
                Ok(())
            };
        };
        let unpacked = if is_compressed { length.saturating_mul(MAX_RATIO).min(self.max_message) } else { 0 };
        // One that is too large the decoder refuses by its prefix.
        if length <= self.max_message && length + unpacked > SMALL_BYTES {
            let hold = share.hold(length + unpacked);
            let metrics = Arc::clone(&self.metrics);
            self.taking = Some(match self.messages {
                Messages::One => Box::pin(async move {
                    let held = timeout(PATIENCE, hold).await;
                    held.map_err(|_| full()).inspect_err(|_| metrics.calls.shed(Shed::Memory))
                }),
                Messages::Many => Box::pin(async move { Ok(hold.await) }),
            });
        }
        Ok(())
    }

    fn begin_time(&mut self) {
        if self.messages == Messages::Many {
            (self.start, self.received, self.late) = (Instant::now(), 0, None);
        }
    }

    fn count(&mut self, piece: &Bytes) {
        self.received += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let end = self.end();
        if let Some(late) = &mut self.late {
            late.as_mut().reset(end);
        }
    }

    fn end(&self) -> Instant {
        self.start + TIME + Duration::from_secs(self.received / BYTES_A_SECOND)
    }

    /// Ready when there is more to cut, or no more.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.rest = data,
                // Trailers, of which gRPC knows none in requests, are an end, too.
                Some(Err(_)) | None => self.has_ended = true,
            }
            return Poll::Ready(Ok(()));
        }
        if self.messages == Messages::Many && !self.frames.is_within() {
            return Poll::Pending;
        }
        let end = self.end();
        ready!(self.late.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(context));
        Poll::Ready(Err(Status::deadline_exceeded("the request came in too slowly")))
    }
}

fn full() -> Problem {
    let text = "too many large letters are being taken at this moment, try again";
    Problem::new(Reason::RateLimited, text).retry_after(RETRY)
}
