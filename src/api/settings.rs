//! `SettingsService`: sites and their settings.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::fields::{self, Violations};
use super::page::{self, Tokens};
use super::proto::settings_service_server::SettingsService;
use super::proto::{
    AccountPriority as ProtoPriority, CreateSiteRequest, CreateSiteResponse, GetSettingsRequest,
    GetSettingsResponse, GetSiteRequest, GetSiteResponse, ListSitesRequest, ListSitesResponse,
    LogLevel as ProtoLogLevel, Settings as ProtoSettings, Site as ProtoSite, UpdateSettingsRequest,
    UpdateSettingsResponse,
};
use super::{Api, to_the_end};
use crate::domain::access::{Right, Scope};
use crate::domain::error::{Problem, Reason};
use crate::domain::log::LogLevel;
use crate::domain::settings::{
    AccountPriority, CONNECTION_TIMEOUT_RANGE, MAX_RETRY_INTERVAL, MAX_RETRY_INTERVALS, Settings,
    StoredSettings,
};
use crate::domain::site::{Site, SiteId};
use crate::store::{settings, sites};

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
        self.0.authorise(request.metadata(), Right::ManageSites, Ok(())).await?;
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
            sites::create(&api.store, &id, &display_name).await?.ok_or_else(|| {
                let text = format!("{} exists already", id.name());
                Problem::new(Reason::AlreadyExists, text).with("name", id.name())
            })
        })
        .await?;
        Ok(Response::new(CreateSiteResponse { site: Some(site_to_proto(site)) }))
    }

    async fn get_site(&self, request: Request<GetSiteRequest>) -> Result<Response<GetSiteResponse>, Status> {
        let named = fields::site("name", &request.get_ref().name);
        let id = self.0.authorise(request.metadata(), Right::ReadSite, named).await?;
        let site = sites::find(&self.0.store, &id).await.map_err(Problem::from)?;
        let site = site.ok_or_else(|| Problem::not_found(id.name()))?;
        Ok(Response::new(GetSiteResponse { site: Some(site_to_proto(site)) }))
    }

    async fn list_sites(
        &self,
        request: Request<ListSitesRequest>,
    ) -> Result<Response<ListSitesResponse>, Status> {
        let credentials = self.0.authenticator.caller(request.metadata()).await?;
        let ListSitesRequest { page_size, page_token } = request.into_inner();
        let size = page::size(page_size)?;
        let store = &self.0.store;
        let tokens = Tokens::new(store.vault(), "sites page", &[]);
        let after = tokens.page(&page_token)?.unwrap_or_default();
        let caller = &credentials.caller;
        if let Scope::Site(own) = &caller.scope {
            caller.may(Right::ReadSite, Some(own))?;
            let site = sites::find(store, own).await.map_err(Problem::from)?;
            let sites = site.into_iter().map(site_to_proto).collect();
            return Ok(Response::new(ListSitesResponse { sites, next_page_token: String::new() }));
        }
        caller.may(Right::ReadSite, None)?;
        let mut found = sites::list(store, &after, page::limit(size)).await.map_err(Problem::from)?;
        let next_page_token =
            page::cut(&mut found, size).map(|last| tokens.make(last.id.as_str())).unwrap_or_default();
        let sites = found.into_iter().map(site_to_proto).collect();
        Ok(Response::new(ListSitesResponse { sites, next_page_token }))
    }

    async fn get_settings(
        &self,
        request: Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        let named = fields::settings_site("name", &request.get_ref().name);
        let site = self.0.authorise(request.metadata(), Right::ManageSettings, named).await?;
        let found = settings::find(&self.0.store, &site).await.map_err(Problem::from)?;
        let found = found.ok_or_else(|| Problem::not_found(site.name()))?;
        Ok(Response::new(GetSettingsResponse { settings: Some(settings_to_proto(&found)) }))
    }

    async fn update_settings(
        &self,
        request: Request<UpdateSettingsRequest>,
    ) -> Result<Response<UpdateSettingsResponse>, Status> {
        let wanted = request.get_ref().settings.as_ref();
        let name = wanted.map(|settings| settings.name.as_str()).unwrap_or_default();
        let named = fields::settings_site("settings.name", name);
        let site = self.0.authorise(request.metadata(), Right::ManageSettings, named).await?;
        let UpdateSettingsRequest { settings: wanted, update_mask } = request.into_inner();
        let wanted = wanted.unwrap_or_default();
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let etag = wanted.etag.clone();
        let change = SettingsChange::parse(wanted, &paths, self.0.options.retry_floor)?;
        let api = Arc::clone(&self.0);
        let settings = to_the_end(async move { update(&api, &site, &etag, change).await }).await?;
        Ok(Response::new(UpdateSettingsResponse { settings: Some(settings_to_proto(&settings)) }))
    }
}

