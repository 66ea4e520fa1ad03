//! Streams that follow a table: what is stored behind the reader's place, then what is added, as it is added.
//!
//! The table is the truth; memory wakes, and saves many readers from asking the same. A reader that does not read holds up
//! its own task at a small channel, and is served from the table when it reads again.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use super::Api;
use super::auth::{Credentials, KEY_CHECK};
use crate::domain::error::{Problem, Reason};
use crate::domain::site::SiteId;
use crate::metrics;

/// Responses that wait for the reader; the next one is made when it was taken.
const RESPONSES_IN_FLIGHT: usize = 1;
/// The table is looked at so often, whatever was heard: other replicas write it, too.
const POLL: Duration = Duration::from_secs(1);
/// A stream goes on although the store does not answer for so long.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// How far it reaches.
    pub(super) reached: Place,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// What a stream tells of a table whose positions grow in the order of commits.
pub(super) trait Followed: Send + Sync + 'static {
    /// How streams of it are counted.
    const COUNTED: metrics::Followed;
    /// What is told.
    type Item: Send + Sync + 'static;
    /// What a reader is sent.
    type Response: Send + 'static;

    /// Some of what lies behind this place, as it is at `since` or later, oldest first.
    fn read(
        &self,
        behind: Place,
        since: Instant,
    ) -> impl Future<Output = Result<Batch<Self::Item>, Problem>> + Send;

    /// The token of a place.
    fn token(&self, place: Place) -> String;

    /// A response.
    fn response(&self, items: Vec<Self::Item>, resume_token: String) -> Self::Response;
}

/// Follows from a place on, until the reader leaves, the key ends or the server stops.
pub(super) fn follow<F: Followed>(
    api: &Arc<Api>,
    credentials: Credentials,
    site: SiteId,
    followed: F,
    place: Place,
) -> Responses<F::Response> {
    let (responses, stream) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let follower = Follower {
        api: Arc::clone(api),
        credentials,
        site,
        followed,
        place,
        checked: Instant::now(),
        trouble: None,
    };
    tokio::spawn(follower.run(responses).in_current_span());
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
    /// When the key was looked at last.
    checked: Instant,
    /// Since when the store does not answer.
    trouble: Option<Instant>,
}

impl<F: Followed> Follower<F> {
    async fn run(mut self, responses: mpsc::Sender<Result<F::Response, Status>>) {
        let stop = self.api.stop.clone();
        let end = tokio::select! {
            end = self.follow(&responses) => end,
            () = stop.cancelled() => {
                Err(shutting_down("resume with the last token, on another replica or soon"))
            }
        };
        if let Err(problem) = end {
            // Fails only where the reader has left, who then needs no answer.
            let _ = responses.send(Err(problem.into())).await;
        }
    }

    /// Until the reader leaves, or why the stream ends.
    async fn follow(&mut self, responses: &mpsc::Sender<Result<F::Response, Status>>) -> Result<(), Problem> {
        let mut recorded = self.api.store.changes().watch(&self.site);
        // The first response comes at once, so that the reader has a token to come back with.
        let mut heartbeat = Instant::now();
        let following = self.api.store.metrics().followers.follow(F::COUNTED);
        // Since when all that was there will have been told, when the reader has taken the response at hand.
        let mut taken = None;
        loop {
            if !self.room(responses).await? {
                return Ok(());
            }
            taken.take().into_iter().for_each(|all| following.told_all(all));
            recorded.mark_unchanged();
            let asked = std::time::Instant::now();
            let read = tokio::select! {
                () = responses.closed() => return Ok(()),
                read = self.followed.read(self.place, Instant::now()) => read,
            };
            let Batch { items, reached, more } = match read {
                // A store that is busy or restarts ends no stream, unless it takes long: nothing new is known.
                Err(problem) if self.bears(&problem) => {
                    sleep(POLL).await;
                    Batch { items: Vec::new(), reached: self.place, more: true }
                }
                read => {
                    self.trouble = None;
                    read?
                }
            };
            self.place = reached;
            let told_all = (!more).then_some(asked);
            if !items.is_empty() || Instant::now() >= heartbeat {
                let response = self.followed.response(items, self.followed.token(reached));
                // There is room: nobody else sends.
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
                heartbeat = Instant::now() + HEARTBEAT;
                taken = told_all;
            } else if let Some(all) = told_all {
                following.told_all(all);
            }
            if !more {
                tokio::select! {
                    () = responses.closed() => return Ok(()),
                    _ = timeout_at(heartbeat.min(Instant::now() + POLL), recorded.changed()) => {}
                }
            }
        }
    }

    /// Waits until the response before was taken, so that none is made before; whether the reader is still there.
    async fn room(&mut self, responses: &mpsc::Sender<Result<F::Response, Status>>) -> Result<bool, Problem> {
        loop {
            // Who does not read keeps no key alive.
            self.check_key().await?;
            if let Ok(room) = timeout(KEY_CHECK, responses.reserve()).await {
                return Ok(room.is_ok());
            }
        }
    }

    async fn check_key(&mut self) -> Result<(), Problem> {
        if self.checked.elapsed() < KEY_CHECK {
            return Ok(());
        }
        let counts = self.api.authenticator.still_counts(&self.credentials).await;
        let checked = match counts {
            Ok(()) => self.api.presence.demand(&self.site).await,
            Err(problem) => Err(problem),
        };
        match checked {
            // Nothing can be read meanwhile, either.
            Err(problem) if self.bears(&problem) => Ok(()),
            checked => {
                self.trouble = None;
                self.checked = Instant::now();
                checked
            }
        }
    }

    /// Whether the problem is that the store does not answer, and has not been for long.
    fn bears(&mut self, problem: &Problem) -> bool {
        let since = *self.trouble.get_or_insert_with(Instant::now);
        problem.reason == Reason::StoreUnavailable && since.elapsed() < PATIENCE
    }
}
