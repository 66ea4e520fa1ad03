//! `SendMessages`: letters taken from a stream, several at once, each answered by itself.
//!
//! What a client may have under way is bounded: an item is read when there is a place for it, and gives its place back when
//! its result is in the hands of the stream. A client that does not read its results finds its sends held up by HTTP/2.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Status, Streaming};
use tracing::Instrument;

use super::convert;
use super::taking::{Sent, Taking};
use crate::api::admission::Reception;
use crate::api::auth::{Credentials, KEY_CHECK};
use crate::api::codec::Decoder;
use crate::api::fields::{self, Violations};
use crate::api::follow::{Responses, shutting_down};
use crate::api::memory::Hold;
use crate::api::proto::send_messages_response::Error as ProtoError;
use crate::api::proto::{SendMessagesRequest, SendMessagesResponse};
use crate::api::{Api, limits, malformed, status, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::Message;
use crate::metrics::Via;

/// The results of a stream.
pub(super) type Results = Responses<SendMessagesResponse>;

/// Places for items that are worked on at once: enough to fill the groups in which the store takes letters.
const PLACES: u32 = 128;
/// A larger item takes a place for each so many bytes, so that the largest letters are worked on one by one and those of a
/// stream together stay below 2 MiB, or one item.
const BYTES_A_PLACE: usize = 16 * 1024;
/// Results that wait for the client, beside those that still hold their places.
const RESULTS_IN_FLIGHT: usize = 1;
/// An item waits so long for the places it takes beyond its first, which are free when those before it are answered and
/// their results read.
const WEIGHING: Duration = Duration::from_mins(1);

/// Starts a stream.
///
/// # Errors
/// `KEY_MISSING`, `STORE_UNAVAILABLE`.
pub(super) async fn start(
    api: &Arc<Api>,
    request: Request<Streaming<SendMessagesRequest>>,
) -> Result<Results, Problem> {
    let credentials = api.authenticator.caller(request.metadata()).await?;
    let (results, stream) = mpsc::channel(RESULTS_IN_FLIGHT);
    let places = Arc::new(Semaphore::new(PLACES as usize));
    let intake = Intake { api: Arc::clone(api), credentials, places, results };
    let items = Items::new(request, api.options.max_letter_bytes);
    tokio::spawn(intake.run(items).in_current_span());
    Ok(ReceiverStream::new(stream))
}

/// What the client sends.
struct Items {
    decoded: Streaming<SendMessagesRequest>,
    reception: Option<Reception>,
    encoding: Option<CompressionEncoding>,
    max_letter_bytes: usize,
}

/// An item, and what it holds; nothing where it is small.
struct Item {
    request: SendMessagesRequest,
    hold: Option<Hold>,
}

impl Items {
    fn new(request: Request<Streaming<SendMessagesRequest>>, max_letter_bytes: usize) -> Self {
        let is_packed = request.metadata().get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
        let encoding = is_packed.then_some(CompressionEncoding::Gzip);
        let reception = request.extensions().get().cloned();
        Self { decoded: request.into_inner(), reception, encoding, max_letter_bytes }
    }

    /// The next item. Nothing is lost when this is dropped.
    async fn next(&mut self) -> Option<Result<Item, Status>> {
        let request = match self.decoded.message().await.transpose()? {
            Ok(request) => request,
            Err(status) => return Some(Err(status)),
        };
        // It is unpacked; the next one may have to wait long for its place.
        let mut hold = self.reception.as_ref().and_then(Reception::decoded);
        if let (Some(hold), Some(reception)) = (&mut hold, &self.reception) {
            hold.shrink_to(request.encoded_len());
            // A decoder keeps what its largest message took. Of a large one it has nothing but that, and goes.
            let max_bytes = Some(self.max_letter_bytes + limits::LETTER_OVERHEAD_BYTES);
            let decoder = Decoder::default();
            self.decoded = Streaming::new_request(decoder, reception.clone(), self.encoding, max_bytes);
        }
        Some(Ok(Item { request, hold }))
    }
}

struct Intake {
    api: Arc<Api>,
    credentials: Credentials,
    places: Arc<Semaphore>,
    results: mpsc::Sender<Result<SendMessagesResponse, Status>>,
}

impl Intake {
    /// Takes items until there are no more, and ends the stream when all that were read are answered.
    async fn run(self, items: Items) {
        let end = self.take_in(items).await;
        // All places are free when every item is answered, or its client gone. They are never closed.
        let _all = self.places.acquire_many(PLACES).await;
        if let Some(end) = end {
            // Fails only where the client has left, who then needs no answer.
            let _ = self.results.send(Err(end)).await;
        }
    }

    /// Why no further items are read; `None` where there are none, or the client has left.
    async fn take_in(&self, mut items: Items) -> Option<Status> {
        let mut key_ends = pin!(self.key_ends());
        loop {
            let (place, item) = tokio::select! {
                biased;
                () = self.api.stop.cancelled() => {
                    let advice = "send what has no result again, with the same request ids";
                    return Some(shutting_down(advice).into());
                }
                () = self.results.closed() => return None,
                problem = &mut key_ends => return Some(problem.into()),
                next = self.next(&mut items) => next?,
            };
            let item = match item {
                Ok(item) => item,
                Err(status) if limits::is_too_large(&status) => {
                    return Some(limits::problem(self.api.options.max_letter_bytes).into());
                }
                Err(status) => return Some(malformed::problem(&status).map_or(status, Status::from)),
            };
            // Its memory is not held for a client that reads no results.
            let Ok(more) = timeout(WEIGHING, self.weigh(&item.request)).await else {
                let text = "the results of the stream were not read; send what has no result again, with the same \
                            request ids";
                return Some(Status::deadline_exceeded(text));
            };
            let (api, credentials, results) =
                (Arc::clone(&self.api), self.credentials.clone(), self.results.clone());
            let work = async move {
                let result = answer(&api, credentials, item).await;
                // Fails only where the client has left.
                let _ = results.send(Ok(result)).await;
                drop((place, more));
            };
            tokio::spawn(work.in_current_span());
        }
    }

    /// The next item and its place, which is there before the item is read; `None` where there are no more. Nothing is
    /// lost when this is dropped.
    async fn next(&self, items: &mut Items) -> Option<(OwnedSemaphorePermit, Result<Item, Status>)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        self.api.authenticator.pace(&self.credentials).await;
        Some((place, items.next().await?))
    }

    /// The further places of a large item.
    async fn weigh(&self, item: &SendMessagesRequest) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(item.encoded_len() / BYTES_A_PLACE).unwrap_or(u32::MAX);
        Arc::clone(&self.places).acquire_many_owned(wanted.min(PLACES - 1)).await.ok()
    }

    /// Waits until the key no longer counts. A store that does not answer is told to each item.
    async fn key_ends(&self) -> Problem {
        loop {
            sleep(KEY_CHECK).await;
            match self.api.authenticator.still_counts(&self.credentials).await {
                Err(problem) if problem.reason == Reason::KeyMissing => return problem,
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// The result of one item.
async fn answer(api: &Arc<Api>, credentials: Credentials, item: Item) -> SendMessagesResponse {
    let Item { request: item, hold } = item;
    let index = item.index;
    // Told only where it is a valid one: what is not may be as long as the largest letter.
    let request_id = fields::request_id(&item.request_id).ok().flatten().unwrap_or_default().to_owned();
    let api = Arc::clone(api);
    let work = async move {
        let _held = hold;
        take(&api, &credentials, item).await
    };
    match to_the_end(work).await {
        Ok(message) => {
            SendMessagesResponse { index, request_id, message: Some(convert::message(message)), error: None }
        }
        Err(problem) => {
            let (code, reason, text) = status::in_words(problem);
            let error = ProtoError { code: code.into(), reason: reason.to_owned(), text };
            SendMessagesResponse { index, request_id, message: None, error: Some(error) }
        }
    }
}

async fn take(api: &Api, credentials: &Credentials, item: SendMessagesRequest) -> Result<Message, Problem> {
    let SendMessagesRequest { parent, message, request_id, index: _ } = item;
    let mut violations = Violations::default();
    let site = violations.take_parsed(fields::site("parent", &parent));
    if let Some(site) = &site {
        credentials.caller.may(Rpc::SendMessages.right(), Some(site))?;
    }
    let taking = Taking::parse(api, site.as_ref(), message, &request_id, &mut violations);
    let (site, taking) = violations.finish_with(site.zip(taking))?;
    match taking.take(api, &site, Via::Stream).await? {
        Sent::Now(message) => Ok(*message),
        Sent::Before(id) => super::find(api, &site, id).await,
    }
}
