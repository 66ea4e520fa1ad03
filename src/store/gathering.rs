//! Work of many callers, gathered into few statements: what comes while the statements before are under way goes together
//! into the next one. Nobody waits for a group to become full, so an idle server loses no time by it.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Most that is worked on together.
const MOST: usize = 128;
/// A group is full when it weighs so much, in bytes.
const FULL: usize = 1024 * 1024;

/// Why a piece of work was not done with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The database does not answer: nobody need ask it again at once.
    Unavailable,
    /// By itself it may be done: the fault may be another's.
    Refused,
}

impl Broken {
    /// What the caller is told of a database that does not answer.
    pub(super) fn unavailable() -> StoreError {
        StoreError::Unavailable(sqlx::Error::WorkerCrashed)
    }
}

/// One piece of work and who waits for it.
struct Asked<Job, Answer> {
    job: Job,
    weight: usize,
    since: Instant,
    answer: oneshot::Sender<Result<Answer, Broken>>,
}

/// Gathers work. It goes on as long as somebody may ask.
pub(super) struct Gatherer<Job, Answer>(mpsc::Sender<Asked<Job, Answer>>);

impl<Job: Send + 'static, Answer: Send + 'static> Gatherer<Job, Answer> {
    /// Begins to gather; `work` answers each of its jobs, in their order. Must be called within the runtime.
    pub(super) fn start<Work, Working>(work: Work) -> Self
    where
        Work: Fn(Vec<Job>) -> Working + Send + Sync + 'static,
        Working: Future<Output = Result<Vec<Answer>, StoreError>> + Send + 'static,
    {
        let (sender, asked) = mpsc::channel(MOST);
        tokio::spawn(gather(asked, work));
        Self(sender)
    }

    /// Does this with what others ask for at the same time.
    ///
    /// # Errors
    /// Where the group broke off; what became of this is not known then.
    pub(super) async fn ask(&self, job: Job, weight: usize) -> Result<Answer, Broken> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { job, weight, since: Instant::now(), answer };
        self.0.send(asked).await.map_err(|_| Broken::Refused)?;
        answered.await.unwrap_or(Err(Broken::Refused))
    }
}

/// One group after the other: two at once would be half as large, and cost the database nearly twice as much.
async fn gather<Job, Answer, Working>(
    mut asked: mpsc::Receiver<Asked<Job, Answer>>,
    work: impl Fn(Vec<Job>) -> Working,
) where
    Answer: Send + 'static,
    Working: Future<Output = Result<Vec<Answer>, StoreError>> + Send + 'static,
{
    let mut outage: Option<Instant> = None;
    while let Some(first) = asked.recv().await {
        let (mut jobs, mut waiting, mut weight) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(Asked { job, weight: own, since, answer }) = next {
            if outage.is_some_and(|told| since < told) {
                // It waited for a group that had no answer: it is not to wait as long once more.
                let _ = answer.send(Err(Broken::Unavailable));
            } else {
                jobs.push(job);
                waiting.push(answer);
                weight += own;
            }
            let is_room = jobs.len() < MOST && weight < FULL;
            next = if is_room { asked.try_recv().ok() } else { None };
        }
        if jobs.is_empty() {
            continue;
        }
        // A task of its own: should it panic, the next group is worked on all the same.
        match tokio::spawn(work(jobs)).await {
            Ok(Ok(answers)) => {
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    // Who does not wait any more has left.
                    let _ = waiting.send(Ok(answer));
                }
            }
            Ok(Err(error)) => {
                let count = waiting.len();
                tracing::warn!(error = &error as &dyn std::error::Error, count, "a group of work broke off");
                let broken = if matches!(error, StoreError::Unavailable(_)) {
                    outage = Some(Instant::now());
                    Broken::Unavailable
                } else {
                    Broken::Refused
                };
                for waiting in waiting {
                    let _ = waiting.send(Err(broken));
                }
            }
            // Each is told so by itself, and may be done alone.
            Err(error) => tracing::error!(%error, "a group of work failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_done_together_and_answered_each() {
        let groups = Arc::new(Mutex::new(Vec::new()));
        let (noted, gates) = (Arc::clone(&groups), Arc::new(Semaphore::new(0)));
        let gate = Arc::clone(&gates);
        let gatherer = Arc::new(Gatherer::start(move |jobs: Vec<usize>| {
            noted.lock().unwrap().push(jobs.len());
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(jobs.into_iter().map(|job| job * 2).collect())
            }
        }));
        let asking: Vec<_> = (0..100)
            .map(|job| {
                let gatherer = Arc::clone(&gatherer);
                tokio::spawn(async move { (job, gatherer.ask(job, 1).await) })
            })
            .collect();
        // All have asked when the first group is under way and nobody can run any more.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        gates.add_permits(100);
        for asked in asking {
            let (job, answer) = asked.await.unwrap();
            assert_eq!(answer, Ok(job * 2));
        }
        let groups = groups.lock().unwrap();
        assert_eq!(groups.iter().sum::<usize>(), 100);
        assert!(groups.len() <= 2, "{groups:?}");
    }

    #[tokio::test]
    async fn heavy_work_does_not_go_together() {
        let gatherer = Arc::new(Gatherer::start(|jobs: Vec<()>| {
            let count = jobs.len();
            async move { Ok(vec![count; count]) }
        }));
        let asked = [gatherer.ask((), FULL), gatherer.ask((), FULL), gatherer.ask((), FULL)];
        let [first, second, third] = asked;
        let (first, second, third) = tokio::join!(first, second, third);
        assert_eq!([first, second, third], [Ok(1); 3]);
    }

    #[tokio::test]
    async fn work_that_breaks_off_is_told() {
        let gatherer = Gatherer::start(|_: Vec<()>| async { Ok(Vec::<()>::new()) });
        assert_eq!(gatherer.ask((), 1).await, Err(Broken::Refused));
        let gatherer = Gatherer::start(|_: Vec<()>| async { Err::<Vec<()>, _>(StoreError::Corrupt("job")) });
        assert_eq!(gatherer.ask((), 1).await, Err(Broken::Refused));
    }

    #[tokio::test]
    async fn who_waited_for_a_database_that_did_not_answer_waits_no_longer() {
        let gates = Arc::new(Semaphore::new(0));
        let (gate, groups) = (Arc::clone(&gates), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&groups);
        let gatherer = Arc::new(Gatherer::start(move |_: Vec<()>| {
            *counted.lock().unwrap() += 1;
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Err::<Vec<()>, _>(Broken::unavailable())
            }
        }));
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let gatherer = Arc::clone(&gatherer);
                tokio::spawn(async move { gatherer.ask((), 1).await })
            })
            .collect();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let begun = *groups.lock().unwrap();
        gates.add_permits(begun);
        for asked in asking {
            assert_eq!(asked.await.unwrap(), Err(Broken::Unavailable));
        }
        assert_eq!(*groups.lock().unwrap(), begun, "nobody asked again for those who had waited");
    }
}
