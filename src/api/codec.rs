//! Requests and responses as bytes and back: as prost has it, but what a request decodes into is counted before.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{self, DecodeBuf};
use tonic_prost::ProstEncoder;

use super::elements::Elements;

/// What the generated services and clients write `T` with and read `U` with.
pub(super) struct Codec<T, U>(PhantomData<(T, U)>);

/// Reads requests, none of which has too many elements; responses, which are our own, as they are.
pub(super) struct Decoder<U> {
    elements: Option<Elements>,
    decoded: PhantomData<U>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: Name> Default for Decoder<U> {
    fn default() -> Self {
        Self { elements: Elements::of::<U>(), decoded: PhantomData }
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder::default()
    }
}

impl<U: Message + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Not copied: it is shared with the buffer.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if let Some(elements) = self.elements {
            elements.check(&bytes)?;
        }
        // `malformed` has the contract's words for it.
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
