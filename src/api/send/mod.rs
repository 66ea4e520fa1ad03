//! `SendService`: letters are taken, found and listed.

mod cancel;
mod content;
mod convert;
mod events;
mod letter;
mod retry;
mod selection;
mod stream;
mod taking;
mod terms;

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use self::letter::Letter;
use self::taking::{Sent, Taking};
use self::terms::Terms;
use super::admission::Reception;
use super::fields::{self, Violations};
use super::page::{self, Page, Tokens};
use super::proto::send_service_server::SendService;
use super::proto::{
    CancelMessageRequest, CancelMessageResponse, CancelMessagesRequest, CancelMessagesResponse,
    GetMessageContentRequest, GetMessageRequest, GetMessageResponse, ListMessagesRequest,
    ListMessagesResponse, Message as ProtoMessage, RetryMessageRequest, RetryMessageResponse,
    RetryMessagesRequest, RetryMessagesResponse, SendMessageRequest, SendMessageResponse,
    SendMessagesRequest, WatchEventsRequest,
};
use super::{Api, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::account::account_name;
use crate::domain::address::Mailbox;
use crate::domain::error::Problem;
use crate::domain::message::{Message, MessageState};
use crate::domain::site::SiteId;
use crate::metrics::Via;
use crate::store::messages::{self, MessageFilter};

/// Longest `wait` of `SendMessage`.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// While a call waits it looks at the table so often, should it miss a wake-up.
const WAIT_POLL: Duration = Duration::from_secs(1);
/// Longest Message-ID in characters: a line (RFC 5322 2.1.1).
const MAX_MESSAGE_ID: usize = 998;

/// `SendService` over the API.
pub(super) struct Service(pub(super) Arc<Api>);

#[tonic::async_trait]
impl SendService for Service {
    type SendMessagesStream = stream::Results;
    type WatchEventsStream = events::EventStream;

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let mut held = request.extensions().get().and_then(Reception::decoded);
        if let Some(held) = &mut held {
            held.shrink_to(request.get_ref().encoded_len());
        }
        let (metadata, _, request) = request.into_parts();
        let SendMessageRequest { parent: _, message, request_id, validate_only, wait } = request;
        let said = |site: Option<&SiteId>| {
            let mut violations = Violations::default();
            let wait = violations.take("wait", parse_wait(wait));
            let taking = Taking::parse(&self.0, site, message, &request_id, &mut violations);
            violations.finish_with(taking.zip(wait))
        };
        let right = Rpc::SendMessage.right();
        let (_, site, (taking, wait)) = self.0.admit_all(&metadata, right, named, said).await?;
        if validate_only {
            let letter = taking.validate(&self.0, &site).await?;
            return Ok(Response::new(SendMessageResponse { message: Some(validated(&site, letter)) }));
        }
        let (api, of_site) = (Arc::clone(&self.0), site.clone());
        let taken = to_the_end(async move {
            let _held = held;
            taking.take(&api, &of_site, Via::Unary).await
        });
        let message = match taken.await? {
            Sent::Now(message) if wait.is_zero() => *message,
            sent => self.outcome(&site, sent.id(), wait).await?,
        };
        Ok(Response::new(SendMessageResponse { message: Some(convert::message(message)) }))
    }

    async fn send_messages(
        &self,
        request: Request<Streaming<SendMessagesRequest>>,
    ) -> Result<Response<Self::SendMessagesStream>, Status> {
        Ok(Response::new(stream::start(&self.0, request).await?))
    }

    async fn get_message(
        &self,
        request: Request<GetMessageRequest>,
    ) -> Result<Response<GetMessageResponse>, Status> {
        let named = fields::message("name", &request.get_ref().name);
        let (site, id) = self.0.authorise(request.metadata(), Rpc::GetMessage.right(), named).await?;
        let message = find(&self.0, &site, id).await?;
        Ok(Response::new(GetMessageResponse { message: Some(convert::message(message)) }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let mut wanted = request.get_ref().clone();
        let page_token = std::mem::take(&mut wanted.page_token);
        let page_size = std::mem::take(&mut wanted.page_size);
        // What is left of the request is what the token is bound to.
        let bound = wanted.encode_to_vec();
        let tokens = Tokens::new(self.0.store.vault(), "messages page", &[&bound]);
        let said = |site: Option<&SiteId>| {
            let mut violations = Violations::default();
            let page = Page::parse(page_size, &page_token, &tokens, &mut violations);
            let filter = parse_filter(site, wanted, &mut violations);
            violations.finish_with(page).map(|page| (page, filter))
        };
        let right = Rpc::ListMessages.right();
        let (_, site, (page, filter)) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let Page { size, place } = page;
        let before = place.and_then(|id| Uuid::try_parse(&id).ok());
        let limit = page::limit(size);
        let found = messages::list(&self.0.store, &site, &filter, before, limit).await;
        let mut found = found.map_err(Problem::from)?;
        let next_page_token =
            page::cut(&mut found, size).map(|last| tokens.make(&last.id.to_string())).unwrap_or_default();
        let messages = found.into_iter().map(convert::message).collect();
        Ok(Response::new(ListMessagesResponse { messages, next_page_token }))
    }

    type GetMessageContentStream = content::ContentStream;

    async fn get_message_content(
        &self,
        request: Request<GetMessageContentRequest>,
    ) -> Result<Response<Self::GetMessageContentStream>, Status> {
        Ok(Response::new(content::get(&self.0, request).await?))
    }

    async fn cancel_message(
        &self,
        request: Request<CancelMessageRequest>,
    ) -> Result<Response<CancelMessageResponse>, Status> {
        Ok(Response::new(cancel::one(&self.0, request).await?))
    }

    async fn retry_message(
        &self,
        request: Request<RetryMessageRequest>,
    ) -> Result<Response<RetryMessageResponse>, Status> {
        Ok(Response::new(retry::one(&self.0, request).await?))
    }

    async fn cancel_messages(
        &self,
        request: Request<CancelMessagesRequest>,
    ) -> Result<Response<CancelMessagesResponse>, Status> {
        Ok(Response::new(cancel::many(&self.0, request).await?))
    }

    async fn retry_messages(
        &self,
        request: Request<RetryMessagesRequest>,
    ) -> Result<Response<RetryMessagesResponse>, Status> {
        Ok(Response::new(retry::many(&self.0, request).await?))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Ok(Response::new(events::start(&self.0, request).await?))
    }
}

impl Service {
    /// The letter when it is no longer waiting or under way, or when the time is over.
    async fn outcome(&self, site: &SiteId, id: Uuid, wait: Duration) -> Result<Message, Problem> {
        let end = Instant::now() + wait;
        let mut recorded = self.0.store.changes().watch_letter(id);
        loop {
            recorded.mark_unchanged();
            let message = find(&self.0, site, id).await?;
            let waiting = matches!(message.state, MessageState::Queued | MessageState::Sending);
            if !waiting || Instant::now() >= end || self.0.stop.is_cancelled() {
                return Ok(message);
            }
            let poll = end.min(Instant::now() + WAIT_POLL);
            tokio::select! {
                () = self.0.stop.cancelled() => {}
                _ = timeout_at(poll, recorded.changed()) => {}
            }
        }
    }
}

async fn find(api: &Api, site: &SiteId, id: Uuid) -> Result<Message, Problem> {
    let message = messages::find(&api.store, site, id).await?;
    message.ok_or_else(|| Problem::not_found(format!("{}/messages/{id}", site.name())))
}

/// What is answered for a letter that was only validated.
fn validated(site: &SiteId, letter: Letter) -> ProtoMessage {
    let Letter { from_address, envelope_sender: _, account, mailing, user, terms, recipients, content } =
        letter;
    let Terms { copy_to_sender, send_time, expire_time, tags } = terms;
    ProtoMessage {
        from_address,
        mailing,
        user,
        account: account_name(site, account),
        copy_to_sender,
        send_time: send_time.map(fields::to_timestamp),
        expire_time: expire_time.map(fields::to_timestamp),
        tags,
        size: i64::try_from(content.bytes.len()).unwrap_or(i64::MAX),
        recipients: recipients.into_iter().map(convert::recipient).collect(),
        ..ProtoMessage::default()
    }
}

fn parse_wait(wait: Option<prost_types::Duration>) -> Result<Duration, &'static str> {
    let wait = wait.map_or(Ok(Duration::ZERO), fields::duration);
    wait.ok().filter(|wait| *wait <= MAX_WAIT).ok_or("must be 0s to 60s")
}

fn parse_filter(
    site: Option<&SiteId>,
    request: ListMessagesRequest,
    violations: &mut Violations,
) -> MessageFilter {
    let ListMessagesRequest {
        parent: _,
        page_size: _,
        page_token: _,
        states,
        account,
        user,
        tag,
        recipient,
        message_id,
        start_time,
        end_time,
    } = request;
    let tag = violations.take("tag", terms::tag_of_filter(&tag)).flatten();
    let mut wanted = Vec::with_capacity(states.len());
    for (index, state) in states.into_iter().enumerate() {
        let state = convert::state_from_proto(state).ok_or("is not a state of a letter");
        wanted.extend(violations.take(&format!("states[{index}]"), state));
    }
    let account = violations.within(site, "account", &account, fields::account);
    let user = violations.take("user", fields::user(user)).filter(|user| !user.is_empty());
    let message_id = violations.take("message_id", fields::text(&message_id, MAX_MESSAGE_ID));
    let recipient = (!recipient.is_empty())
        .then(|| violations.take("recipient", Mailbox::parse(&recipient)))
        .flatten()
        .map(|mailbox| mailbox.address.to_string());
    let start_time = violations.time("start_time", start_time);
    let end_time = violations.time("end_time", end_time);
    let rfc_message_id = message_id.filter(|id| !id.is_empty());
    MessageFilter { states: wanted, account, user, tag, recipient, rfc_message_id, start_time, end_time }
}