async fn update(api: &Api, site: &SiteId, etag: &str, change: SettingsChange) -> Result<Settings, Problem> {
    let mut current =
        settings::find(&api.store, site).await?.ok_or_else(|| Problem::not_found(site.name()))?;
    if !etag.is_empty() && etag != etag_of(current.version) {
        return Err(fields::etag_mismatch(&format!("{}/settings", site.name())));
    }
    let before = current.stored.clone();
    change.apply(&mut current.stored);
    // What is read and written back as it was is no change, although the defaults are then written out.
    if current.stored.counts_like(&before) {
        return Ok(Settings { stored: before, ..current });
    }
    let changed = settings::replace(&api.store, &current).await?;
    changed.ok_or_else(|| fields::etag_mismatch(&format!("{}/settings", site.name())))
}

/// A change of settings: what is wanted, and of which fields.
struct SettingsChange {
    wanted: StoredSettings,
    paths: Vec<&'static str>,
}

impl SettingsChange {
    /// The change that a request asks for; without paths the fields that are present.
    fn parse(wanted: ProtoSettings, paths: &[String], retry_floor: Duration) -> Result<Self, Problem> {
        let ProtoSettings {
            name: _,
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority,
            send_test_on_save,
            connection_timeout,
            save_logs,
            log_level,
            retry_intervals,
            etag: _,
            update_time: _,
        } = wanted;
        let present = [
            ("enabled", enabled.is_some()),
            ("user_accounts_enabled", user_accounts_enabled.is_some()),
            ("require_confirmed_sender", require_confirmed_sender.is_some()),
            ("account_priority", account_priority.is_some()),
            ("send_test_on_save", send_test_on_save.is_some()),
            ("connection_timeout", connection_timeout.is_some()),
            ("save_logs", save_logs.is_some()),
            ("log_level", log_level.is_some()),
            ("retry_intervals", !retry_intervals.is_empty()),
        ];
        let mut violations = Violations::default();
        let timeout = connection_timeout.and_then(|value| {
            let timeout = fields::duration(value).and_then(|timeout| {
                CONNECTION_TIMEOUT_RANGE.contains(&timeout).then_some(timeout).ok_or("must be 1s to 600s")
            });
            violations.take("settings.connection_timeout", timeout)
        });
        let level = ProtoLogLevel::try_from(log_level.unwrap_or_default()).map_err(|_| "is not a log level");
        let priority = ProtoPriority::try_from(account_priority.unwrap_or_default());
        let priority =
            violations.take("settings.account_priority", priority.map_err(|_| "is not a priority"));
        let wanted = StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority: priority.and_then(priority_from_proto),
            send_test_on_save,
            connection_timeout: timeout,
            save_logs,
            log_level: violations.take("settings.log_level", level).and_then(level_from_proto),
            retry_intervals: parse_intervals(&retry_intervals, retry_floor, &mut violations),
            ..StoredSettings::default()
        };
        for (index, path) in paths.iter().enumerate() {
            // An etag may be named: it is compared, not stored.
            let known =
                ["*", "etag"].contains(&path.as_str()) || present.iter().any(|(name, _)| name == path);
            if !known {
                let description = format!("`{path}` is not a setting that can be changed");
                violations.add(format!("update_mask.paths[{index}]"), description);
            }
        }
        violations.finish()?;
        let named = |name: &str| paths.iter().any(|path| path == name || path == "*");
        let changes = |(name, present): (&'static str, bool)| {
            (if paths.is_empty() { present } else { named(name) }).then_some(name)
        };
        Ok(Self { wanted, paths: present.into_iter().filter_map(changes).collect() })
    }

    fn apply(self, stored: &mut StoredSettings) {
        let Self { wanted, paths } = self;
        let StoredSettings {
            enabled,
            user_accounts_enabled,
            require_confirmed_sender,
            account_priority,
            send_test_on_save,
            connection_timeout,
            save_logs,
            log_level,
            retry_intervals,
            ..
        } = wanted;
        for path in paths {
            match path {
                "enabled" => stored.enabled = enabled,
                "user_accounts_enabled" => stored.user_accounts_enabled = user_accounts_enabled,
                "require_confirmed_sender" => stored.require_confirmed_sender = require_confirmed_sender,
                "account_priority" => stored.account_priority = account_priority,
                "send_test_on_save" => stored.send_test_on_save = send_test_on_save,
                "connection_timeout" => stored.connection_timeout = connection_timeout,
                "save_logs" => stored.save_logs = save_logs,
                "log_level" => stored.log_level = log_level,
                _ => stored.retry_intervals.clone_from(&retry_intervals),
            }
        }
    }
}

