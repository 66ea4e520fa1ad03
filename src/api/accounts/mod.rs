//! `AccountsService`: SMTP accounts, proven before they are saved; and senders.

mod checking;
mod code_letter;
pub(in crate::api) mod convert;
mod limits;
mod live;
mod ownership;
mod profile;
mod prove;
mod providers;
mod resolve;
mod saving;
mod senders;

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::fields::{self, Etag, Violations};
use super::page::{self, Page, Tokens};
use super::proto::accounts_service_server::AccountsService;
use super::proto::check::State as ProtoState;
use super::proto::{
    CheckAccountRequest, CheckAccountResponse, ConfirmSenderRequest, ConfirmSenderResponse,
    CreateAccountRequest, CreateAccountResponse, CreateSenderRequest, CreateSenderResponse,
    DeleteAccountRequest, DeleteAccountResponse, DeleteSenderRequest, DeleteSenderResponse,
    GetAccountRequest, GetAccountResponse, ListAccountsRequest, ListAccountsResponse, ListProvidersRequest,
    ListProvidersResponse, ListSendersRequest, ListSendersResponse, ResolveAccountRequest,
    ResolveAccountResponse, UpdateAccountRequest, UpdateAccountResponse,
};
use super::{Api, to_the_end};
use crate::domain::access::Rpc;
use crate::domain::account::{Account, CheckState, account_name};
use crate::domain::audit::{Actor, Deed, Note};
use crate::domain::error::{Problem, Reason};
use crate::domain::sender::parse_code;
use crate::domain::site::SiteId;
use crate::store::Store;
use crate::store::accounts::{self, AccountFilter};
use crate::store::rerouting::{self, Deleted};

/// `AccountsService` over the API.
pub(super) struct Service(pub(super) Arc<Api>);

#[tonic::async_trait]
impl AccountsService for Service {
    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let right = Rpc::CreateAccount.right();
        // Where the site is known the work itself tells what is wrong.
        let said = |site: Option<&SiteId>| {
            if site.is_some() { Ok(()) } else { saving::check_new(request.get_ref()) }
        };
        let (by, site, ()) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let (api, request) = (Arc::clone(&self.0), request.into_inner());
        let created = async move { saving::create(&api, &by.actor(), &site, request).await };
        let account = to_the_end(created).await?;
        Ok(Response::new(CreateAccountResponse { account: Some(account) }))
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let named = fields::account("name", &request.get_ref().name);
        let (site, id) = self.0.authorise(request.metadata(), Rpc::GetAccount.right(), named).await?;
        let account = find(&self.0.store, &site, id).await?;
        Ok(Response::new(GetAccountResponse { account: Some(convert::account(&account)) }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let mut wanted = request.get_ref().clone();
        let page_token = std::mem::take(&mut wanted.page_token);
        let page_size = std::mem::take(&mut wanted.page_size);
        // What is left of the request is what the token is bound to.
        let bound = wanted.encode_to_vec();
        let tokens = Tokens::new(self.0.store.vault(), "accounts page", &[&bound]);
        let said = |_: Option<&SiteId>| {
            let mut violations = Violations::default();
            let page = Page::parse(page_size, &page_token, &tokens, &mut violations);
            let filter = parse_filter(wanted, &mut violations);
            violations.finish_with(page).map(|page| (page, filter))
        };
        let right = Rpc::ListAccounts.right();
        let (_, site, (page, filter)) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let Page { size, place } = page;
        let after = place.and_then(|id| id.parse().ok()).unwrap_or(0);
        let limit = page::limit(size);
        let mut found =
            accounts::list(&self.0.store, &site, &filter, after, limit).await.map_err(Problem::from)?;
        let next_page_token =
            page::cut(&mut found, size).map(|last| tokens.make(&last.id.to_string())).unwrap_or_default();
        let accounts = found.iter().map(convert::account).collect();
        Ok(Response::new(ListAccountsResponse { accounts, next_page_token }))
    }

    async fn update_account(
        &self,
        request: Request<UpdateAccountRequest>,
    ) -> Result<Response<UpdateAccountResponse>, Status> {
        let name = request.get_ref().account.as_ref().map(|account| account.name.as_str());
        let named = fields::account("account.name", name.unwrap_or_default());
        let right = Rpc::UpdateAccount.right();
        // Where the account is known the work itself tells what is wrong.
        let said = |site: Option<&SiteId>| {
            if site.is_some() { Ok(()) } else { saving::check_change(request.get_ref()) }
        };
        let (by, (site, id), ()) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let (api, request) = (Arc::clone(&self.0), request.into_inner());
        let updated = async move { saving::update(&api, &by.actor(), &site, id, request).await };
        let account = to_the_end(updated).await?;
        Ok(Response::new(UpdateAccountResponse { account: Some(account) }))
    }

    async fn delete_account(
        &self,
        request: Request<DeleteAccountRequest>,
    ) -> Result<Response<DeleteAccountResponse>, Status> {
        let named = fields::account("name", &request.get_ref().name);
        let said = |_: Option<&SiteId>| {
            Etag::parse(&request.get_ref().etag).map_err(|wrong| Problem::invalid_field("etag", wrong))
        };
        let right = Rpc::DeleteAccount.right();
        let (by, (site, id), etag) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let (api, request) = (Arc::clone(&self.0), request.into_inner());
        to_the_end(async move { delete(&api, by.actor(), &site, id, &etag, request).await }).await?;
        Ok(Response::new(DeleteAccountResponse {}))
    }

    async fn check_account(
        &self,
        request: Request<CheckAccountRequest>,
    ) -> Result<Response<CheckAccountResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let said = |site: Option<&SiteId>| checking::parse(site, request.get_ref().clone());
        let right = Rpc::CheckAccount.right();
        let (_, site, asked) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let api = Arc::clone(&self.0);
        let response = to_the_end(async move { checking::check(&api, &site, asked).await }).await?;
        Ok(Response::new(response))
    }

