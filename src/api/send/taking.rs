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
use crate::domain::site::SiteId;
use crate::metrics::Via;
use crate::store::messages::{self, NewMessage, Taken};
use crate::vault::Fingerprint;

/// The choice of account is made again so often, where the chosen one is changed or deleted at that very moment.
const MAX_CHOICES: usize = 3;
/// When to try again after that.
const CHOICE_RETRY: Duration = Duration::from_secs(1);
/// What the MAC over a request's content is made for.
const REQUEST_MAC: &str = "SendMessage request";

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
        self.draft.finish(api, site, self.id, self.now).await
    }

    /// Takes the letter; the id it got, now or when the same request came first.
    ///
    /// # Errors
    /// Those of [`Draft::finish`], `REQUEST_ID_REUSED`, `STORE_UNAVAILABLE`.
    pub(super) async fn take(self, api: &Api, site: &SiteId, via: Via) -> Result<Uuid, Problem> {
        let Self { id, now, draft, request } = self;
        if let Some((request_id, own)) = &request
            && let Some((id, known)) = messages::find_by_request(&api.store, site, request_id).await?
        {
            return first_result(id, &known, Some(own));
        }
        for _ in 0..MAX_CHOICES {
            let Letter { from_address, envelope_sender, account, mailing, user, terms, recipients, content } =
                draft.finish(api, site, id, now).await?;
            let Terms { copy_to_sender, send_time, expire_time, tags } = terms;
            let new = NewMessage {
                site,
                id,
                account,
                from_address: &from_address,
                envelope_sender: &envelope_sender,
                rfc_message_id: &content.message_id,
                recipients: &recipients,
                content: &content.bytes,
                eight_bit: content.eight_bit,
                utf8_headers: content.utf8_headers,
                mailing,
                user: &user,
                is_own: false,
                copy_to_sender,
                send_time,
                expire_time,
                tags: &tags,
                request: request.as_ref().map(|(id, own)| (id.as_str(), own.mac().as_slice())),
            };
            match messages::take(&api.store, &new).await? {
                Taken::Stored => {
                    api.store.metrics().delivery.accepted(via);
                    return Ok(id);
                }
                Taken::AccountChanged => {}
                Taken::RequestKnown { message, mac } => {
                    return first_result(message, &mac, request.as_ref().map(|(_, own)| own));
                }
            }
        }
        let text = "the account of this letter is being changed, try again";
        Err(Problem::new(Reason::StoreUnavailable, text).retry_after(CHOICE_RETRY))
    }
}

/// The letter that an earlier call with the same request id sent, if its content was the same.
fn first_result(id: Uuid, known: &[u8], own: Option<&Fingerprint>) -> Result<Uuid, Problem> {
    if own.is_some_and(|own| own.is(known)) {
        return Ok(id);
    }
    Err(Problem::new(Reason::RequestIdReused, "this request_id was used before, for another letter"))
}
