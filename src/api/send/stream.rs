//! `SendMessages`: letters taken from a stream, several at once, each answered by itself.
//!
//! What a client may have under way is bounded: an item is read when there is a place for it, and gives its place back when
//! its result is in the hands of the stream. A client that does not read its results finds its sends held up by HTTP/2.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tracing::Instrument;

use super::convert;
use super::taking::Taking;
use crate::api::admission::Turn;
use crate::api::auth::{Credentials, KEY_CHECK};
use crate::api::fields::{self, Violations};
use crate::api::follow::{Responses, shutting_down};
use crate::api::proto::send_messages_response::Error as ProtoError;
use crate::api::proto::{SendMessagesRequest, SendMessagesResponse};
use crate::api::{Api, limits, malformed, status, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::Message;

/// The results of a stream.
pub(super) type Results = Responses<SendMessagesResponse>;

/// Places for items that are worked on at once: enough to keep the store busy, few enough that one stream leaves
/// connections of it to other calls (measured: with 32 on a busy machine items and calls waited for one until they were
/// refused).
const PLACES: u32 = 8;
/// A larger item takes a place for each so many bytes, so that the largest letters are worked on one by one and those of a
/// stream together stay below 8 MiB, or one item.
const BYTES_A_PLACE: usize = 1024 * 1024;
/// Results that wait for the client, beside those that still hold their places.
const RESULTS_IN_FLIGHT: usize = 1;

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
    let turn = request.extensions().get::<Turn>().cloned().unwrap_or_default();
    tokio::spawn(intake.run(request.into_inner(), turn).in_current_span());
    Ok(ReceiverStream::new(stream))
}

struct Intake {
    api: Arc<Api>,
    credentials: Credentials,
    places: Arc<Semaphore>,
    results: mpsc::Sender<Result<SendMessagesResponse, Status>>,
}

impl Intake {
    /// Takes items until there are no more, and ends the stream when all that were read are answered.
    async fn run(self, items: Streaming<SendMessagesRequest>, turn: Turn) {
        let end = self.take_in(items, &turn).await;
        // All places are free when every item is answered, or its client gone. They are never closed.
        let _all = self.places.acquire_many(PLACES).await;
        if let Some(end) = end {
            // Fails only where the client has left, who then needs no answer.
            let _ = self.results.send(Err(end)).await;
        }
    }

    /// Why no further items are read; `None` where there are none, or the client has left.
    async fn take_in(&self, mut items: Streaming<SendMessagesRequest>, turn: &Turn) -> Option<Status> {
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
            // It is unpacked; the next one may have to wait long for its place.
            turn.over();
            let item = match item {
                Ok(item) => item,
                Err(status) if limits::is_too_large(&status) => {
                    return Some(limits::problem(self.api.options.max_letter_bytes).into());
                }
                Err(status) => return Some(malformed::problem(&status).map_or(status, Status::from)),
            };
            let more = self.weigh(&item).await;
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
    async fn next(
        &self,
        items: &mut Streaming<SendMessagesRequest>,
    ) -> Option<(OwnedSemaphorePermit, Result<SendMessagesRequest, Status>)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        self.api.authenticator.pace(&self.credentials).await;
        let item = items.message().await.transpose()?;
        Some((place, item))
    }

    /// The further places of a large item.
    async fn weigh(&self, item: &SendMessagesRequest) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(prost::Message::encoded_len(item) / BYTES_A_PLACE).unwrap_or(u32::MAX);
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
async fn answer(api: &Arc<Api>, credentials: Credentials, item: SendMessagesRequest) -> SendMessagesResponse {
    let index = item.index;
    // Told only where it is a valid one: what is not may be as long as the largest letter.
    let request_id = fields::request_id(&item.request_id).ok().flatten().unwrap_or_default().to_owned();
    let api = Arc::clone(api);
    match to_the_end(async move { take(&api, &credentials, item).await }).await {
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
    let _held = api.memory.hold(prost::Message::encoded_len(&item))?;
    let SendMessagesRequest { parent, message, request_id, index: _ } = item;
    let mut violations = Violations::default();
    let site = violations.take_parsed(fields::site("parent", &parent));
    if let Some(site) = &site {
        credentials.caller.may(Rpc::SendMessages.right(), Some(site))?;
    }
    let taking = Taking::parse(api, site.as_ref(), message, &request_id, &mut violations);
    let (site, taking) = violations.finish_with(site.zip(taking))?;
    let id = taking.take(api, &site).await?;
    super::find(api, &site, id).await
}
