//! The content of a letter, as a stream: read from the store stretch by stretch, as the reader takes it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::Instrument;
use uuid::Uuid;

use crate::api::auth::Credentials;
use crate::api::proto::{GetMessageContentRequest, GetMessageContentResponse};
use crate::api::{Api, fields};
use crate::domain::access::Rpc;
use crate::domain::audit::Reading;
use crate::domain::error::{Problem, Reason};
use crate::domain::site::SiteId;
use crate::store::contents::{self, Readable};

/// A stream of responses.
pub(super) type ContentStream = ReceiverStream<Result<GetMessageContentResponse, Status>>;

/// Most bytes in a response.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes that are read from the store at once: several responses.
const STRETCH_BYTES: i32 = 1024 * 1024;
/// Responses that wait for the reader.
const RESPONSES_IN_FLIGHT: usize = 4;

/// Starts the stream of a letter's content.
pub(super) async fn get(
    api: &Arc<Api>,
    request: Request<GetMessageContentRequest>,
) -> Result<ContentStream, Problem> {
    let named = fields::message("name", &request.get_ref().name);
    let (credentials, (site, id)) =
        api.admit(request.metadata(), Rpc::GetMessageContent.right(), named).await?;
    let GetMessageContentRequest { name } = request.into_inner();
    match contents::readable(&api.store, &site, id).await? {
        None => return Err(Problem::not_found(name)),
        Some(Readable::Never) => {
            let text = format!("{name} is a letter of Postroom's own, whose content is never shown");
            return Err(Problem::new(Reason::StateConflict, text).with("name", name));
        }
        Some(Readable::Content) => {}
    }
    api.note_read(&credentials.caller, &site, Reading::Content(id)).await?;
    let (responses, stream) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let api = Arc::clone(api);
    let reading = async move {
        if let Err(problem) = send(&api, &credentials, &site, id, &responses).await {
            // A reader that is gone needs no reason.
            let _ = responses.send(Err(problem.into())).await;
        }
    };
    tokio::spawn(reading.in_current_span());
    Ok(ReceiverStream::new(stream))
}

/// Sends the content, until its end or until the reader is gone.
async fn send(
    api: &Api,
    credentials: &Credentials,
    site: &SiteId,
    id: Uuid,
    responses: &mpsc::Sender<Result<GetMessageContentResponse, Status>>,
) -> Result<(), Problem> {
    let mut offset = 0;
    loop {
        let stretch = contents::read(&api.store, site, id, offset, STRETCH_BYTES).await?;
        let stretch = stretch.ok_or_else(|| Problem::not_found(format!("{}/messages/{id}", site.name())))?;
        for chunk in stretch.chunks(CHUNK_BYTES) {
            // A slow reader's key may have been revoked meanwhile.
            api.authenticator.still_counts(credentials).await?;
            let response = GetMessageContentResponse { content: chunk.to_vec() };
            let sending = responses.send(Ok(response));
            match api.stop.run_until_cancelled(sending).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Ok(()),
                None => {
                    return Err(Problem::new(Reason::ShuttingDown, "the server is about to stop, try again"));
                }
            }
        }
        let length = i32::try_from(stretch.len()).unwrap_or(STRETCH_BYTES);
        if length < STRETCH_BYTES {
            return Ok(());
        }
        offset += length;
    }
}
