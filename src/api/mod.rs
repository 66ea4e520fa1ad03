//! The gRPC edge: proto to domain and back, and nothing else. One file or folder for each noun.

mod accounts;
mod admission;
mod auth;
mod check_limits;
mod codec;
mod elements;
mod fields;
mod follow;
mod limits;
mod logs;
mod mailbox;
mod malformed;
mod memory;
mod page;
mod presence;
pub mod proto;
mod rate;
mod read_notes;
mod send;
mod settings;
mod status;
mod strangers;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::service::Routes;

pub use self::admission::{Admission, CallLimits, admission};
use self::auth::{Authenticator, Credentials};
use self::check_limits::CheckBudget;
pub use self::check_limits::CheckLimits;
use self::memory::Memory;
use self::presence::Presence;
use self::proto::accounts_service_server::AccountsServiceServer;
use self::proto::logs_service_server::LogsServiceServer;
use self::proto::send_service_server::SendServiceServer;
use self::proto::settings_service_server::SettingsServiceServer;
use self::read_notes::ReadNotes;
use crate::domain::access::{Caller, Right};
use crate::domain::error::{Problem, Reason};
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;
use crate::smtp::Connector;
use crate::store::{Store, settings as stored_settings};

/// What the operator decides about the API.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Smallest retry interval a site may set.
    pub retry_floor: Duration,
    /// Largest letter in bytes after MIME encoding.
    pub max_letter_bytes: usize,
    /// Checks of accounts allowed a minute.
    pub check_limits: CheckLimits,
    /// Calls a second of a key that sets no limit of its own.
    pub calls_per_key: NonZeroU32,
    /// How many calls are taken at once.
    pub call_limits: CallLimits,
}

/// What all services work with.
pub struct Api {
    store: Store,
    connector: Arc<Connector>,
    authenticator: Authenticator,
    presence: Presence,
    check_budget: CheckBudget,
    read_notes: ReadNotes,
    memory: Arc<Memory>,
    options: ApiOptions,
    /// The soft stop: streams end, waiting calls answer.
    stop: CancellationToken,
}

impl Api {
    /// The API over this store, checking accounts through this connector, until `stop`.
    #[must_use]
    pub fn new(
        store: Store,
        connector: Arc<Connector>,
        options: ApiOptions,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            authenticator: Authenticator::new(store.clone(), options.calls_per_key),
            presence: Presence::new(store.clone()),
            check_budget: CheckBudget::new(options.check_limits),
            read_notes: ReadNotes::default(),
            memory: Memory::for_requests_of(options.max_letter_bytes + limits::LETTER_OVERHEAD_BYTES),
            store,
            connector,
            options,
            stop,
        })
    }

    /// What a call names, if its caller has the right for the site of it. The key is looked at first: who has none learns
    /// nothing, not even that a name is malformed.
    async fn authorise<T: OfSite>(
        &self,
        metadata: &MetadataMap,
        right: Right,
        named: Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.admit(metadata, right, named).await.map(|(_, named)| named)
    }

    /// The same with the credentials, for what is noted by them, and for a stream that asks again.
    async fn admit<T: OfSite>(
        &self,
        metadata: &MetadataMap,
        right: Right,
        named: Result<T, Problem>,
    ) -> Result<(Credentials, T), Problem> {
        let credentials = self.authenticator.caller(metadata).await?;
        // Who may not make the call at all is not told what is wrong with it either.
        let named = match named {
            Err(_) if !credentials.caller.holds(right) => return Err(Caller::denied()),
            named => named?,
        };
        credentials.caller.may(right, named.site()).inspect_err(|_| {
            // The one trace of somebody who tries what a key opens.
            let site = named.site().map(SiteId::as_str);
            tracing::warn!(key = %credentials.caller.key_id, site, ?right, "a key without the right was refused");
        })?;
        if let Some(site) = named.site() {
            self.presence.demand(site).await?;
        }
        Ok((credentials, named))
    }

    /// What a call names, and all that it says besides. What is wrong is told at once, of the name and of the rest, but
    /// only to one who may make the call. `parse` gets the site, where it is known.
    async fn admit_all<T: OfSite, Said>(
        &self,
        metadata: &MetadataMap,
        right: Right,
        named: Result<T, Problem>,
        parse: impl FnOnce(Option<&SiteId>) -> Result<Said, Problem>,
    ) -> Result<(Credentials, T, Said), Problem> {
        match self.admit(metadata, right, named).await {
            Ok((credentials, named)) => {
                let said = parse(named.site())?;
                Ok((credentials, named, said))
            }
            Err(problem) if problem.reason == Reason::InvalidField => {
                Err(problem.together_with(parse(None).err()))
            }
            Err(problem) => Err(problem),
        }
    }

    /// The settings of a site.
    async fn settings_of(&self, site: &SiteId) -> Result<EffectiveSettings, Problem> {
        let settings = stored_settings::find(&self.store, site).await?;
        settings.map(|settings| settings.effective).ok_or_else(|| Problem::not_found(site.name()))
    }

    /// The settings of a site that is switched on.
    async fn settings_of_enabled(&self, site: &SiteId) -> Result<EffectiveSettings, Problem> {
        let settings = self.settings_of(site).await?;
        if settings.enabled {
            return Ok(settings);
        }
        Err(disabled(site))
    }
}

