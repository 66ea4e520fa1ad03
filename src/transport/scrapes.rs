//! The listener of metrics: HTTP/1.1, `GET /metrics` and nothing else, over plain text and without a key. Whoever reaches it
//! costs a bounded number of connections, each for a bounded time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::metrics;

/// Connections at once: several servers of Prometheus, and a person. Further ones are closed unanswered.
const MAX_CONNECTIONS: usize = 16;
/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(5);
/// A connection is for one answer, and ends within this: more than Prometheus waits by itself (10 s).
const WHOLE: Duration = Duration::from_secs(20);
/// Largest head of a request, in bytes; hyper takes no less.
const MAX_HEAD: usize = 8 * 1024;
/// Wait after the system could give no connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Where metrics are.
const PATH: &str = "/metrics";

/// Serves what `render` makes, until this is dropped; `None` of it is an error of the server.
pub async fn serve<R, F>(listener: TcpListener, render: R)
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let render = render.clone();
                connections.spawn(async move {
                    if timeout(WHOLE, answer(stream, render)).await.is_err() {
                        tracing::debug!("a connection for metrics took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection for metrics can be taken");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn answer<R, F>(stream: TcpStream, render: R)
where
    R: Fn() -> F,
    F: Future<Output = Option<String>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let refusal = refusal(&request);
        let rendering = refusal.is_none().then(&render);
        async move {
            let rendered = match rendering {
                Some(rendering) => rendering.await,
                None => None,
            };
            Ok::<_, Infallible>(refusal.unwrap_or_else(|| page(rendered)))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

/// What is answered to other than `GET /metrics`.
fn refusal(request: &Request<Incoming>) -> Option<Response<String>> {
    if request.uri().path() != PATH {
        return Some(plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(refusal);
    }
    None
}

fn page(text: Option<String>) -> Response<String> {
    let Some(text) = text else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the server's log tells more\n");
    };
    let mut response = Response::new(text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
