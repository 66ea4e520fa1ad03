//! How tests call: channels with a key, patience, and what an error says.

use std::time::Instant;

use postroom::api::proto::DownloadLogRequest;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::PATIENCE;

/// Puts `authorization` into every call.
#[derive(Clone)]
pub(crate) struct Authorisation(pub(crate) Option<MetadataValue<Ascii>>);

impl Interceptor for Authorisation {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Authorised = InterceptedService<Channel, Authorisation>;

/// A channel without a key to a server at this address.
pub(crate) fn bare_channel(address: &str) -> Channel {
    Endpoint::try_from(format!("http://{address}")).expect("an address").connect_lazy()
}

/// A channel with this key.
pub(crate) fn channel(address: &str, key: &str) -> Authorised {
    let value = Some(format!("Bearer {key}").parse().expect("a key is ASCII"));
    InterceptedService::new(bare_channel(address), Authorisation(value))
}

/// Calls as a patient client does: what a busy store refuses is asked again, the same request each time.
pub(crate) async fn patiently<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<T, Status> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && start.elapsed() < PATIENCE => {}
            answer => return answer.map(Response::into_inner),
        }
    }
}

/// Code, reason and metadata of an error of ours.
pub(crate) fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let information =
        details.error_info().unwrap_or_else(|| panic!("ErrorInfo in every error of ours: {status:?}"));
    assert_eq!(information.domain, "postroom");
    (status.code(), information.reason.clone())
}

/// A variable of an error's text.
pub(crate) fn variable(status: &Status, name: &str) -> String {
    let details = status.get_error_details();
    let information = details.error_info().expect("ErrorInfo in every error of ours");
    information.metadata.get(name).cloned().unwrap_or_default()
}

/// The fields that an error complains of.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    details
        .bad_request()
        .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
        .unwrap_or_default()
}

/// The text of a log.
pub(crate) async fn download(mut logs: LogsServiceClient<Authorised>, name: &str) -> String {
    let request = DownloadLogRequest { name: name.to_owned() };
    let mut stream = logs.download_log(request).await.expect("a log").into_inner();
    let mut text = String::new();
    while let Some(response) = stream.message().await.expect("the next lines") {
        text += &response.text;
    }
    text
}