/// What a call hears that needs a site which is switched off.
fn disabled(site: &SiteId) -> Problem {
    let text = format!("{} is switched off in its settings", site.name());
    Problem::new(Reason::SiteDisabled, text).with("site", site.name())
}

/// Something that a request names, and the site it is of.
trait OfSite {
    /// The site; none for what is above all sites.
    fn site(&self) -> Option<&SiteId>;
}

impl OfSite for () {
    fn site(&self) -> Option<&SiteId> {
        None
    }
}

impl OfSite for SiteId {
    fn site(&self) -> Option<&SiteId> {
        Some(self)
    }
}

impl<T> OfSite for (SiteId, T) {
    fn site(&self) -> Option<&SiteId> {
        Some(&self.0)
    }
}

/// The names of all services, as health tells of them.
pub const SERVICE_NAMES: [&str; 4] = [
    <SettingsServiceServer<settings::Service> as NamedService>::NAME,
    <AccountsServiceServer<accounts::Service> as NamedService>::NAME,
    <SendServiceServer<send::Service> as NamedService>::NAME,
    <LogsServiceServer<logs::Service> as NamedService>::NAME,
];

/// All services, with their limits.
#[must_use]
pub fn routes(api: &Arc<Api>) -> Routes {
    let gzip = CompressionEncoding::Gzip;
    let with_letter = api.options.max_letter_bytes + limits::LETTER_OVERHEAD_BYTES;
    Routes::new(
        SettingsServiceServer::new(settings::Service(Arc::clone(api)))
            .max_decoding_message_size(limits::MAX_REQUEST_BYTES)
            .accept_compressed(gzip)
            .send_compressed(gzip),
    )
    .add_service(
        AccountsServiceServer::new(accounts::Service(Arc::clone(api)))
            .max_decoding_message_size(limits::MAX_REQUEST_BYTES)
            .accept_compressed(gzip)
            .send_compressed(gzip),
    )
    .add_service(
        SendServiceServer::new(send::Service(Arc::clone(api)))
            .max_decoding_message_size(with_letter)
            .accept_compressed(gzip)
            .send_compressed(gzip),
    )
    .add_service(
        LogsServiceServer::new(logs::Service(Arc::clone(api)))
            .max_decoding_message_size(limits::MAX_REQUEST_BYTES)
            .accept_compressed(gzip)
            .send_compressed(gzip),
    )
}

/// Runs work that writes in a task of its own, so that a call that is cancelled or runs into its deadline cannot stop
/// it half way (DESIGN 3).
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call's work failed");
        Err(Problem::new(Reason::Internal, "internal error; the server's log tells more"))
    })
}
