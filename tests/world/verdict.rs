//! The ledgers held against each other: what was accepted, what the servers say became of it, and what the catcher took.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::{Message, attempt, recipient};

use crate::caller::Ledger;
use crate::catcher::{Catcher, Ended, Said, Taken};
use crate::chronicle::{Chronicle, Event};

/// How far the end of a connection may be seen from the kill that caused it, on a busy machine.
const NEAR: Duration = Duration::from_secs(2);
/// The shortest lease (DESIGN 6): while the store is away for less, nobody else sends a letter again.
const LEASE: Duration = Duration::from_secs(20);
/// How well clocks agree.
const TICK: Duration = Duration::from_millis(500);
/// Cases of each kind that are shown.
const SHOWN: usize = 5;

/// Why a letter was taken twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cause {
    /// The server that had sent it was killed before the outcome was recorded.
    Killed,
    /// The catcher took it and cut the connection instead of saying so.
    NotTold,
    /// The outcome could not be recorded as the database was away, and the server was killed or its lease ran out.
    NotRecorded,
    /// None of these.
    Unknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "the server was killed between the dot and the record",
            Self::NotTold => "the mail server took it and did not say so",
            Self::NotRecorded => "the database was away between the dot and the end of the server",
            Self::Unknown => "no cause is known",
        })
    }
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Letters accepted.
    pub(crate) accepted: usize,
    /// Letters by their final state.
    pub(crate) states: BTreeMap<String, usize>,
    /// Transactions that the catcher took.
    pub(crate) transactions: usize,
    /// Recipients who never got a letter that was accepted, and whom nobody was told of.
    pub(crate) lost: Vec<String>,
    /// Recipients said to have a letter that never came.
    pub(crate) claimed: Vec<String>,
    /// Letters that nobody handed in.
    pub(crate) unknown: Vec<String>,
    /// Letters accepted under two names.
    pub(crate) two_names: usize,
    /// Copies too many (for each recipient), by cause.
    pub(crate) doubled: BTreeMap<Cause, usize>,
    /// Of those whose server was killed while the database was there: from the dot to the kill.
    pub(crate) gaps: Vec<Duration>,
    /// Doubles that nothing explains, in words.
    pub(crate) unexplained: Vec<String>,
    /// Of the copies too many, those of sites that hold what is uncertain.
    pub(crate) doubled_though_held: usize,
    /// Letters that were sent before their time.
    pub(crate) early: Vec<String>,
    /// The most attempts that a letter needed.
    pub(crate) most_attempts: usize,
}

impl Verdict {
    /// Holds the ledgers against each other.
    pub(crate) fn reach(
        ledger: &Ledger,
        letters: &HashMap<String, Message>,
        catcher: &Catcher,
        chronicle: &Chronicle,
        held: &[String],
    ) -> Self {
        let (taken, ends, events) = (catcher.taken(), catcher.connections(), chronicle.events());
        let mut verdict =
            Self { accepted: ledger.accepted.len(), transactions: taken.len(), ..Self::default() };
        let mut copies: HashMap<(&str, &str), Vec<&Taken>> = HashMap::new();
        for letter in &taken {
            for recipient in &letter.recipients {
                copies.entry((bare(&letter.message_id), recipient)).or_default().push(letter);
            }
        }
        let mut names = HashSet::new();
        let mut ids = HashMap::new();
        for accepted in &ledger.accepted {
            verdict.two_names += usize::from(!names.insert(&accepted.name));
            let id = bare(&accepted.message_id);
            ids.insert(id, accepted);
            let Some(message) = letters.get(&accepted.name) else {
                verdict
                    .lost
                    .push(format!("{} of {}: the servers do not know it", accepted.name, accepted.site));
                continue;
            };
            *verdict.states.entry(format!("{:?}", message.state())).or_default() += 1;
            verdict.most_attempts = verdict.most_attempts.max(message.attempts.len());
            for address in &accepted.recipients {
                let came = copies.get(&(id, address.as_str())).map_or(0, Vec::len);
                let told = message
                    .recipients
                    .iter()
                    .find(|r| &r.address == address)
                    .map(postroom::api::proto::Recipient::state);
                match told {
                    Some(recipient::State::Sent) if came == 0 => {
                        verdict.claimed.push(format!("{} to {address}", accepted.name));
                    }
                    Some(recipient::State::Pending) | None if came == 0 => {
                        verdict.lost.push(format!("{} to {address}: {told:?}", accepted.name));
                    }
                    _ => {}
                }
            }
        }
        let by_id: HashMap<&str, &Message> = letters.values().map(|m| (bare(&m.message_id), m)).collect();
        for ((id, recipient), copies) in &copies {
            let accepted = ids.get(id);
            if accepted.is_none() {
                verdict.unknown.push(format!("{id} to {recipient}"));
            }
            let not_before = accepted.and_then(|accepted| accepted.not_before);
            if let (Some(first), Some(not_before)) = (copies.first(), not_before)
                && first.at + TICK < not_before
            {
                verdict.early.push(format!("{id} to {recipient}: {:?}", not_before - first.at));
            }
            let is_held = accepted.is_some_and(|accepted| held.contains(&accepted.site));
            verdict.doubled_though_held += if is_held { copies.len() - 1 } else { 0 };
            for pair in copies.windows(2) {
                let [first, second] = pair else { continue };
                let message = by_id.get(id);
                let interrupted = message.is_some_and(|message| {
                    message.attempts.iter().any(|attempt| attempt.outcome() == attempt::Outcome::Interrupted)
                });
                let cause = verdict.explain(first, second, interrupted, &ends, &events);
                if cause == Cause::Unknown {
                    let attempts = message.map(|message| outcomes(message));
                    let end = ends.get(first.connection).copied().flatten();
                    verdict.unexplained.push(format!(
                        "{id} to {recipient}: again after {:?}, the first connection ended {:?} later, attempts {attempts:?}",
                        second.at - first.at,
                        end.map(|end| end.at.saturating_duration_since(first.at)),
                    ));
                }
                *verdict.doubled.entry(cause).or_default() += 1;
            }
        }
        verdict
    }

