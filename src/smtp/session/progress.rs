//! How far an opening session came, and how long each step took; what a check reports.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::outcome::Step;
use crate::domain::reply::Reply;

/// The steps in the order in which they are reported.
pub(in crate::smtp) const LADDER: [Step; 7] =
    [Step::Resolve, Step::Connect, Step::Tls, Step::Hello, Step::Auth, Step::Envelope, Step::TestLetter];

/// The state of one step.
#[derive(Clone, Debug, Default)]
pub(in crate::smtp) struct Rung {
    /// Time spent in it, in one go or several: with STARTTLS there are two EHLOs.
    pub(in crate::smtp) spent: Duration,
    /// What proved it, once it is passed.
    pub(in crate::smtp) passed: Option<Reply>,
}

/// The clock of the ladder.
pub(in crate::smtp) struct Progress {
    current: Step,
    since: Instant,
    rungs: [Rung; LADDER.len()],
}

impl Progress {
    pub(in crate::smtp) fn new() -> Self {
        Self { current: Step::Resolve, since: Instant::now(), rungs: Default::default() }
    }

    /// The step that runs.
    pub(in crate::smtp) fn current(&self) -> Step {
        self.current
    }

    /// Goes on to a step; the time until now belongs to the one before.
    pub(in crate::smtp) fn enter(&mut self, step: Step) {
        let now = Instant::now();
        let spent = now.duration_since(self.since);
        self.rungs[index(self.current)].spent += spent;
        self.current = step;
        self.since = now;
    }

    /// The step that runs is passed.
    pub(in crate::smtp) fn pass(&mut self, proof: Reply) {
        self.rungs[index(self.current)].passed = Some(proof);
        self.enter(self.current);
    }

    pub(in crate::smtp) fn rung(&self, step: Step) -> &Rung {
        &self.rungs[index(step)]
    }
}

/// Content and acceptance are beyond the ladder; they count as its end.
const fn index(step: Step) -> usize {
    match step {
        Step::Resolve => 0,
        Step::Connect => 1,
        Step::Tls => 2,
        Step::Hello => 3,
        Step::Auth => 4,
        Step::Envelope => 5,
        Step::TestLetter | Step::Content | Step::Acceptance => 6,
    }
}
