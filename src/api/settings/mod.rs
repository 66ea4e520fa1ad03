//! `SettingsService`: sites and their settings.

mod change;
mod convert;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use uuid::Uuid;

use self::change::SettingsChange;
use super::fields::{self, Etag, Violations};
use super::page::{self, Page, Tokens};
use super::proto::settings_service_server::SettingsService;
use super::proto::{
    CreateSiteRequest, CreateSiteResponse, DeleteSiteRequest, DeleteSiteResponse, GetSettingsRequest,
    GetSettingsResponse, GetSiteRequest, GetSiteResponse, ListSitesRequest, ListSitesResponse,
    RestoreSettingsRequest, RestoreSettingsResponse, Site as ProtoSite, UpdateSettingsRequest,
    UpdateSettingsResponse,
};
use super::{Api, to_the_end};
use crate::domain::access::{Rpc, Scope};
use crate::domain::audit::{Actor, Deed, Note};
use crate::domain::error::{Problem, Reason};
use crate::domain::settings::{Settings, SettingsField, StoredSettings};
use crate::domain::site::SiteId;
use crate::store::departures::{self, Begun};
use crate::store::sites::Created;
use crate::store::{settings, sites};

/// When to try again to create a site of the id of one that is being deleted.
const GOING_RETRY: Duration = Duration::from_secs(5);
/// Longest `display_name` in characters.
const MAX_DISPLAY_NAME: usize = 200;

/// `SettingsService` over the API.
pub(super) struct Service(pub(super) Arc<Api>);

#[tonic::async_trait]
impl SettingsService for Service {
    async fn create_site(
        &self,
        request: Request<CreateSiteRequest>,
    ) -> Result<Response<CreateSiteResponse>, Status> {
        self.0.authorise(request.metadata(), Rpc::CreateSite.right(), Ok(())).await?;
        let CreateSiteRequest { site_id, site } = request.into_inner();
        let ProtoSite { name: _, display_name, create_time: _ } = site.unwrap_or_default();
        let mut violations = Violations::default();
        let id = SiteId::parse(&site_id).ok_or("must match [a-z0-9][a-z0-9-]{0,62}");
        let id = violations.take("site_id", id);
        let display_name =
            violations.take("site.display_name", fields::text(&display_name, MAX_DISPLAY_NAME));
        let (Some(id), Some(display_name)) = (id, display_name) else {
            return Err(violations.problem().into());
        };
        let api = Arc::clone(&self.0);
        let site = to_the_end(async move {
            match sites::create(&api.store, &id, &display_name).await? {
                Created::Created(site) => Ok(site),
                Created::Exists => {
                    let text = format!("{} exists already", id.name());
                    Err(Problem::new(Reason::AlreadyExists, text).with("name", id.name()))
                }
                Created::Going => Err(still_going(&id)),
            }
        })
        .await?;
        Ok(Response::new(CreateSiteResponse { site: Some(convert::site(site)) }))
    }

    async fn get_site(&self, request: Request<GetSiteRequest>) -> Result<Response<GetSiteResponse>, Status> {
        let named = fields::site("name", &request.get_ref().name);
        let id = self.0.authorise(request.metadata(), Rpc::GetSite.right(), named).await?;
        let site = sites::find(&self.0.store, &id).await.map_err(Problem::from)?;
        let site = site.ok_or_else(|| Problem::not_found(id.name()))?;
        Ok(Response::new(GetSiteResponse { site: Some(convert::site(site)) }))
    }

    async fn list_sites(
        &self,
        request: Request<ListSitesRequest>,
    ) -> Result<Response<ListSitesResponse>, Status> {
        let credentials = self.0.authenticator.caller(request.metadata()).await?;
        let ListSitesRequest { page_size, page_token } = request.into_inner();
        let store = &self.0.store;
        let tokens = Tokens::new(store.vault(), "sites page", &[]);
        let mut violations = Violations::default();
        let page = Page::parse(page_size, &page_token, &tokens, &mut violations);
        let Page { size, place } = violations.finish_with(page)?;
        let after = place.unwrap_or_default();
        let caller = &credentials.caller;
        if let Scope::Site(own) = &caller.scope {
            caller.may(Rpc::ListSites.right(), Some(own))?;
            let site = sites::find(store, own).await.map_err(Problem::from)?;
            let sites = site.into_iter().map(convert::site).collect();
            return Ok(Response::new(ListSitesResponse { sites, next_page_token: String::new() }));
        }
        caller.may(Rpc::ListSites.right(), None)?;
        let mut found = sites::list(store, &after, page::limit(size)).await.map_err(Problem::from)?;
        let next_page_token =
            page::cut(&mut found, size).map(|last| tokens.make(last.id.as_str())).unwrap_or_default();
        let sites = found.into_iter().map(convert::site).collect();
        Ok(Response::new(ListSitesResponse { sites, next_page_token }))
    }

    async fn get_settings(
        &self,
        request: Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        let named = fields::settings_site("name", &request.get_ref().name);
        let site = self.0.authorise(request.metadata(), Rpc::GetSettings.right(), named).await?;
        let found = settings::find(&self.0.store, &site).await.map_err(Problem::from)?;
        let found = found.ok_or_else(|| Problem::not_found(site.name()))?;
        Ok(Response::new(GetSettingsResponse { settings: Some(convert::settings(&found)) }))
    }

