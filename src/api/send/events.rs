//! `WatchEvents`: which events a stream is about, and what is told of them. `api::follow` does the following.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::time::Instant;
use tonic::Request;
use uuid::Uuid;

use super::convert;
use crate::api::Api;
use crate::api::accounts::convert::parking as parking_to_proto;
use crate::api::fields::{self, Violations};
use crate::api::follow::{self, Batch, Followed, Place, Responses};
use crate::api::page::Tokens;
use crate::api::proto::watch_events_request::Start;
use crate::api::proto::{
    AccountEvent, Event as ProtoEvent, MessageEvent, RecipientState as ProtoState, WatchEventsRequest,
    WatchEventsResponse, account_event, event,
};
use crate::domain::access::Rpc;
use crate::domain::account::account_name;
use crate::domain::error::Problem;
use crate::domain::event::{Event, EventRecipient, KEPT};
use crate::domain::message::MessageState;
use crate::domain::site::SiteId;
use crate::metrics::Followed as Counted;
use crate::store::Store;
use crate::store::events::{self, EventFilter, StoredEvents};

/// A stream of responses.
pub(super) type EventStream = Responses<WatchEventsResponse>;

/// Rows sent in one response: one has about 30 KiB where many letters were recorded together, so that what a stream
/// holds stays below 1 MiB.
const ROWS: i64 = 16;
/// Longest tag in characters.
const MAX_TAG: usize = 64;

/// Starts a stream.
///
/// # Errors
/// `KEY_MISSING`, `PERMISSION_DENIED`, `INVALID_FIELD`, `RESUME_TOKEN_EXPIRED`.
pub(super) async fn start(
    api: &Arc<Api>,
    request: Request<WatchEventsRequest>,
) -> Result<EventStream, Problem> {
    let named = fields::site("parent", &request.get_ref().parent);
    let WatchEventsRequest { parent: _, tag, message, account, start } = request.get_ref();
    let said = |site: Option<&SiteId>| {
        let mut violations = Violations::default();
        let mut filter = parse_filter(site, tag, message, account, &mut violations);
        let mut token = None;
        match start {
            Some(Start::ResumeToken(text)) => token = Some(text.clone()),
            Some(Start::StartTime(time)) => filter.start_time = violations.time("start_time", Some(*time)),
            None => {}
        }
        violations.finish_with(Some((filter, token)))
    };
    let right = Rpc::WatchEvents.right();
    let (credentials, site, (filter, token)) = api.admit_all(request.metadata(), right, named, said).await?;
    let bound = [site.as_str(), tag, message, account].map(|part| part.as_bytes().to_vec());
    let now = api.store.clock().now();
    let watch = Watch { store: api.store.clone(), site: site.clone(), filter, bound };
    let place = match (token, watch.filter.start_time) {
        (Some(token), _) => watch.read_token(&token, now).await?,
        (None, Some(_)) => Place { position: 0, time: now },
        (None, None) => Place { position: events::last_position(&watch.store, &site).await?, time: now },
    };
    Ok(follow::follow(api, credentials, site, watch, place))
}

/// Which events a stream is about.
fn parse_filter(
    site: Option<&SiteId>,
    tag: &str,
    message: &str,
    account: &str,
    violations: &mut Violations,
) -> EventFilter {
    let tag = violations.take("tag", fields::text(tag, MAX_TAG)).filter(|tag| !tag.is_empty());
    let message = violations.within(site, "message", message, fields::message);
    let account = violations.within(site, "account", account, fields::account);
    EventFilter { tag, message, account, start_time: None }
}

struct Watch {
    store: Store,
    site: SiteId,
    filter: EventFilter,
    /// What resume tokens are bound to.
    bound: [Vec<u8>; 4],
}

impl Followed for Watch {
    const COUNTED: Counted = Counted::Events;
    type Item = ProtoEvent;
    type Response = WatchEventsResponse;

