//! Cancelling letters, one or many.

use std::sync::Arc;

use tonic::Request;

use super::selection::{self, Arguments, States};
use super::{convert, find};
use crate::api::proto::{
    CancelMessageRequest, CancelMessageResponse, CancelMessagesRequest, CancelMessagesResponse,
};
use crate::api::{Api, fields, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::MessageState;
use crate::domain::site::SiteId;
use crate::store::cancelling::{self, Cancelled};

/// States in which letters are cancelled.
const STATES: States = States {
    allowed: &[MessageState::Queued, MessageState::Sending, MessageState::Uncertain],
    usual: &[MessageState::Queued, MessageState::Sending],
};

/// Cancels one letter.
pub(super) async fn one(
    api: &Arc<Api>,
    request: Request<CancelMessageRequest>,
) -> Result<CancelMessageResponse, Problem> {
    let named = fields::message("name", &request.get_ref().name);
    let (site, id) = api.authorise(request.metadata(), Rpc::CancelMessage.right(), named).await?;
    let CancelMessageRequest { name } = request.into_inner();
    let (writer, of_site) = (Arc::clone(api), site.clone());
    let cancelled =
        to_the_end(async move { Ok(cancelling::cancel(&writer.store, &of_site, id).await?) }).await?;
    match cancelled {
        Cancelled::Done => {
            let message = find(api, &site, id).await?;
            Ok(CancelMessageResponse { message: Some(convert::message(message)) })
        }
        Cancelled::NotFound => Err(Problem::not_found(name)),
        Cancelled::Final(state) => {
            let state = convert::state_to_proto(state).as_str_name();
            let text = format!("{name} cannot be cancelled any more, it is {state}");
            Err(Problem::new(Reason::StateConflict, text).with("name", name).with("state", state))
        }
    }
}

/// Cancels many letters.
pub(super) async fn many(
    api: &Arc<Api>,
    request: Request<CancelMessagesRequest>,
) -> Result<CancelMessagesResponse, Problem> {
    let named = fields::site("parent", &request.get_ref().parent);
    let said = |site: Option<&SiteId>| {
        let CancelMessagesRequest { parent: _, account, tag, states, since } = request.get_ref().clone();
        selection::parse(site, Arguments { account, tag, states, since }, &STATES)
    };
    let right = Rpc::CancelMessages.right();
    let (_, site, selection) = api.admit_all(request.metadata(), right, named, said).await?;
    // Only to see whether the site is there: cancelling stays possible while it is switched off.
    api.settings_of(&site).await?;
    let api = Arc::clone(api);
    let count =
        to_the_end(async move { Ok(cancelling::cancel_all(&api.store, &site, &selection).await?) }).await?;
    Ok(CancelMessagesResponse { count: i64::try_from(count).unwrap_or(i64::MAX) })
}
