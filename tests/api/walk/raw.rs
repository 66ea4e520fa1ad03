//! Calls whose requests are bytes: also such as no client library would write.

use postroom::api::proto::SendMessagesResponse;
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use bytes::{Buf as _, BufMut as _};

use crate::support::Authorised;

/// What is sent and answered is bytes.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// How a call ended.
pub(super) enum Answer {
    /// The response, or the first one of a stream; empty where a stream had none.
    Taken(Vec<u8>),
    /// An error.
    Refused(Status),
    /// An item of `SendMessages` that was not taken: code, reason and text.
    Item(i32, String, String),
}

/// Calls, with one request; of a stream of responses the first is waited for.
pub(super) async fn call(channel: &Authorised, method: &MethodDescriptor, request: Vec<u8>) -> Answer {
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(64 * 1024 * 1024);
    if let Err(error) = client.ready().await {
        return Answer::Refused(Status::unknown(error.to_string()));
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::try_from(path).expect("a path");
    let answered = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => {
            client.unary(Request::new(request), path, Bytes).await.map(tonic::Response::into_inner)
        }
        (false, true) => match client.server_streaming(Request::new(request), path, Bytes).await {
            Ok(stream) => stream.into_inner().message().await.map(Option::unwrap_or_default),
            Err(status) => Err(status),
        },
        (true, true) => {
            let requests = tokio_stream::once(request);
            match client.streaming(Request::new(requests), path, Bytes).await {
                Ok(stream) => stream.into_inner().message().await.map(Option::unwrap_or_default),
                Err(status) => Err(status),
            }
        }
        (true, false) => panic!("no call of ours is of this kind"),
    };
    match answered {
        Ok(response) if method.name() == "SendMessages" => {
            let result = SendMessagesResponse::decode(response.as_slice()).expect("a result");
            match result.error {
                Some(error) => Answer::Item(error.code, error.reason, error.text),
                None => Answer::Taken(response),
            }
        }
        Ok(response) => Answer::Taken(response),
        Err(status) => Answer::Refused(status),
    }
}