    async fn resolve_account(
        &self,
        request: Request<ResolveAccountRequest>,
    ) -> Result<Response<ResolveAccountResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let right = Rpc::ResolveAccount.right_if(request.get_ref().show_all);
        let said = |_: Option<&SiteId>| resolve::parse(request.get_ref().clone());
        let (_, site, asked) = self.0.admit_all(request.metadata(), right, named, said).await?;
        Ok(Response::new(resolve::resolve(&self.0, &site, asked).await?))
    }

    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        self.0.authenticator.caller(request.metadata()).await?;
        let providers = providers::list(&request.get_ref().email)?;
        Ok(Response::new(ListProvidersResponse { providers }))
    }

    async fn create_sender(
        &self,
        request: Request<CreateSenderRequest>,
    ) -> Result<Response<CreateSenderResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let said = |_: Option<&SiteId>| senders::Asked::parse(&self.0, request.get_ref());
        let right = Rpc::CreateSender.right();
        let (by, site, asked) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let api = Arc::clone(&self.0);
        let sender = to_the_end(async move { senders::create(&api, &by.caller, &site, asked).await }).await?;
        Ok(Response::new(CreateSenderResponse { sender: Some(sender) }))
    }

    async fn confirm_sender(
        &self,
        request: Request<ConfirmSenderRequest>,
    ) -> Result<Response<ConfirmSenderResponse>, Status> {
        let named = fields::sender("name", &request.get_ref().name);
        let said = |_: Option<&SiteId>| {
            parse_code(&request.get_ref().code).map_err(|wrong| Problem::invalid_field("code", wrong))
        };
        let right = Rpc::ConfirmSender.right();
        let (by, (site, id), code) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let api = Arc::clone(&self.0);
        let sender =
            to_the_end(async move { senders::confirm(&api, &by.caller, &site, id, &code).await }).await?;
        Ok(Response::new(ConfirmSenderResponse { sender: Some(sender) }))
    }

    async fn list_senders(
        &self,
        request: Request<ListSendersRequest>,
    ) -> Result<Response<ListSendersResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let said = |_: Option<&SiteId>| senders::Listed::parse(&self.0, request.get_ref());
        let right = Rpc::ListSenders.right();
        let (by, site, listed) = self.0.admit_all(request.metadata(), right, named, said).await?;
        Ok(Response::new(senders::list(&self.0, &by.caller, &site, listed).await?))
    }

    async fn delete_sender(
        &self,
        request: Request<DeleteSenderRequest>,
    ) -> Result<Response<DeleteSenderResponse>, Status> {
        let named = fields::sender("name", &request.get_ref().name);
        let (by, (site, id)) = self.0.admit(request.metadata(), Rpc::DeleteSender.right(), named).await?;
        let api = Arc::clone(&self.0);
        to_the_end(async move { senders::delete(&api, &by.caller, &site, id).await }).await?;
        Ok(Response::new(DeleteSenderResponse {}))
    }
}

/// The account, or that there is none.
async fn find(store: &Store, site: &SiteId, id: i64) -> Result<Account, Problem> {
    accounts::find(store, site, id).await?.ok_or_else(|| Problem::not_found(account_name(site, id)))
}

fn parse_filter(request: ListAccountsRequest, violations: &mut Violations) -> AccountFilter {
    let ListAccountsRequest {
        parent: _,
        page_size: _,
        page_token: _,
        active,
        origin,
        user,
        sender_email,
        check_state,
        parked,
    } = request;
    let origin =
        violations.take("origin", ownership::origin_from_proto(origin).ok_or("is not an origin")).flatten();
    let user = violations.take("user", fields::user(user)).filter(|user| !user.is_empty());
    let sender_key = (!sender_email.is_empty())
        .then(|| violations.take("sender_email", profile::parse_filter_address(&sender_email)))
        .flatten()
        .map(|address| address.key());
    let state = ProtoState::try_from(check_state).map_err(|_| "is not a state");
    let check_state = violations.take("check_state", state).and_then(|state| match state {
        ProtoState::Unspecified => None,
        ProtoState::NotChecked => Some(CheckState::NotChecked),
        ProtoState::Passed => Some(CheckState::Passed),
        ProtoState::Failed => Some(CheckState::Failed),
    });
    AccountFilter { active, origin, user, sender_key, check_state, parked }
}

async fn delete(
    api: &Api,
    by: Actor,
    site: &SiteId,
    id: i64,
    etag: &Etag,
    request: DeleteAccountRequest,
) -> Result<(), Problem> {
    let settings = api.settings_of_enabled(site).await?;
    let DeleteAccountRequest { name, etag: _, force } = request;
    let version = if etag.is_given() {
        let current = find(&api.store, site, id).await?;
        saving::demand_etag(&current, etag)?;
        Some(current.version)
    } else {
        None
    };
    let (priority, deed) = (settings.account_priority, Deed::DeleteAccount { account: id, force });
    let note = Note { by, deed };
    match rerouting::delete_account(&api.store, site, id, version, force, priority, &note).await? {
        Deleted::Deleted => Ok(()),
        Deleted::NotFound if version.is_some() => Err(fields::etag_mismatch(&name)),
        Deleted::NotFound => Err(Problem::not_found(name)),
        Deleted::MailWaits(count) => {
            let text = format!("{count} letters wait for {name}; `force` chooses them another account");
            Err(Problem::new(Reason::StateConflict, text).with("name", name).with("count", count.to_string()))
        }
    }
}
