//! A connection whose calls carry a key.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Puts `authorization` into every call.
#[derive(Clone)]
pub(crate) struct Authorisation(MetadataValue<Ascii>);

impl Authorisation {
    /// By this key.
    pub(crate) fn by(key: &str) -> Result<Self, tonic::metadata::errors::InvalidMetadataValue> {
        Ok(Self(format!("Bearer {key}").parse()?))
    }

    /// Calls over `channel` carry it.
    pub(crate) fn over(&self, channel: Channel) -> Authorised {
        InterceptedService::new(channel, self.clone())
    }
}

impl tonic::service::Interceptor for Authorisation {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Clients are made over this.
pub(crate) type Authorised = InterceptedService<Channel, Authorisation>;