/// The intervals; `None` where there are none, which stands for the default.
fn parse_intervals(
    values: &[prost_types::Duration],
    floor: Duration,
    violations: &mut Violations,
) -> Option<Vec<Duration>> {
    if values.len() > MAX_RETRY_INTERVALS {
        violations.add("settings.retry_intervals", format!("must be at most {MAX_RETRY_INTERVALS}"));
        return None;
    }
    let mut intervals = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let interval = fields::duration(*value).ok().filter(|i| (floor..=MAX_RETRY_INTERVAL).contains(i));
        let rule = || format!("must be {}s to {}s", floor.as_secs_f64(), MAX_RETRY_INTERVAL.as_secs());
        let field = format!("settings.retry_intervals[{index}]");
        intervals.extend(violations.take(&field, interval.ok_or_else(rule)));
    }
    (!intervals.is_empty()).then_some(intervals)
}

fn site_to_proto(site: Site) -> ProtoSite {
    ProtoSite {
        name: site.id.name(),
        display_name: site.display_name,
        create_time: Some(fields::to_timestamp(site.create_time)),
    }
}

fn settings_to_proto(settings: &Settings) -> ProtoSettings {
    let Settings { site, stored, version, update_time } = settings;
    ProtoSettings {
        name: format!("{}/settings", site.name()),
        enabled: Some(stored.enabled()),
        user_accounts_enabled: Some(stored.user_accounts_enabled()),
        require_confirmed_sender: Some(stored.require_confirmed_sender()),
        account_priority: Some(priority_to_proto(stored.account_priority()).into()),
        send_test_on_save: Some(stored.send_test_on_save()),
        connection_timeout: Some(fields::to_duration(stored.connection_timeout())),
        save_logs: Some(stored.save_logs()),
        log_level: Some(level_to_proto(stored.log_level()).into()),
        retry_intervals: stored.retry_intervals().into_iter().map(fields::to_duration).collect(),
        etag: etag_of(*version),
        update_time: update_time.map(fields::to_timestamp),
    }
}

fn etag_of(version: i64) -> String {
    fields::etag("settings", version)
}

/// The level; `None` for the default.
const fn level_from_proto(level: ProtoLogLevel) -> Option<LogLevel> {
    match level {
        ProtoLogLevel::Unspecified => None,
        ProtoLogLevel::Client => Some(LogLevel::Client),
        ProtoLogLevel::ClientServer => Some(LogLevel::ClientServer),
        ProtoLogLevel::Connection => Some(LogLevel::Connection),
        ProtoLogLevel::LowLevel => Some(LogLevel::LowLevel),
    }
}

/// The priority; `None` for the default.
const fn priority_from_proto(priority: ProtoPriority) -> Option<AccountPriority> {
    match priority {
        ProtoPriority::Unspecified => None,
        ProtoPriority::UserFirst => Some(AccountPriority::UserFirst),
        ProtoPriority::AdminFirst => Some(AccountPriority::AdminFirst),
    }
}

const fn priority_to_proto(priority: AccountPriority) -> ProtoPriority {
    match priority {
        AccountPriority::UserFirst => ProtoPriority::UserFirst,
        AccountPriority::AdminFirst => ProtoPriority::AdminFirst,
    }
}

const fn level_to_proto(level: LogLevel) -> ProtoLogLevel {
    match level {
        LogLevel::Client => ProtoLogLevel::Client,
        LogLevel::ClientServer => ProtoLogLevel::ClientServer,
        LogLevel::Connection => ProtoLogLevel::Connection,
        LogLevel::LowLevel => ProtoLogLevel::LowLevel,
    }
}
