//! Events of a site: what changed, a row a transaction, kept for a day.

use sqlx::types::Json;
use sqlx::{query, query_scalar};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, positions};
use crate::domain::event::Event;
use crate::domain::site::SiteId;

/// A row is full when its events name so many recipients, so that a reader can be given a few rows at once whatever
/// they hold; a batch of ordinary letters is one row.
const RECIPIENTS_A_ROW: usize = 256;

/// Events that changed together.
#[derive(Clone, Debug)]
pub struct StoredEvents {
    /// Their place among all events of their site.
    pub position: i64,
    /// When.
    pub time: OffsetDateTime,
    /// What changed.
    pub events: Vec<Event>,
}

/// Which events to read; all that is set must fit.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only of letters with this tag.
    pub tag: Option<String>,
    /// Only of this letter.
    pub message: Option<Uuid>,
    /// Only of this account and of letters that go through it.
    pub account: Option<i64>,
    /// Only of this time or later.
    pub start_time: Option<OffsetDateTime>,
}

impl EventFilter {
    /// Whether the event is one of those; their time is not looked at.
    #[must_use]
    pub fn fits(&self, event: &Event) -> bool {
        let Self { tag, message, account, start_time: _ } = self;
        match event {
            Event::Message { message: of, account: through, tags, state: _, recipients: _ } => {
                tag.as_ref().is_none_or(|tag| tags.contains(tag))
                    && message.is_none_or(|message| message == *of)
                    && account.is_none_or(|account| account == *through)
            }
            Event::Account { account: of, parking: _ } => {
                tag.is_none() && message.is_none() && account.is_none_or(|account| account == *of)
            }
        }
    }

    /// What a row contains in which any event fits; `None` where every event does.
    fn contained(&self) -> Option<serde_json::Value> {
        let Self { tag, message, account, start_time: _ } = self;
        let mut event = serde_json::Map::new();
        if let Some(tag) = tag {
            event.insert("tags".to_owned(), serde_json::json!([tag]));
        }
        if let Some(message) = message {
            event.insert("message".to_owned(), serde_json::json!(message));
        }
        if let Some(account) = account {
            event.insert("account".to_owned(), serde_json::json!(account));
        }
        (!event.is_empty()).then(|| serde_json::json!([event]))
    }
}

/// Tells of what changed, inside the transaction that changes it.
pub(super) async fn append(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    events: &[Event],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    positions::lock(&mut *connection, site).await?;
    insert(connection, site, events).await
}

/// The same in a transaction that holds the site's lock of positions.
pub(super) async fn insert(
    connection: &mut sqlx::PgConnection,
    site: &SiteId,
    events: &[Event],
) -> Result<(), StoreError> {
    let rows: Vec<Json<&[Event]>> = rows(events).into_iter().map(Json).collect();
    if rows.is_empty() {
        return Ok(());
    }
    // The clock's time, not the transaction's: under the lock times grow as positions do.
    query!(
        "insert into events (site_id, time, items)
         select $1, clock_timestamp(), items
         from unnest($2::jsonb[]) with ordinality as n (items, place)
         order by place",
        site.as_str(),
        rows as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The events cut into rows.
fn rows(events: &[Event]) -> Vec<&[Event]> {
    let mut rows = Vec::new();
    let (mut first, mut recipients) = (0, 0);
    for (number, event) in events.iter().enumerate() {
        recipients += match event {
            Event::Message { recipients, .. } => recipients.len(),
            Event::Account { .. } => 0,
        };
        if recipients >= RECIPIENTS_A_ROW {
            rows.push(&events[first..=number]);
            (first, recipients) = (number + 1, 0);
        }
    }
    if first < events.len() {
        rows.push(&events[first..]);
    }
    rows
}

/// The highest position of a site's events so far, or that from which the site began; 0 where there is no such site.
///
/// # Errors
/// When the database does not answer.
pub async fn last_position(store: &Store, site: &SiteId) -> Result<i64, StoreError> {
    let position = query_scalar!(
        r#"select greatest(first_position, (select max(position) from events where site_id = $1)) as "last!"
           from sites
           where site_id = $1"#,
        site.as_str(),
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(position.unwrap_or(0))
}

/// The position from which a site began: what lies before it is of another one that had its id. 0 where there is no such
/// site.
///
/// # Errors
/// When the database does not answer.
pub async fn first_position(store: &Store, site: &SiteId) -> Result<i64, StoreError> {
    let position = query_scalar!("select first_position from sites where site_id = $1", site.as_str())
        .fetch_optional(&store.pool)
        .await?;
    Ok(position.unwrap_or(0))
}

/// Up to `limit` rows at or behind the position `from` in which some event fits, oldest first; with all their events.
///
/// # Errors
/// When the database does not answer.
pub async fn read(
    store: &Store,
    site: &SiteId,
    filter: &EventFilter,
    from: i64,
    limit: i64,
) -> Result<Vec<StoredEvents>, StoreError> {
    let rows = query!(
        r#"select position, time, items as "items: Json<Vec<Event>>"
           from events
           where site_id = $1
             and position >= $2
             and ($3::jsonb is null or items @> $3)
             and ($4::timestamptz is null or time >= $4)
           order by position
           limit $5"#,
        site.as_str(),
        from,
        filter.contained(),
        filter.start_time,
        limit,
    )
    .fetch_all(&store.pool)
    .await?;
    let stored = rows.into_iter().map(|row| StoredEvents {
        position: row.position,
        time: row.time,
        events: row.items.0,
    });
    Ok(stored.collect())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{EventFilter, rows};
    use crate::domain::event::{Event, EventRecipient};
    use crate::domain::message::RecipientState;

    fn letter(recipients: usize) -> Event {
        let recipient = EventRecipient { address: "a@example.org".to_owned(), state: RecipientState::Sent };
        Event::Message {
            message: Uuid::from_u128(7),
            account: 3,
            tags: vec!["a".to_owned(), "b".to_owned()],
            state: "sent".to_owned(),
            recipients: vec![recipient; recipients],
        }
    }

    #[test]
    fn an_ordinary_batch_is_one_row_and_a_large_one_is_several() {
        let sizes = |recipients: &[usize]| -> Vec<usize> {
            let events: Vec<Event> = recipients.iter().copied().map(letter).collect();
            rows(&events).into_iter().map(<[Event]>::len).collect()
        };
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[1; 128]), [128]);
        assert_eq!(sizes(&[1_001, 1_001, 1]), [1, 1, 1]);
        assert_eq!(sizes(&[1, 200, 100, 1, 255]), [3, 2]);
    }

    #[test]
    fn all_that_is_set_must_fit() {
        let account = Event::Account { account: 3, parking: None };
        let all = EventFilter::default();
        assert!(all.fits(&letter(1)) && all.fits(&account) && all.contained().is_none());
        for (tag, message, through, fits) in [
            (Some("b"), None, None, [true, false]),
            (Some("c"), None, None, [false, false]),
            (None, Some(7), None, [true, false]),
            (None, Some(8), None, [false, false]),
            (None, None, Some(3), [true, true]),
            (None, None, Some(4), [false, false]),
            (Some("a"), Some(7), Some(3), [true, false]),
            (Some("a"), Some(7), Some(4), [false, false]),
        ] {
            let filter = EventFilter {
                tag: tag.map(str::to_owned),
                message: message.map(Uuid::from_u128),
                account: through,
                start_time: None,
            };
            assert_eq!([filter.fits(&letter(1)), filter.fits(&account)], fits, "{filter:?}");
        }
    }
}