    async fn read(&self, behind: Place, _since: Instant) -> Result<Batch<ProtoEvent>, Problem> {
        let time = self.store.clock().now();
        // Asked for before the rows: whatever is at or below it is seen by the read that follows.
        let last = events::last_position(&self.store, &self.site).await?;
        if last <= behind.position {
            return Ok(Batch { items: Vec::new(), reached: Place { time, ..behind }, more: false });
        }
        let rows = events::read(&self.store, &self.site, &self.filter, behind.position + 1, ROWS).await?;
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) == ROWS;
        let reached = match rows.last() {
            Some(row) if more => Place { position: row.position, time: row.time },
            row => Place { position: row.map_or(last, |row| row.position.max(last)), time },
        };
        let mut items = Vec::new();
        for StoredEvents { position: _, time, events } in rows {
            let wanted = events.into_iter().filter(|event| self.filter.fits(event));
            items.extend(wanted.map(|event| to_proto(&self.site, time, event)));
        }
        Ok(Batch { items, reached, more })
    }

    fn token(&self, place: Place) -> String {
        self.tokens().make(&write_place(place))
    }

    fn response(&self, events: Vec<ProtoEvent>, resume_token: String) -> WatchEventsResponse {
        WatchEventsResponse { events, resume_token }
    }
}

impl Watch {
    async fn read_token(&self, token: &str, now: OffsetDateTime) -> Result<Place, Problem> {
        let first = events::first_position(&self.store, &self.site).await?;
        let place = self.tokens().read(token).and_then(|text| read_place(&text, now));
        // One of before is of another site that had this id.
        place.filter(|place| place.position >= first).ok_or_else(follow::token_expired)
    }

    fn tokens(&self) -> Tokens<'_> {
        let bound = self.bound.each_ref().map(Vec::as_slice);
        Tokens::new(self.store.vault(), "event stream", &bound)
    }
}

/// A place as tokens hold it: position and second.
fn write_place(Place { position, time }: Place) -> String {
    format!("{position}@{}", time.unix_timestamp())
}

/// The place, unless it is so old that what its reader has not been told may be gone.
fn read_place(text: &str, now: OffsetDateTime) -> Option<Place> {
    let (position, second) = text.split_once('@')?;
    let time = OffsetDateTime::from_unix_timestamp(second.parse().ok()?).ok()?;
    (now - time <= KEPT).then_some(Place { position: position.parse().ok()?, time })
}

fn to_proto(site: &SiteId, time: OffsetDateTime, event: Event) -> ProtoEvent {
    let change = match event {
        Event::Message { message, account, tags, state, recipients } => {
            event::Change::Message(of_message(site, message, account, tags, &state, recipients))
        }
        Event::Account { account, parking } => {
            let change = match parking {
                Some(parking) => account_event::Change::Parking(parking_to_proto(&parking.into())),
                None => account_event::Change::Resumed(account_event::Resumed {}),
            };
            let name = account_name(site, account);
            event::Change::Account(AccountEvent { name, change: Some(change) })
        }
    };
    ProtoEvent { time: Some(fields::to_timestamp(time)), change: Some(change) }
}

fn of_message(
    site: &SiteId,
    message: Uuid,
    account: i64,
    tags: Vec<String>,
    state: &str,
    recipients: Vec<EventRecipient>,
) -> MessageEvent {
    let recipient = |EventRecipient { address, state }: EventRecipient| ProtoState {
        address,
        state: convert::recipient_state(state).into(),
    };
    MessageEvent {
        name: format!("{}/messages/{message}", site.name()),
        state: MessageState::from_name(state).map(convert::state_to_proto).unwrap_or_default().into(),
        recipients: recipients.into_iter().map(recipient).collect(),
        account: account_name(site, account),
        tags,
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::{Place, read_place, write_place};

    #[test]
    fn places_count_for_a_day() {
        let second = OffsetDateTime::UNIX_EPOCH + Duration::seconds(1_700_000_000);
        let written = write_place(Place { position: 42, time: second + Duration::milliseconds(900) });
        let place = Some(Place { position: 42, time: second });
        for (hours, expected) in [(0, place), (24, place), (25, None), (24 * 365, None)] {
            assert_eq!(read_place(&written, second + Duration::hours(hours)), expected, "{hours}");
        }
        for wrong in ["", "42", "42@", "@1700000000", "42@x", "x@1700000000"] {
            assert_eq!(read_place(wrong, second), None, "{wrong:?}");
        }
    }
}
