//! `DownloadLog`: a log as text, read from the store stretch by stretch, as the reader takes it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::api::Api;
use crate::api::auth::Credentials;
use crate::api::follow::shutting_down;
use crate::api::proto::DownloadLogResponse;
use crate::domain::audit::Reading;
use crate::domain::error::{Problem, Reason};
use crate::domain::log::{self, LogId};
use crate::domain::site::SiteId;
use crate::store::logs::{self, ChunkFilter};

/// A stream of responses.
pub(super) type TextStream = ReceiverStream<Result<DownloadLogResponse, Status>>;

/// Chunks sent in one response; with their sizes a response has up to about 300 KiB.
const CHUNKS: i64 = 512;
/// Responses that wait for the reader, beside the one being made.
const RESPONSES_IN_FLIGHT: usize = 1;

/// Starts the stream of what a log holds now.
///
/// # Errors
/// `NOT_FOUND`.
pub(super) async fn start(
    api: &Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    log: LogId,
) -> Result<TextStream, Problem> {
    let start = logs::start_position(&api.store, &site, log).await?;
    let start = start.ok_or_else(|| Problem::not_found(format!("{}/logs/{log}", site.name())))?;
    let end = logs::last_position(&api.store, &site).await?;
    api.note_read(&credentials.caller, &site, Reading::Download(log)).await?;
    let (responses, stream) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let download = Download { api: Arc::clone(api), credentials, site, log, start, end };
    let reading = async move {
        if let Err(problem) = download.send(&responses).await {
            // A reader that is gone needs no reason.
            let _ = responses.send(Err(problem.into())).await;
        }
    };
    tokio::spawn(reading.in_current_span());
    Ok(ReceiverStream::new(stream))
}

struct Download {
    api: Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    log: LogId,
    /// Where it begins; another one once the log began afresh.
    start: i64,
    /// The last position of the site when it was asked for.
    end: i64,
}

impl Download {
    /// Sends the text, until its end or until the reader is gone.
    async fn send(
        &self,
        responses: &mpsc::Sender<Result<DownloadLogResponse, Status>>,
    ) -> Result<(), Problem> {
        let Self { api, credentials, site, log, start, end } = self;
        let filter = ChunkFilter { logs: vec![*log], ..ChunkFilter::default() };
        let mut from = *start;
        while from <= *end {
            let chunks = logs::read(&api.store, site, &filter, from, CHUNKS).await?;
            // Asked after the read: what was read is of one piece with what went before.
            if logs::start_position(&api.store, site, *log).await? != Some(*start) {
                return Err(self.began_afresh());
            }
            // A slow reader's key may have been revoked meanwhile.
            api.authenticator.still_counts(credentials).await?;
            api.presence.demand(site).await?;
            let Some(last) = chunks.last() else { return Ok(()) };
            from = last.position + 1;
            let mut text = String::new();
            for stored in chunks.iter().filter(|stored| stored.position <= *end) {
                for entry in &stored.chunk.entries {
                    log::write(&mut text, stored.chunk.session, entry);
                }
            }
            if text.is_empty() {
                return Ok(());
            }
            let sending = responses.send(Ok(DownloadLogResponse { text }));
            match api.stop.run_until_cancelled(sending).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Ok(()),
                None => return Err(shutting_down("download the log again, from another replica or soon")),
            }
        }
        Ok(())
    }

    fn began_afresh(&self) -> Problem {
        let name = format!("{}/logs/{}", self.site.name(), self.log);
        let text = format!("{name} began afresh while it was read; download it again");
        Problem::new(Reason::StateConflict, text).with("name", name)
    }
}