    fn explain(
        &mut self,
        first: &Taken,
        second: &Taken,
        interrupted: bool,
        ends: &[Option<Ended>],
        events: &[(Instant, Event)],
    ) -> Cause {
        if first.said == Said::Nothing {
            return Cause::NotTold;
        }
        let kills = || events.iter().filter(|(_, event)| *event == Event::Killed).map(|(at, _)| *at);
        let end = ends.get(first.connection).copied().flatten();
        let cut = end.filter(|end| !end.in_order).map(|end| end.at);
        let killed = cut.filter(|cut| kills().any(|kill| kill <= *cut + NEAR && *cut <= kill + NEAR));
        // Where the session had ended in order, the server may have been killed at any time until the letter came again.
        let until = killed.or_else(|| kills().find(|kill| first.at <= *kill && *kill <= second.at));
        if let Some(until) = until
            && away(events, first.at, until) > Duration::ZERO
        {
            return Cause::NotRecorded;
        }
        if let Some(killed) = killed {
            self.gaps.push(killed.saturating_duration_since(first.at));
            return Cause::Killed;
        }
        // The session was over, the outcome still waiting to be recorded: then the attempt counts as interrupted.
        let is_over = end.is_some_and(|end| end.in_order);
        if let Some(until) = until
            && is_over
            && interrupted
            && until.saturating_duration_since(first.at) < LEASE
        {
            self.gaps.push(until.saturating_duration_since(first.at));
            return Cause::Killed;
        }
        if away(events, first.at, second.at) >= LEASE {
            return Cause::NotRecorded;
        }
        Cause::Unknown
    }

    /// Copies too many.
    pub(crate) fn doubles(&self) -> usize {
        self.doubled.values().sum()
    }

    /// What no fault of the world excuses; empty where all is well.
    pub(crate) fn faults(&self, ledger: &Ledger) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |what: &str, cases: &[String]| {
            if !cases.is_empty() {
                let shown = cases.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
                faults.push(format!("{} {what}: {shown}", cases.len()));
            }
        };
        check("lost", &self.lost);
        check("said to be sent that never came", &self.claimed);
        check("came that nobody handed in", &self.unknown);
        check("doubled without a cause", &self.unexplained);
        check("sent before their time", &self.early);
        check("refused to a caller", &ledger.refused);
        if self.doubled_though_held > 0 {
            faults.push(format!("{} doubled although letters are held", self.doubled_though_held));
        }
        if self.two_names > 0 {
            faults.push(format!("{} requests answered with the name of another", self.two_names));
        }
        faults
    }
}

/// How long the database was away within this time.
fn away(events: &[(Instant, Event)], from: Instant, to: Instant) -> Duration {
    let mut gone_since = None;
    let mut away = Duration::ZERO;
    for (at, event) in events {
        match event {
            Event::DatabaseGone => gone_since = Some(*at),
            Event::DatabaseBack => {
                let Some(gone) = gone_since.take() else { continue };
                away += (*at).min(to).saturating_duration_since(gone.max(from));
            }
            Event::Killed | Event::Stopped => {}
        }
    }
    away
}

/// A Message-ID without its brackets.
fn bare(message_id: &str) -> &str {
    message_id.trim().trim_start_matches('<').trim_end_matches('>')
}

fn outcomes(message: &Message) -> (State, Vec<attempt::Outcome>) {
    (message.state(), message.attempts.iter().map(postroom::api::proto::Attempt::outcome).collect())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted {}, transactions {}, final states {:?}",
            self.accepted, self.transactions, self.states
        )?;
        writeln!(
            f,
            "lost {}, said to be sent that never came {}, unknown {}, most attempts {}",
            self.lost.len(),
            self.claimed.len(),
            self.unknown.len(),
            self.most_attempts
        )?;
        write!(f, "doubled {} {:?}", self.doubles(), self.doubled)?;
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        let at = |share: usize| gaps.get((gaps.len().max(1) - 1) * share / 100).copied().unwrap_or_default();
        if !gaps.is_empty() {
            write!(f, "; from the dot to the kill p50 {:?}, p99 {:?}, most {:?}", at(50), at(99), at(100))?;
        }
        Ok(())
    }
}

/// What the callers went through, in a line.
pub(crate) fn of_callers(ledger: &Ledger) -> String {
    format!(
        "calls made again {:?}, longest way to an answer {:?}, slowest UNAVAILABLE {:?}, without RetryInfo {}",
        ledger.again, ledger.longest, ledger.slowest_no, ledger.without_retry_info
    )
}
