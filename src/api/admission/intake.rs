//! A request's body on its way in: what it holds of memory, how long it may take, and how large it may be without a key.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::unpacking::Queue;
use crate::api::memory::{Hold, Memory, SMALL_BYTES};
use crate::domain::error::{Problem, Reason};

/// A request that is one message has this long to come in,
const TIME: Duration = Duration::from_secs(30);
/// and a second more for each so many bytes that have: a place and memory are not held by who sends nothing.
const BYTES_A_SECOND: u64 = 64 * 1024;
/// Compressed messages up to this size unpack to a mebibyte at most, a thousand times theirs, and need no turn.
const NO_TURN_BYTES: usize = 1024;
/// Flag and length before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// What a body may cost.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Whether it must come in within its time; not where the client may go on sending for hours.
    pub(super) is_timed: bool,
    /// Largest message, where the service behind has no limit of its own that we chose.
    pub(super) max_message: Option<usize>,
}

/// A body that is counted.
pub(super) struct Intake {
    inner: Body,
    terms: Terms,
    /// What the decoder has of large messages that are not complete yet.
    hold: Hold,
    frames: Frames,
    start: Instant,
    received: u64,
    late: Option<Pin<Box<Sleep>>>,
    queue: Queue,
    /// What completes a compressed message, and waits for its turn.
    waiting: Option<Bytes>,
}

impl Intake {
    pub(super) fn new(inner: Body, terms: Terms, memory: &Memory, queue: Queue) -> Self {
        let start = Instant::now();
        let late = terms.is_timed.then(|| Box::pin(sleep_until(start + TIME)));
        Self {
            inner,
            terms,
            hold: memory.nothing(),
            frames: Frames::default(),
            start,
            received: 0,
            late,
            queue,
            waiting: None,
        }
    }

    /// Whether these bytes complete a message that is unpacked by turns.
    fn count(&mut self, data: &Bytes) -> Result<bool, Problem> {
        let Read { large, unpacks } = self.frames.read(data, self.terms.max_message)?;
        self.hold.grow(large)?;
        self.received += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if let Some(late) = &mut self.late {
            late.as_mut().reset(self.start + TIME + Duration::from_secs(self.received / BYTES_A_SECOND));
        }
        Ok(unpacks)
    }

    /// What waits for its turn, when that has come.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.waiting.is_some() {
            ready!(self.queue.poll(context));
        }
        Poll::Ready(self.waiting.take())
    }
}

impl HttpBody for Intake {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Who asks for more has decoded the complete messages that it has.
        self.queue.over();
        if let Some(data) = ready!(self.poll_waiting(context)) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let incomplete = self.frames.incomplete;
        self.hold.shrink_to(incomplete);
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                match self.count(data) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.waiting = Some(data.clone());
                        let data = ready!(self.poll_waiting(context));
                        return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
                    }
                    Err(problem) => return Poll::Ready(Some(Err(problem.into()))),
                }
            }
            return Poll::Ready(frame);
        }
        let Some(late) = &mut self.late else { return Poll::Pending };
        ready!(late.as_mut().poll(context));
        self.late = None;
        Poll::Ready(Some(Err(Status::deadline_exceeded("the request came in too slowly"))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }
}

/// What some bytes hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// How many of them are of large messages.
    large: usize,
    /// Whether they complete a message that is unpacked by turns.
    unpacks: bool,
}

/// Where messages begin and end in what comes in.
#[derive(Default)]
struct Frames {
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    /// What the message at hand still lacks.
    left: usize,
    is_large: bool,
    takes_turn: bool,
    /// Bytes of a large message that is not complete.
    incomplete: usize,
}

impl Frames {
    fn read(&mut self, data: &Bytes, max_message: Option<usize>) -> Result<Read, Problem> {
        let (mut rest, mut read) = (&data[..], Read::default());
        while !rest.is_empty() {
            if self.left == 0 {
                let count = rest.len().min(PREFIX_BYTES - self.prefix_read);
                self.prefix[self.prefix_read..self.prefix_read + count].copy_from_slice(&rest[..count]);
                self.prefix_read += count;
                rest.advance(count);
                if self.prefix_read == PREFIX_BYTES {
                    let [is_compressed, length @ ..] = self.prefix;
                    self.prefix_read = 0;
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    self.is_large = self.left > SMALL_BYTES;
                    self.takes_turn = is_compressed != 0 && self.left > NO_TURN_BYTES;
                    if max_message.is_some_and(|max| self.left > max) {
                        return Err(Problem::new(Reason::MessageTooLarge, "the request is too large"));
                    }
                }
                continue;
            }
            let count = rest.len().min(self.left);
            rest.advance(count);
            self.left -= count;
            read.unpacks |= self.takes_turn && self.left == 0;
            if self.is_large {
                read.large += count;
                self.incomplete = if self.left == 0 { 0 } else { self.incomplete + count };
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).expect("a length").to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, b'x');
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let sizes = [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES, 7];
        let all: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
        for cut in [1, 2, 5, 6, 1_000, 70_000, all.len()] {
            let mut frames = Frames::default();
            let mut large = 0;
            for chunk in all.chunks(cut) {
                large += frames.read(&Bytes::copy_from_slice(chunk), None).expect("no limit").large;
            }
            assert_eq!(large, 4 * SMALL_BYTES + 1, "cut at {cut}");
            assert_eq!((frames.incomplete, frames.left, frames.prefix_read), (0, 0, 0));
        }
    }

    #[test]
    fn a_message_that_is_not_complete_is_held() {
        let mut frames = Frames::default();
        let mut bytes = message(2 * SMALL_BYTES);
        bytes.truncate(PREFIX_BYTES + 100);
        assert_eq!(frames.read(&bytes.into(), None).expect("no limit"), Read { large: 100, unpacks: false });
        assert_eq!(frames.incomplete, 100);
        let mut compressed = message(NO_TURN_BYTES + 1);
        compressed[0] = 1;
        let (first, last) = compressed.split_at(compressed.len() - 1);
        let mut frames = Frames::default();
        assert!(!frames.read(&Bytes::copy_from_slice(first), None).expect("no limit").unpacks);
        assert!(frames.read(&Bytes::copy_from_slice(last), None).expect("no limit").unpacks);
        let refused = Frames::default().read(&message(11).into(), Some(10)).expect_err("too large");
        assert_eq!(refused.reason, Reason::MessageTooLarge);
    }
}
