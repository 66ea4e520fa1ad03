//! Streams that follow a table: what is stored behind the reader's place, then what is added, as it is added.
//!
//! The table is the truth; memory only wakes. A reader that does not read holds up its own task at a small channel,
//! and is served from the table when it reads again.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use super::Api;
use super::auth::{Credentials, KEY_CHECK};
use crate::domain::error::{Problem, Reason};
use crate::domain::site::SiteId;

/// Responses that wait for the reader, beside the one being made.
const RESPONSES_IN_FLIGHT: usize = 1;
/// The table is looked at so often, whatever was heard: other replicas write it, too.
const POLL: Duration = Duration::from_secs(1);
/// A response comes at least so often (API 6).
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream of responses.
pub(super) type Responses<Response> = ReceiverStream<Result<Response, Status>>;

/// How far a reader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Everything at or below this position was told.
    pub(super) position: i64,
    /// So was everything that was committed before this time.
    pub(super) time: OffsetDateTime,
}

/// A part of the table, in the order of positions.
pub(super) struct Batch<Item> {
    /// What is told of it.
    pub(super) items: Vec<Item>,
    /// The place of its last row; `None` where there was no row.
    pub(super) last: Option<Place>,
    /// Whether more rows may be there.
    pub(super) more: bool,
}

/// What a stream tells of a table whose positions grow in the order of commits.
pub(super) trait Followed: Send + Sync + 'static {
    /// What is told.
    type Item: Send + Sync + 'static;
    /// What a reader is sent.
    type Response: Send + 'static;

    /// The highest position of the site.
    fn last_position(&self) -> impl Future<Output = Result<i64, Problem>> + Send;

    /// Some rows behind this position, oldest first; `last` was the highest position just before.
    fn read(&self, behind: i64, last: i64)
    -> impl Future<Output = Result<Batch<Self::Item>, Problem>> + Send;

    /// The token of a place.
    fn token(&self, place: Place) -> String;

    /// A response.
    fn response(&self, items: Vec<Self::Item>, resume_token: String) -> Self::Response;
}

/// Follows from a place on, after `first` has been told, until the reader leaves, the key ends or the server stops.
pub(super) fn follow<F: Followed>(
    api: &Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    followed: F,
    place: Place,
    first: Vec<F::Item>,
) -> Responses<F::Response> {
    let (responses, stream) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let follower = Follower { api: Arc::clone(api), credentials, site, followed, place };
    tokio::spawn(follower.run(first, responses).in_current_span());
    ReceiverStream::new(stream)
}

/// What ends streams when the server stops.
pub(super) fn shutting_down(advice: &str) -> Problem {
    Problem::new(Reason::ShuttingDown, format!("the server is stopping: {advice}")).retry_after(POLL)
}

/// What answers a token that is not of this call, or too old.
pub(super) fn token_expired() -> Problem {
    let text = "this resume token is not one of this call, or what it stands for is gone";
    Problem::new(Reason::ResumeTokenExpired, text)
}

struct Follower<F> {
    api: Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    followed: F,
    place: Place,
}

impl<F: Followed> Follower<F> {
    async fn run(mut self, first: Vec<F::Item>, responses: mpsc::Sender<Result<F::Response, Status>>) {
        let stop = self.api.stop.clone();
        let end = tokio::select! {
            end = self.follow(first, &responses) => end,
            () = stop.cancelled() => {
                Some(shutting_down("resume with the last token, on another replica or soon"))
            }
        };
        if let Some(problem) = end {
            // Fails only where the reader has left, who then needs no answer.
            let _ = responses.send(Err(problem.into())).await;
        }
    }

    /// Why the stream ends; `None` where the reader has left.
    async fn follow(
        &mut self,
        first: Vec<F::Item>,
        responses: &mpsc::Sender<Result<F::Response, Status>>,
    ) -> Option<Problem> {
        let store = self.api.store.clone();
        let mut recorded = store.changes().watch(&self.site);
        let mut checked = Instant::now();
        // The first response comes at once, so that the reader has a token to come back with.
        let mut unsent = Some(first);
        let mut heartbeat = Instant::now() + HEARTBEAT;
        loop {
            recorded.mark_unchanged();
            if checked.elapsed() >= KEY_CHECK {
                if let Err(problem) = self.api.authenticator.still_counts(&self.credentials).await {
                    return Some(problem);
                }
                checked = Instant::now();
            }
            let (items, more) = match self.advance().await {
                Ok(advanced) => advanced,
                Err(problem) => return Some(problem),
            };
            let due = unsent.is_some() || !items.is_empty() || Instant::now() >= heartbeat;
            if due {
                let mut all = unsent.take().unwrap_or_default();
                all.extend(items);
                let response = self.followed.response(all, self.followed.token(self.place));
                if responses.send(Ok(response)).await.is_err() {
                    return None;
                }
                heartbeat = Instant::now() + HEARTBEAT;
            }
            if !more {
                tokio::select! {
                    () = responses.closed() => return None,
                    _ = timeout_at(heartbeat.min(Instant::now() + POLL), recorded.changed()) => {}
                }
            }
        }
    }

    /// What comes next, and whether there may be more at once.
    async fn advance(&mut self) -> Result<(Vec<F::Item>, bool), Problem> {
        let time = self.api.store.clock().now();
        // Asked for before the rows: whatever is at or below it is seen by the read that follows.
        let last = self.followed.last_position().await?;
        if last <= self.place.position {
            self.place.time = time;
            return Ok((Vec::new(), false));
        }
        let Batch { items, last: seen, more } = self.followed.read(self.place.position, last).await?;
        self.place = match seen {
            Some(seen) if more => seen,
            seen => Place { position: seen.map_or(last, |seen| seen.position.max(last)), time },
        };
        Ok((items, more))
    }
}
