//! What a call must pass before a byte of its body is read: a place, a readable deadline, a key that counts. And what it is
//! held to afterwards: the deadline, and the memory of its request.

mod counting;
mod deadline;
mod frames;
mod intake;
mod places;
mod unpacking;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use self::counting::counted;
use self::deadline::Answer;
pub(super) use self::intake::Reception;
use self::intake::{Messages, Terms};
use self::places::{Kind, Places};
use self::unpacking::Unpacking;
use super::{Api, limits};
use crate::domain::error::Problem;
use crate::metrics::{Running, Shed};

/// Largest request of what needs no key: names of services, symbols and files.
const MAX_OPEN_MESSAGE: usize = 64 * 1024;
/// Those whose requests are streams: their clients may go on sending.
const CLIENT_STREAMS: [&str; 3] = [
    "/postroom.v1.SendService/SendMessages",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How many calls are taken at once.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Those that are answered by one message.
    pub max_calls: usize,
    /// Streams.
    pub max_streams: usize,
}

/// All services behind what calls must pass.
#[derive(Clone)]
pub struct Admission {
    api: Arc<Api>,
    places: Arc<Places>,
    unpacking: Arc<Unpacking>,
    routes: Routes,
}

/// Puts the services behind what calls must pass.
#[must_use]
pub fn admission(api: &Arc<Api>, routes: Routes) -> Admission {
    let places = Arc::new(Places::new(api.options.call_limits));
    let unpacking = Arc::new(Unpacking::new());
    Admission { api: Arc::clone(api), places, unpacking, routes: routes.prepare() }
}

impl Service<Request<Body>> for Admission {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let admission = self.clone();
        let path = request.uri().path();
        let running = Running::begin(self.api.store.metrics(), path, Kind::of(path).counted());
        Box::pin(async move {
            let response = admission.answer(request).await.unwrap_or_else(Status::into_http);
            Ok(counted(response, running))
        })
    }
}

impl Admission {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Self { api, places, unpacking, routes } = self;
        let kind = Kind::of(request.uri().path());
        // Reflection ends with its client. Who watches health is told that it falls, and let go after that.
        let is_many = CLIENT_STREAMS.contains(&request.uri().path());
        let shed = |_: &Problem| api.store.metrics().calls.shed(Shed::Places(kind.counted()));
        let place = places.take(kind).inspect_err(shed)?;
        let deadline = deadline::of(request.headers(), Instant::now())?;
        let work = pass(&api, kind, &unpacking, routes, request);
        let response = match deadline {
            Some(deadline) => timeout_at(deadline, work).await.map_err(|_| deadline::passed())??,
            None => work.await?,
        };
        Ok(match kind {
            // The work is done. The answer waits for its client, and costs only it.
            Kind::Call | Kind::Check => response,
            Kind::Stream => response.map(|body| Body::new(Answer::new(body, deadline, None, place))),
            Kind::Open => {
                let stop = is_many.then(|| api.stop.clone());
                response.map(|body| Body::new(Answer::new(body, deadline, stop, place)))
            }
        })
    }
}

/// Asks for the key, where one is needed, and hands the call over to its service.
async fn pass(
    api: &Api,
    kind: Kind,
    unpacking: &Unpacking,
    mut routes: Routes,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path();
    let largest = limits::largest(path, api.options.max_letter_bytes);
    let is_many = CLIENT_STREAMS.contains(&path);
    let messages = if is_many { Messages::Many } else { Messages::One };
    let terms = if kind.needs_key() {
        // The handler asks again, and counts the call: a large request comes in for minutes, after which a key that was
        // revoked meanwhile must be dead. That of a small one is still remembered.
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let credentials = api.authenticator.credentials(header).await?;
        let share = Some(api.memory.share_of(credentials.caller.key_id));
        Terms { messages, max_message: largest.request_bytes(), share, stop: None }
    } else {
        let stop = is_many.then(|| api.stop.clone());
        Terms { messages, max_message: MAX_OPEN_MESSAGE, share: None, stop }
    };
    let (parts, body) = request.into_parts();
    // What the request holds is held until it is answered, unless its handler takes it over.
    let metrics = Arc::clone(api.store.metrics());
    let reception = Reception::new(body, terms, unpacking.queue(), metrics);
    let mut request = Request::from_parts(parts, Body::new(reception.clone()));
    request.extensions_mut().insert(reception.clone());
    let Ok(response) = routes.call(request).await;
    Ok(limits::translate_too_large(response, largest))
}
