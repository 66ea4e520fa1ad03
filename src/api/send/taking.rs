//! One letter on its way into the store, for `SendMessage` and for each item of `SendMessages`: the same parsing, the same
//! request ids.

use std::time::Duration;

use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::letter::{self, Draft, Letter};
use super::terms::Terms;
use crate::api::Api;
use crate::api::fields::{self, Violations};
use crate::api::proto::Message as ProtoMessage;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::{Message, MessageState};
use crate::domain::site::SiteId;
use crate::metrics::Via;
use crate::store::messages;
use crate::store::routes::{self, Question, Route};
use crate::store::taking::{self, NewMessage, Stored, Taken};
use crate::vault::Fingerprint;

/// The choice of account is made again so often, where the chosen one is changed or deleted at that very moment.
const MAX_CHOICES: usize = 3;
/// When to try again after that.
const CHOICE_RETRY: Duration = Duration::from_secs(1);
/// What the MAC over a request's content is made for.
const REQUEST_MAC: &str = "SendMessage request";

/// A letter that was taken.
pub(super) enum Sent {
    /// By this call.
    Now(Box<Message>),
    /// By an earlier call with the same request id.
    Before(Uuid),
}

impl Sent {
    /// Its id.
    pub(super) fn id(&self) -> Uuid {
        match self {
            Self::Now(message) => message.id,
            Self::Before(id) => *id,
        }
    }
}

/// A letter that is to be taken, parsed.
pub(super) struct Taking {
    /// The id it gets.
    id: Uuid,
    /// When it came.
    now: OffsetDateTime,
    draft: Draft,
    /// The request id and the MAC of the content.
    request: Option<(String, Fingerprint)>,
}

impl Taking {
    /// Parses letter and request id; notes everything that is wrong, and may be `None` then.
    pub(super) fn parse(
        api: &Api,
        site: Option<&SiteId>,
        message: Option<ProtoMessage>,
        request_id: &str,
        violations: &mut Violations,
    ) -> Option<Self> {
        let (id, now) = (Uuid::now_v7(), api.store.clock().now());
        let request_id = violations.take("request_id", fields::request_id(request_id)).flatten();
        if message.is_none() {
            violations.add("message", "must be set");
        }
        let fingerprint =
            |message: &ProtoMessage| api.store.vault().fingerprint(REQUEST_MAC, &message.encode_to_vec());
        let request =
            request_id.zip(message.as_ref()).map(|(id, message)| (id.to_owned(), fingerprint(message)));
        let draft = letter::parse(site, message?, id, now, violations)?;
        Some(Self { id, now, draft, request })
    }

    /// Chooses the account and puts the letter together, and stores nothing.
    ///
    /// # Errors
    /// Those of [`Draft::finish`].
    pub(super) async fn validate(&self, api: &Api, site: &SiteId) -> Result<Letter, Problem> {
        let route = self.route(api, site).await?;
        self.draft.finish(api, site, route, self.id, self.now).await
    }

    /// Takes the letter; as it is stored now, or the id it got when the same request came first.
    ///
    /// # Errors
    /// Those of [`Draft::finish`], `REQUEST_ID_REUSED`, `STORE_UNAVAILABLE`.
    pub(super) async fn take(self, api: &Api, site: &SiteId, via: Via) -> Result<Sent, Problem> {
        for _ in 0..MAX_CHOICES {
            let route = self.route(api, site).await?;
            let Self { id, now, draft, request } = &self;
            let own = request.as_ref().map(|(_, own)| own);
            let letter = match draft.finish(api, site, route, *id, *now).await {
                Ok(letter) => letter,
                // What could not be sent now may have been taken when it could.
                Err(problem) => return self.before(api, site).await?.ok_or(problem)?,
            };
            let mac = |(id, own): &(String, Fingerprint)| (id.clone(), own.mac().to_vec());
            let new = new_message(site, *id, letter, request.as_ref().map(mac));
            match taking::take(&api.store, &new).await? {
                Taken::Stored(stored) => {
                    api.store.metrics().delivery.accepted(via);
                    return Ok(Sent::Now(Box::new(message(new, stored))));
                }
                Taken::AccountChanged => {}
                Taken::RequestKnown { message, mac } => return first_result(message, &mac, own),
            }
        }
        let text = "the account of this letter is being changed, try again";
        Err(Problem::new(Reason::StoreUnavailable, text).retry_after(CHOICE_RETRY))
    }

    /// What became of the request if it came before.
    async fn before(&self, api: &Api, site: &SiteId) -> Result<Option<Result<Sent, Problem>>, Problem> {
        let Some((id, own)) = &self.request else { return Ok(None) };
        let known = messages::find_by_request(&api.store, site, id).await?;
        Ok(known.map(|(first, mac)| first_result(first, &mac, Some(own))))
    }

    /// What the account is chosen from.
    async fn route(&self, api: &Api, site: &SiteId) -> Result<Route, Problem> {
        let question = Question {
            site: site.clone(),
            sender_key: self.draft.sender_key(),
            user: self.draft.user().to_owned(),
        };
        Ok(routes::find(&api.store, question).await?)
    }
}

/// A letter as it is stored.
fn new_message(site: &SiteId, id: Uuid, letter: Letter, request: Option<(String, Vec<u8>)>) -> NewMessage {
    let Letter { from_address, envelope_sender, account, mailing, user, terms, recipients, content } = letter;
    let Terms { copy_to_sender, send_time, expire_time, tags } = terms;
    NewMessage {
        site: site.clone(),
        id,
        account,
        from_address,
        envelope_sender,
        rfc_message_id: content.message_id,
        recipients,
        content: content.bytes.into(),
        eight_bit: content.eight_bit,
        utf8_headers: content.utf8_headers,
        mailing,
        user,
        is_own: false,
        copy_to_sender,
        send_time,
        expire_time,
        tags,
        request,
    }
}

/// A letter as it is told a moment after it was stored.
fn message(new: NewMessage, stored: Stored) -> Message {
    Message {
        site: new.site,
        id: new.id,
        account: new.account,
        mailing: new.mailing,
        user: new.user,
        copy_to_sender: new.copy_to_sender,
        send_time: new.send_time,
        expire_time: new.expire_time,
        tags: new.tags,
        from_address: new.from_address,
        message_id: new.rfc_message_id,
        recipients: new.recipients,
        attempts: Vec::new(),
        state: MessageState::Queued,
        next_attempt_time: Some(stored.due),
        create_time: stored.create_time,
        final_time: None,
        size_bytes: i64::try_from(new.content.len()).unwrap_or(i64::MAX),
    }
}

/// The letter that an earlier call with the same request id sent, if its content was the same.
fn first_result(id: Uuid, known: &[u8], own: Option<&Fingerprint>) -> Result<Sent, Problem> {
    if own.is_some_and(|own| own.is(known)) {
        return Ok(Sent::Before(id));
    }
    Err(Problem::new(Reason::RequestIdReused, "this request_id was used before, for another letter"))
}
