//! Parking: an account that is at fault keeps its mail waiting until it works again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Why an account is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkingReason {
    /// The server refuses the login.
    AuthFailed,
    /// Nobody answers, several times in a row.
    Unreachable,
    /// A limit of the provider is used up.
    Quota,
    /// Anything else that only a change of the account, or of the server, can mend.
    Configuration,
}

impl ParkingReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AuthFailed, Self::Unreachable, Self::Quota, Self::Configuration];

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthFailed => "auth_failed",
            Self::Unreachable => "unreachable",
            Self::Quota => "quota",
            Self::Configuration => "configuration",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// That an account is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parking {
    /// Why.
    pub reason: ParkingReason,
    /// When it is probed with one letter.
    pub until: OffsetDateTime,
    /// The server's words, or what happened instead.
    pub error: String,
}

/// The waits between probes of a parked account: each twice as long as the one before.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first.
    pub first: Duration,
    /// The longest.
    pub most: Duration,
}

impl Backoff {
    /// The waits that go with the operator's smallest retry interval: from a thirtieth of it up to all of it.
    #[must_use]
    pub fn of_floor(floor: Duration) -> Self {
        const SHORTEST: Duration = Duration::from_millis(200);
        Self { first: (floor / 30).max(SHORTEST), most: floor.max(SHORTEST) }
    }

    /// How often mail is looked for that has waited too long: as often as the first probe comes, but not all the time.
    #[must_use]
    pub fn sweep(&self) -> Duration {
        self.first.max(Duration::from_secs(1))
    }

    /// The wait behind so many failed probes; `jitter`, from 0 to 1, adds up to a tenth of it.
    #[must_use]
    pub fn wait(&self, probes: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(probes.min(20)));
        doubled.min(self.most).mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn probes_become_rare() {
        let backoff = Backoff::of_floor(Duration::from_mins(30));
        for (probes, minutes) in [(0, 1), (1, 2), (3, 8), (5, 30), (4_000_000_000, 30)] {
            assert_eq!(backoff.wait(probes, 0.0), Duration::from_mins(minutes), "{probes}");
        }
        assert_eq!(backoff.wait(0, 1.0), Duration::from_secs(66));
    }
}
