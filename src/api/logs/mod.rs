//! `LogsService`: logs, stored and live.

mod convert;
mod download;
mod entries;
mod tail;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use self::entries::Wanted;
use super::fields::{self, Violations};
use super::page::{self, Page, Tokens};
use super::proto::logs_service_server::LogsService;
use super::proto::{
    ClearLogRequest, ClearLogResponse, DownloadLogRequest, ListLogEntriesRequest, ListLogEntriesResponse,
    ListLogsRequest, ListLogsResponse, TailLogEntriesRequest,
};
use super::{Api, to_the_end};
use crate::domain::access::{Right, Rpc};
use crate::domain::audit::{Deed, Note};
use crate::domain::error::Problem;
use crate::domain::log::LogId;
use crate::domain::site::SiteId;
use crate::store::logs;

/// `LogsService` over the API.
pub(super) struct Service(pub(super) Arc<Api>);

#[tonic::async_trait]
impl LogsService for Service {
    async fn list_logs(
        &self,
        request: Request<ListLogsRequest>,
    ) -> Result<Response<ListLogsResponse>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let ListLogsRequest { parent, page_size, page_token, account } = request.get_ref();
        let store = &self.0.store;
        let tokens = Tokens::new(store.vault(), "logs page", &[parent.as_bytes(), account.as_bytes()]);
        let said = |site: Option<&SiteId>| {
            let mut violations = Violations::default();
            let page = Page::parse(*page_size, page_token, &tokens, &mut violations);
            let account = violations.within(site, "account", account, fields::account);
            violations.finish_with(page).map(|page| (page, account))
        };
        let right = Rpc::ListLogs.right();
        let (credentials, site, (page, account)) =
            self.0.admit_all(request.metadata(), right, named, said).await?;
        let audit = credentials.caller.may(Right::ReadAudit, Some(&site)).is_ok();
        let Page { size, place } = page;
        let after = place.unwrap_or_default();
        let limit = page::limit(size);
        let mut found =
            logs::list(store, &site, account, audit, &after, limit).await.map_err(Problem::from)?;
        let next_page_token =
            page::cut(&mut found, size).map(|last| tokens.make(&last.id.to_string())).unwrap_or_default();
        let logs = found.into_iter().map(|log| convert::log(&site, log)).collect();
        Ok(Response::new(ListLogsResponse { logs, next_page_token }))
    }

    async fn list_log_entries(
        &self,
        request: Request<ListLogEntriesRequest>,
    ) -> Result<Response<ListLogEntriesResponse>, Status> {
        let named = fields::log("name", &request.get_ref().name);
        let right = Rpc::ListLogEntries.right_if(is_audit(&named));
        let said = |site: Option<&SiteId>| Wanted::parse(&self.0, site, request.get_ref().clone());
        let (by, (site, log), wanted) = self.0.admit_all(request.metadata(), right, named, said).await?;
        Ok(Response::new(entries::list(&self.0, &by.caller, &site, log, wanted).await?))
    }

    type TailLogEntriesStream = tail::EntryStream;

    async fn tail_log_entries(
        &self,
        request: Request<TailLogEntriesRequest>,
    ) -> Result<Response<Self::TailLogEntriesStream>, Status> {
        let named = fields::site("parent", &request.get_ref().parent);
        let right = tail::right(&request.get_ref().logs);
        let said = |site: Option<&SiteId>| tail::Wanted::parse(site, request.get_ref().clone());
        let (credentials, site, wanted) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let stream = tail::start(&self.0, credentials, site, wanted).await?;
        Ok(Response::new(stream))
    }

    type DownloadLogStream = download::TextStream;

    async fn download_log(
        &self,
        request: Request<DownloadLogRequest>,
    ) -> Result<Response<Self::DownloadLogStream>, Status> {
        let named = fields::log("name", &request.get_ref().name);
        let right = Rpc::DownloadLog.right_if(is_audit(&named));
        let (credentials, (site, log)) = self.0.admit(request.metadata(), right, named).await?;
        Ok(Response::new(download::start(&self.0, credentials, site, log).await?))
    }

    async fn clear_log(
        &self,
        request: Request<ClearLogRequest>,
    ) -> Result<Response<ClearLogResponse>, Status> {
        let named = fields::log("name", &request.get_ref().name);
        let right = Rpc::ClearLog.right_if(is_audit(&named));
        let (by, (site, log)) = self.0.admit(request.metadata(), right, named).await?;
        let ClearLogRequest { name } = request.into_inner();
        let api = Arc::clone(&self.0);
        to_the_end(async move {
            let note = Note { by: by.actor(), deed: Deed::ClearLog(log) };
            let found = logs::clear(&api.store, &site, log, &note).await?;
            if log == LogId::Audit {
                api.read_notes.forget(&site);
            }
            found.then_some(()).ok_or_else(|| Problem::not_found(name))
        })
        .await?;
        Ok(Response::new(ClearLogResponse {}))
    }
}

/// Whether a call names the log `audit`.
fn is_audit(named: &Result<(SiteId, LogId), Problem>) -> bool {
    matches!(named, Ok((_, LogId::Audit)))
}
