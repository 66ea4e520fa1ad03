//! Events: what changed, for those who watch a site.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::message::{Recipient, RecipientState};
use super::parking::{Parking, ParkingReason};

/// Events are kept so long, and so long a reader's place counts.
pub const KEPT: Duration = Duration::hours(24);

/// Something that changed, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Event {
    /// A letter's state.
    Message {
        /// The letter.
        message: Uuid,
        /// The account it goes through.
        account: i64,
        /// Its tags.
        tags: Vec<String>,
        /// Its state, by the name in the store; `queued` for one that waits for its next attempt.
        state: String,
        /// Its recipients.
        recipients: Vec<EventRecipient>,
    },
    /// An account was parked, or goes on.
    Account {
        /// The account.
        account: i64,
        /// Why it is parked; none where it goes on.
        parking: Option<EventParking>,
    },
}

/// A recipient in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecipient {
    /// The address.
    pub address: String,
    /// The state.
    pub state: RecipientState,
}

impl From<&Recipient> for EventRecipient {
    fn from(recipient: &Recipient) -> Self {
        Self { address: recipient.address.clone(), state: recipient.state }
    }
}

/// Parking in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventParking {
    /// Why.
    pub reason: ParkingReason,
    /// When the account is probed.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    /// The server's words, or what happened instead.
    pub error: String,
}

impl From<Parking> for EventParking {
    fn from(parking: Parking) -> Self {
        let Parking { reason, until, error } = parking;
        Self { reason, until, error }
    }
}

impl From<EventParking> for Parking {
    fn from(parking: EventParking) -> Self {
        let EventParking { reason, until, error } = parking;
        Self { reason, until, error }
    }
}
