//! Work of many callers, gathered into few statements: what comes while the statements before are under way goes together
//! into the next one. Nobody waits for a group to become full, so an idle server loses no time by it.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most that is worked on together.
const MOST: usize = 128;
/// A group is full when it weighs so much, in bytes.
const FULL: usize = 1024 * 1024;
/// Groups under way at once: while one waits for its commit, the next one is written.
const AT_ONCE: usize = 2;

/// One piece of work and who waits for it.
struct Asked<Job, Answer> {
    job: Job,
    weight: usize,
    answer: oneshot::Sender<Answer>,
}

/// Gathers work. It goes on as long as somebody may ask.
pub(super) struct Gatherer<Job, Answer>(mpsc::Sender<Asked<Job, Answer>>);

impl<Job: Send + 'static, Answer: Send + 'static> Gatherer<Job, Answer> {
    /// Begins to gather; `work` answers each of its jobs, in their order. Must be called within the runtime.
    pub(super) fn start<Work, Working>(work: Work) -> Self
    where
        Work: Fn(Vec<Job>) -> Working + Send + Sync + 'static,
        Working: Future<Output = Vec<Answer>> + Send + 'static,
    {
        let (sender, asked) = mpsc::channel(MOST);
        tokio::spawn(gather(asked, work));
        Self(sender)
    }

    /// Does this with what others ask for at the same time. `None` where it is not known what became of it, since the work
    /// broke off.
    pub(super) async fn ask(&self, job: Job, weight: usize) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked { job, weight, answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn gather<Job, Answer, Working>(
    mut asked: mpsc::Receiver<Asked<Job, Answer>>,
    work: impl Fn(Vec<Job>) -> Working,
) where
    Answer: Send + 'static,
    Working: Future<Output = Vec<Answer>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // The place first: what comes until there is one belongs to the group. It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Some(first) = asked.recv().await else { return };
        let mut weight = first.weight;
        let (mut jobs, mut waiting) = (vec![first.job], vec![first.answer]);
        while jobs.len() < MOST
            && weight < FULL
            && let Ok(next) = asked.try_recv()
        {
            weight += next.weight;
            jobs.push(next.job);
            waiting.push(next.answer);
        }
        let working = work(jobs);
        tokio::spawn(async move {
            for (waiting, answer) in waiting.into_iter().zip(working.await) {
                // Who does not wait any more has left.
                let _ = waiting.send(answer);
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_done_together_and_answered_each() {
        let groups = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (noted, gates) = (Arc::clone(&groups), Arc::new(Semaphore::new(0)));
        let gate = Arc::clone(&gates);
        let gatherer = Arc::new(Gatherer::start(move |jobs: Vec<usize>| {
            noted.lock().unwrap().push(jobs.len());
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                jobs.into_iter().map(|job| job * 2).collect()
            }
        }));
        let asking: Vec<_> = (0..100)
            .map(|job| {
                let gatherer = Arc::clone(&gatherer);
                tokio::spawn(async move { (job, gatherer.ask(job, 1).await) })
            })
            .collect();
        // All have asked when the two first groups are under way and nobody can run any more.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        gates.add_permits(100);
        for asked in asking {
            let (job, answer) = asked.await.unwrap();
            assert_eq!(answer, Some(job * 2));
        }
        let groups = groups.lock().unwrap();
        assert_eq!(groups.iter().sum::<usize>(), 100);
        assert!(groups.len() <= 3, "{groups:?}");
    }

    #[tokio::test]
    async fn heavy_work_does_not_go_together() {
        let gatherer = Arc::new(Gatherer::start(|jobs: Vec<()>| {
            let count = jobs.len();
            async move { vec![count; count] }
        }));
        let asked = [gatherer.ask((), FULL), gatherer.ask((), FULL), gatherer.ask((), FULL)];
        let [first, second, third] = asked;
        let (first, second, third) = tokio::join!(first, second, third);
        assert_eq!([first, second, third], [Some(1); 3]);
    }

    #[tokio::test]
    async fn work_that_breaks_off_is_told() {
        let gatherer = Gatherer::start(|_: Vec<()>| async { Vec::<()>::new() });
        assert_eq!(gatherer.ask((), 1).await, None);
    }
}
