//! Sending letters again, one or many.

use std::sync::Arc;

use tonic::Request;

use super::selection::{self, Arguments, States};
use super::{convert, find};
use crate::api::proto::{
    RetryMessageRequest, RetryMessageResponse, RetryMessagesRequest, RetryMessagesResponse,
};
use crate::api::{Api, fields, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::MessageState;
use crate::domain::site::SiteId;
use crate::store::retrying::{self, Retried};

/// States in which letters are sent again; UNCERTAIN ones may double, and so only where that is asked for.
const STATES: States = States {
    allowed: &[
        MessageState::Queued,
        MessageState::Failed,
        MessageState::PartiallySent,
        MessageState::Uncertain,
    ],
    usual: &[MessageState::Queued, MessageState::Failed, MessageState::PartiallySent],
};

/// Sends one letter again.
pub(super) async fn one(
    api: &Arc<Api>,
    request: Request<RetryMessageRequest>,
) -> Result<RetryMessageResponse, Problem> {
    let named = fields::message("name", &request.get_ref().name);
    let (site, id) = api.authorise(request.metadata(), Rpc::RetryMessage.right(), named).await?;
    let RetryMessageRequest { name } = request.into_inner();
    let priority = api.settings_of_enabled(&site).await?.account_priority;
    let (writer, of_site) = (Arc::clone(api), site.clone());
    let retried =
        to_the_end(async move { Ok(retrying::retry(&writer.store, &of_site, id, priority).await?) }).await?;
    if retried == Retried::Done {
        let message = find(api, &site, id).await?;
        return Ok(RetryMessageResponse { message: Some(convert::message(message)) });
    }
    Err(refused(retried, &name))
}

/// Sends many letters again.
pub(super) async fn many(
    api: &Arc<Api>,
    request: Request<RetryMessagesRequest>,
) -> Result<RetryMessagesResponse, Problem> {
    let named = fields::site("parent", &request.get_ref().parent);
    let said = |site: Option<&SiteId>| {
        let RetryMessagesRequest { parent: _, account, tag, states, since } = request.get_ref().clone();
        selection::parse(site, Arguments { account, tag, states, since }, &STATES)
    };
    let right = Rpc::RetryMessages.right();
    let (_, site, selection) = api.admit_all(request.metadata(), right, named, said).await?;
    let priority = api.settings_of_enabled(&site).await?.account_priority;
    let api = Arc::clone(api);
    let work = async move { Ok(retrying::retry_all(&api.store, &site, &selection, priority).await?) };
    let count = to_the_end(work).await?;
    Ok(RetryMessagesResponse { count: i64::try_from(count).unwrap_or(i64::MAX) })
}

/// Why a letter was not sent again.
fn refused(retried: Retried, name: &str) -> Problem {
    let conflict = |why: &str| {
        Problem::new(Reason::StateConflict, format!("{name} cannot be sent again: {why}")).with("name", name)
    };
    match retried {
        Retried::NotFound => Problem::not_found(name),
        Retried::UnderWay => conflict("an attempt is under way"),
        Retried::Expired => conflict("its expire_time has passed"),
        Retried::NothingLeft(state) => {
            let state = convert::state_to_proto(state).as_str_name();
            conflict(&format!("nobody is left to send it to, it is {state}")).with("state", state)
        }
        Retried::Own => conflict("its content is not kept"),
        Retried::NoMatchingAccount => {
            let text = format!("the account of {name} was deleted, and no other may carry it");
            Problem::new(Reason::NoMatchingAccount, text).with("name", name)
        }
        // The caller answers the letter instead.
        Retried::Done => Problem::new(Reason::Internal, "the letter is sent again"),
    }
}
