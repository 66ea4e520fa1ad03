//! Clients that keep to nothing: HTTP/2 without gRPC's manners, and frames written by hand.

use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::support::PATIENCE;

pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const LIST_SITES: &str = "/postroom.v1.SettingsService/ListSites";
pub(crate) const SEND_MESSAGE: &str = "/postroom.v1.SendService/SendMessage";
pub(crate) const TAIL: &str = "/postroom.v1.LogsService/TailLogEntries";

/// A message in its frame, as it stands in a body.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    with_prefix(0, &message.encode_to_vec())
}

/// Bytes as the message of a body, compressed (1) or not (0).
pub(crate) fn with_prefix(flag: u8, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).expect("a length").to_be_bytes();
    [&[flag], &length[..], bytes].concat().into()
}

/// The head of a call.
pub(crate) fn head(path: &str, key: Option<&str>, more: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a head")
}

/// One connection, driven by hand.
pub(crate) struct RawClient {
    send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl RawClient {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Whether the server still takes calls on this connection: what it says instead.
    pub(crate) async fn refusal(&self) -> Option<h2::Error> {
        self.send.clone().ready().await.err()
    }

    /// Begins a call; its body stays open.
    pub(crate) async fn begin(&mut self, head: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_begin(head).await.expect("a stream")
    }

    /// The same, unless the server takes no further ones.
    pub(crate) async fn try_begin(
        &mut self,
        head: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ready = self.send.clone().ready();
        self.send = timeout(PATIENCE, ready).await.expect("a place for a stream in time")?;
        self.send.send_request(head, false)
    }

    /// A whole call: how it ended. What a busy store refuses is asked again.
    pub(crate) async fn call(&mut self, head: Request<()>, body: Bytes) -> Status {
        let start = Instant::now();
        loop {
            let again = clone_of(&head);
            let ended = self.call_once(again, body.clone()).await;
            if ended.code() != Code::Unavailable || start.elapsed() > PATIENCE {
                return ended;
            }
        }
    }

    /// The same without patience.
    async fn call_once(&mut self, head: Request<()>, body: Bytes) -> Status {
        let (response, mut stream) = self.begin(head).await;
        // Fails where the server has answered before it read all.
        let _ = stream.send_data(body, true);
        status(response).await
    }
}

fn clone_of(head: &Request<()>) -> Request<()> {
    let mut again = Request::new(());
    again.method_mut().clone_from(head.method());
    again.uri_mut().clone_from(head.uri());
    again.headers_mut().clone_from(head.headers());
    again
}

/// How a call ended, in headers or in trailers; what it answered before is read and dropped.
pub(crate) async fn status(response: ResponseFuture) -> Status {
    timeout(PATIENCE, ended(response)).await.expect("an end in time").expect("an end with a status")
}

async fn ended(response: ResponseFuture) -> Result<Status, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(status);
    }
    while let Some(data) = body.data().await {
        let count = data?.len();
        body.flow_control().release_capacity(count)?;
    }
    let trailers: HeaderMap = body.trailers().await?.unwrap_or_default();
    Ok(Status::from_header_map(&trailers).expect("a status at the end of a call"))
}

/// Begins a call and takes it back at once.
pub(crate) async fn reset(client: &mut RawClient, head: Request<()>) -> Result<(), h2::Error> {
    let (_, mut stream) = client.try_begin(head).await?;
    stream.send_reset(Reason::CANCEL);
    Ok(())
}

pub(crate) const DATA_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;
/// RFC 9113 7.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame (RFC 9113 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field, not indexed and not compressed (RFC 7541 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let short =
        |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    [&[0, short(name)], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
}

/// The fields of a call without a key.
pub(crate) fn fields(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A connection on which frames are written by hand.
pub(crate) struct Hand(TcpStream);

impl Hand {
    pub(crate) async fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let beginning = [DATA_PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&beginning).await.expect("written");
        Self(stream)
    }

    /// Writes frames while somebody reads what comes back; how many bytes were taken, and the code of GOAWAY, if there was
    /// one before the connection ended.
    pub(crate) async fn flood(
        self,
        chunks: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> (usize, Option<u32>) {
        let (mut read, mut write) = self.0.into_split();
        let writing = tokio::spawn(async move {
            let mut written = 0;
            for chunk in chunks {
                if write.write_all(&chunk).await.is_err() {
                    break;
                }
                written += chunk.len();
            }
            // Kept: what the server answers is still to come.
            (written, write)
        });
        let mut code = None;
        let reading = async {
            let mut head = [0; 9];
            while read.read_exact(&mut head).await.is_ok() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                if head[3] == GOAWAY {
                    code = payload[4..8].try_into().ok().map(u32::from_be_bytes);
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the server ends the connection");
        let (written, _) = writing.await.expect("no panic");
        (written, code)
    }
}