    async fn update_settings(
        &self,
        request: Request<UpdateSettingsRequest>,
    ) -> Result<Response<UpdateSettingsResponse>, Status> {
        let wanted = request.get_ref().settings.as_ref();
        let name = wanted.map(|settings| settings.name.as_str()).unwrap_or_default();
        let named = fields::settings_site("settings.name", name);
        let said = |_: Option<&SiteId>| {
            let UpdateSettingsRequest { settings: wanted, update_mask } = request.get_ref().clone();
            let wanted = wanted.unwrap_or_default();
            let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
            let mut violations = Violations::default();
            let etag = violations.take("settings.etag", Etag::parse(&wanted.etag));
            let change = SettingsChange::parse(wanted, &paths, self.0.options.retry_floor);
            let change = violations.take_parsed(change);
            violations.finish_with(etag.zip(change))
        };
        let right = Rpc::UpdateSettings.right();
        let (by, site, (etag, change)) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let api = Arc::clone(&self.0);
        let settings =
            to_the_end(async move { update(&api, by.actor(), &site, &etag, &change).await }).await?;
        Ok(Response::new(UpdateSettingsResponse { settings: Some(convert::settings(&settings)) }))
    }

    async fn restore_settings(
        &self,
        request: Request<RestoreSettingsRequest>,
    ) -> Result<Response<RestoreSettingsResponse>, Status> {
        let named = fields::settings_site("name", &request.get_ref().name);
        let said = |_: Option<&SiteId>| {
            let RestoreSettingsRequest { name: _, paths } = request.get_ref();
            change::parse_restored(paths)
        };
        let right = Rpc::RestoreSettings.right();
        let (by, site, restored) = self.0.admit_all(request.metadata(), right, named, said).await?;
        let api = Arc::clone(&self.0);
        let settings = to_the_end(async move { restore(&api, by.actor(), &site, &restored).await }).await?;
        Ok(Response::new(RestoreSettingsResponse { settings: Some(convert::settings(&settings)) }))
    }

    async fn delete_site(
        &self,
        request: Request<DeleteSiteRequest>,
    ) -> Result<Response<DeleteSiteResponse>, Status> {
        let named = fields::site("name", &request.get_ref().name);
        let (by, site) = self.0.admit(request.metadata(), Rpc::DeleteSite.right(), named).await?;
        let DeleteSiteRequest { name: _, force } = request.into_inner();
        let api = Arc::clone(&self.0);
        to_the_end(async move { delete(&api, by.caller.key_id, &site, force).await }).await?;
        Ok(Response::new(DeleteSiteResponse {}))
    }
}

async fn update(
    api: &Api,
    by: Actor,
    site: &SiteId,
    etag: &Etag,
    change: &SettingsChange,
) -> Result<Settings, Problem> {
    let edit = |current: &Settings| {
        if !etag.fits(convert::ETAG, current.version) {
            return Err(fields::etag_mismatch(&format!("{}/settings", site.name())));
        }
        Ok(change.apply(current, api.store.defaults()))
    };
    let note = |fields: &[SettingsField]| Note { by, deed: Deed::ChangeSettings(names(fields)) };
    let changed = settings::change(&api.store, site, edit, note).await?;
    changed.ok_or_else(|| Problem::not_found(site.name()))
}

async fn restore(
    api: &Api,
    by: Actor,
    site: &SiteId,
    restored: &[SettingsField],
) -> Result<Settings, Problem> {
    let edit = |current: &Settings| {
        let mut stored = current.stored.clone();
        for field in restored {
            stored.copy(*field, &StoredSettings::default());
        }
        Ok::<_, Problem>(stored)
    };
    let note = |fields: &[SettingsField]| Note { by, deed: Deed::RestoreSettings(names(fields)) };
    let changed = settings::change(&api.store, site, edit, note).await?;
    changed.ok_or_else(|| Problem::not_found(site.name()))
}

fn names(fields: &[SettingsField]) -> Vec<&'static str> {
    fields.iter().map(|field| field.name()).collect()
}

async fn delete(api: &Api, key: Uuid, site: &SiteId, force: bool) -> Result<(), Problem> {
    match departures::begin(&api.store, site, force).await? {
        Begun::Going { waiting } => {
            api.presence.forget(site);
            api.read_notes.forget(site);
            // Here, since its log `audit` goes with it.
            tracing::info!(%site, %key, force, waiting, "a site was deleted");
            Ok(())
        }
        Begun::NotFound => Err(Problem::not_found(site.name())),
        Begun::MailWaits(count) => {
            let text = format!("{count} letters of {} wait; with `force` they go with it", site.name());
            let problem = Problem::new(Reason::StateConflict, text).with("name", site.name());
            Err(problem.with("count", count.to_string()))
        }
    }
}

/// What answers who wants the id of a site that is still being deleted.
fn still_going(id: &SiteId) -> Problem {
    let text = format!("{} is being deleted, and something of it is still there: try again", id.name());
    Problem::new(Reason::StateConflict, text).with("name", id.name()).retry_after(GOING_RETRY)
}
