//! What a request decodes into, counted before it is decoded: an empty attachment takes two bytes on the wire and a hundred
//! in memory, so that the size of a request says little of what becomes of it.
//!
//! Elements are counted: each sub-message, each value of a repeated field. All else takes no more in memory than on the wire,
//! or its place in a message is there whether it is set or not.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

use super::malformed;
use super::proto::DESCRIPTORS;
use crate::domain::error::Problem;

/// Elements of a request, at most. The largest letter has 1,000 recipients, 1,000 attachments, 100 headers and 10 tags; with
/// what is Output only, where it is one that was read and is sent again, 1,000 recipients more, each with a reply. What is
/// not much too long is told so by the rule of its own list.
const MAX_ELEMENTS: usize = 5_000;
/// Fields of a request, at most, wherever they are: several for each element. They take no memory, but time.
const MAX_FIELDS: usize = 50_000;
/// How deep messages may be in each other, as prost has it. Ours are four deep.
const MAX_DEPTH: usize = 100;

/// A message's fields, in the order of their numbers.
type Fields = Vec<Field>;

struct Field {
    number: u32,
    name: String,
    content: Content,
}

#[derive(Clone, Copy)]
enum Content {
    /// At most one value.
    Single,
    /// Texts or bytes, one each time.
    Texts,
    /// Numbers, one each time or many together, each of a byte at least.
    Numbers,
    /// Messages, whose fields are those of this index.
    Message(usize),
}

/// All messages of the protos.
struct Messages {
    fields: Vec<Fields>,
    /// Those that are requests, by their full names.
    requests: HashMap<String, usize>,
}

/// What a request may hold.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    messages: &'static Messages,
    request: usize,
}

impl Elements {
    /// Those of a message of this type; `None` where it is no request.
    pub(super) fn of<T: Name>() -> Option<Self> {
        static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
            // That they can be read, reflection sees at every start.
            Messages::of(&FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default())
        });
        let request = *MESSAGES.requests.get(&T::full_name())?;
        Some(Self { messages: &MESSAGES, request })
    }

    /// Whether a request of these bytes may be decoded.
    ///
    /// # Errors
    /// `INVALID_FIELD` where there are too many elements, or the bytes are no protobuf: where a field is longer than the
    /// message that it is in, prost decodes all of it before it says so.
    pub(super) fn check(self, request: &[u8]) -> Result<(), Problem> {
        self.messages.check(self.request, request)
    }
}

/// Why bytes are not decoded, with the fields on the way there, the innermost first.
struct Refusal<'a> {
    path: Vec<&'a str>,
    why: String,
}

impl From<DecodeError> for Refusal<'_> {
    fn from(error: DecodeError) -> Self {
        Self::new(error.to_string())
    }
}

impl<'a> Refusal<'a> {
    fn new(why: impl Into<String>) -> Self {
        Self { path: Vec::new(), why: why.into() }
    }

    fn in_field(mut self, name: &'a str) -> Self {
        self.path.push(name);
        self
    }

    fn problem(self) -> Problem {
        let Self { mut path, why } = self;
        path.reverse();
        malformed::unreadable(path.join("."), &why)
    }
}

impl Messages {
    fn of(files: &FileDescriptorSet) -> Self {
        let mut described = Vec::new();
        for file in &files.file {
            for message in &file.message_type {
                describe(&format!(".{}", file.package()), message, &mut described);
            }
        }
        let index_of: HashMap<&str, usize> =
            described.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
        let field = |field: &FieldDescriptorProto| {
            let content = match (index_of.get(field.type_name()), field.label(), field.r#type()) {
                (Some(message), ..) => Content::Message(*message),
                (None, Label::Repeated, Type::String | Type::Bytes) => Content::Texts,
                (None, Label::Repeated, _) => Content::Numbers,
                (None, ..) => Content::Single,
            };
            Some(Field {
                number: u32::try_from(field.number()).ok()?,
                name: field.name().to_owned(),
                content,
            })
        };
        let fields_of = |(_, message): &(String, &DescriptorProto)| {
            let mut fields: Fields = message.field.iter().filter_map(field).collect();
            fields.sort_unstable_by_key(|field| field.number);
            fields
        };
        let fields = described.iter().map(fields_of).collect();
        let services = files.file.iter().flat_map(|file| &file.service);
        let inputs = services.flat_map(|service| &service.method).map(MethodDescriptorProto::input_type);
        let requests = inputs.filter_map(|name| Some((name.get(1..)?.to_owned(), *index_of.get(name)?)));
        Self { fields, requests: requests.collect() }
    }

    fn check(&self, message: usize, bytes: &[u8]) -> Result<(), Problem> {
        let mut left = Left { elements: MAX_ELEMENTS, fields: MAX_FIELDS };
        self.count(message, bytes, MAX_DEPTH, &mut left).map_err(Refusal::problem)
    }

    /// Takes the elements and fields of a message from those that are left. Prost's own functions read what is counted, so that it
    /// finds the same when it decodes.
    fn count(
        &self,
        message: usize,
        mut bytes: &[u8],
        depth: usize,
        left: &mut Left,
    ) -> Result<(), Refusal<'_>> {
        let fields = self.fields.get(message).map_or(&[][..], Vec::as_slice);
        while !bytes.is_empty() {
            left.take_field()?;
            let (number, wire_type) = decode_key(&mut bytes)?;
            let known = fields.binary_search_by_key(&number, |field| field.number);
            match known.ok().and_then(|index| fields.get(index)) {
                None => skip_field(wire_type, number, &mut bytes, DecodeContext::default())?,
                Some(Field { number, name, content }) => {
                    let counted = within(*number, wire_type, &mut bytes)
                        .and_then(|within| self.count_field(*content, within, depth, left));
                    counted.map_err(|refusal| refusal.in_field(name))?;
                }
            }
        }
        Ok(())
    }

    fn count_field(
        &self,
        content: Content,
        within: &[u8],
        depth: usize,
        left: &mut Left,
    ) -> Result<(), Refusal<'_>> {
        match content {
            Content::Single => Ok(()),
            Content::Texts => left.take_elements(1),
            Content::Numbers => left.take_elements(within.len().max(1)),
            Content::Message(message) => {
                left.take_elements(1)?;
                let depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| Refusal::new("messages are too deep in each other"))?;
                self.count(message, within, depth, left)
            }
        }
    }
}

/// What a request may still have.
struct Left {
    elements: usize,
    fields: usize,
}

impl Left {
    fn take_elements<'a>(&mut self, number: usize) -> Result<(), Refusal<'a>> {
        self.elements = self.elements.checked_sub(number).ok_or_else(|| {
            Refusal::new(format!("a request may have at most {MAX_ELEMENTS} messages and values of lists"))
        })?;
        Ok(())
    }

    fn take_field<'a>(&mut self) -> Result<(), Refusal<'a>> {
        self.fields = self
            .fields
            .checked_sub(1)
            .ok_or_else(|| Refusal::new(format!("a request may have at most {MAX_FIELDS} fields")))?;
        Ok(())
    }
}

/// What a text, bytes or a message hold, or numbers that stand together; nothing for other values. Another wire type than
/// the field's own is refused when it is decoded.
fn within<'a, 'b>(number: u32, wire_type: WireType, bytes: &mut &'a [u8]) -> Result<&'a [u8], Refusal<'b>> {
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, number, bytes, DecodeContext::default())?;
        return Ok(&[]);
    }
    let length = decode_varint(bytes)?;
    let within = usize::try_from(length).ok().and_then(|length| bytes.split_off(..length));
    within.ok_or_else(|| Refusal::new("it is longer than what it is in"))
}

/// Adds a message and those that are declared in it, with their full names.
fn describe<'a>(parent: &str, message: &'a DescriptorProto, all: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{parent}.{}", message.name());
    for inner in &message.nested_type {
        describe(&name, inner, all);
    }
    all.push((name, message));
}

#[cfg(test)]
mod tests {
    use prost::encoding::{encode_key, encode_varint};
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;
    use crate::api::proto::message::{Content as LetterContent, State};
    use crate::api::proto::{
        Attachment, CancelMessagesRequest, Composed, Message, Recipient, Reply, SendMessageRequest,
        SendMessageResponse, TailLogEntriesRequest,
    };
    use crate::domain::error::Reason;

    fn check<T: Name>(bytes: &[u8]) -> Result<(), (String, String)> {
        Elements::of::<T>().expect("a request").check(bytes).map_err(|problem| {
            assert_eq!(problem.reason, Reason::InvalidField);
            let field = problem.violations.first().map(|violation| violation.field.clone());
            (field.unwrap_or_default(), problem.text)
        })
    }

    fn field_of<T: Name>(bytes: &[u8]) -> Option<String> {
        check::<T>(bytes).err().map(|(field, _)| field)
    }

    /// A text, bytes or a message.
    fn bytes(number: u32, value: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut field);
        encode_varint(value.len() as u64, &mut field);
        [&field, value].concat()
    }

    fn attachments(number: usize) -> Vec<u8> {
        bytes(2, &bytes(6, &bytes(5, &[]).repeat(number)))
    }

    #[test]
    fn the_largest_letter_has_fewer() {
        let address = |number: usize| format!("{number}@example.com");
        let recipient = |number| Recipient {
            address: address(number),
            reply: Some(Reply { code: 250, text: "taken".to_owned(), ..Reply::default() }),
            ..Recipient::default()
        };
        let attachment = |number| Attachment { filename: address(number), ..Attachment::default() };
        let header =
            |number| crate::api::proto::Header { name: format!("X-{number}"), value: address(number) };
        let composed = Composed {
            attachments: (0..1_000).map(attachment).collect(),
            headers: (0..100).map(header).collect(),
            reply_to: (0..100).map(address).collect(),
            ..Composed::default()
        };
        let message = Message {
            to: (0..1_000).map(address).collect(),
            tags: (0..10).map(address).collect(),
            recipients: (0..1_000).map(recipient).collect(),
            content: Some(LetterContent::Composed(composed)),
            ..Message::default()
        };
        let request = SendMessageRequest { message: Some(message), ..SendMessageRequest::default() };
        assert_eq!(check::<SendMessageRequest>(&request.encode_to_vec()), Ok(()));
    }

    #[test]
    fn all_elements_count() {
        // `message` and `composed` are two of them.
        assert_eq!(field_of::<SendMessageRequest>(&attachments(MAX_ELEMENTS - 2)), None);
        let one_more = check::<SendMessageRequest>(&attachments(MAX_ELEMENTS - 1)).expect_err("too many");
        let text = "a request may have at most 5000 messages and values of lists";
        let field = "message.composed.attachments";
        assert_eq!(one_more, (field.to_owned(), format!("{field}: {text}")));
        // However they are shared out.
        let half = attachments(MAX_ELEMENTS / 2);
        assert_eq!(field_of::<SendMessageRequest>(&half.repeat(2)).as_deref(), Some(field));
        let texts = bytes(2, b"").repeat(MAX_ELEMENTS + 1);
        assert_eq!(field_of::<TailLogEntriesRequest>(&texts).as_deref(), Some("logs"));
        let states = vec![i32::from(State::Queued); MAX_ELEMENTS + 1];
        let together = CancelMessagesRequest { states, ..CancelMessagesRequest::default() }.encode_to_vec();
        assert_eq!(field_of::<CancelMessagesRequest>(&together).as_deref(), Some("states"));
        let one_by_one = [0x20, 1].repeat(MAX_ELEMENTS + 1);
        assert_eq!(field_of::<CancelMessagesRequest>(&one_by_one).as_deref(), Some("states"));
    }

    #[test]
    fn what_takes_no_memory_is_bounded_for_its_time() {
        for field in [bytes(1, b"sites/1"), vec![0x20, 1], bytes(99, b"")] {
            assert_eq!(check::<SendMessageRequest>(&field.repeat(MAX_FIELDS)), Ok(()));
            let (field, text) =
                check::<SendMessageRequest>(&field.repeat(MAX_FIELDS + 1)).expect_err("too many");
            assert!(field.is_empty() && text.contains("at most 50000 fields"), "{text}");
        }
    }

    /// What claims to go on behind its end, prost decodes to that end before it refuses it.
    #[test]
    fn what_is_longer_than_its_message_is_refused() {
        let mut inner = Vec::new();
        encode_key(6, WireType::LengthDelimited, &mut inner);
        encode_varint(2_000_000, &mut inner);
        let request = [bytes(2, &inner), bytes(5, &[]).repeat(1_000_000)].concat();
        assert_eq!(field_of::<SendMessageRequest>(&request).as_deref(), Some("message.composed"));
        for torn in [&[0x0a, 200][..], &[0x0a, 1], &[0x09, 1, 2], &[0x80], &[0x0c], &[0x0b, 0x08, 1], &[0]] {
            assert!(check::<SendMessageRequest>(torn).is_err(), "{torn:?}");
            assert!(SendMessageRequest::decode(torn).is_err(), "{torn:?}");
        }
    }

    #[test]
    fn requests_are_known_and_responses_are_not() {
        assert!(Elements::of::<SendMessageResponse>().is_none());
        let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let methods: usize =
            files.file.iter().flat_map(|file| &file.service).map(|one| one.method.len()).sum();
        let messages = Messages::of(&files);
        assert!(methods > 25 && messages.requests.len() == methods, "{methods} methods");
        assert!(messages.requests.contains_key("postroom.v1.SendMessagesRequest"));
    }

    /// None of ours is such: a message within itself, and a map.
    #[test]
    fn other_protos_would_be_counted_as_well() {
        let message = |name: &str, fields: &[(i32, &str, Label)], nested_type| DescriptorProto {
            name: Some(name.to_owned()),
            field: fields
                .iter()
                .map(|(number, type_name, label)| FieldDescriptorProto {
                    name: Some(format!("f{number}")),
                    number: Some(*number),
                    label: Some((*label).into()),
                    r#type: Some(Type::Message.into()),
                    type_name: Some((*type_name).to_owned()),
                    ..FieldDescriptorProto::default()
                })
                .collect(),
            nested_type,
            ..DescriptorProto::default()
        };
        let entry = message("MapEntry", &[], vec![]);
        let fields = [(1, ".p.Tree", Label::Optional), (2, ".p.Tree.MapEntry", Label::Repeated)];
        let method = MethodDescriptorProto { input_type: Some(".p.Tree".to_owned()), ..Default::default() };
        let file = FileDescriptorProto {
            package: Some("p".to_owned()),
            message_type: vec![message("Tree", &fields, vec![entry])],
            service: vec![ServiceDescriptorProto { method: vec![method], ..Default::default() }],
            ..FileDescriptorProto::default()
        };
        let messages = Messages::of(&FileDescriptorSet { file: vec![file] });
        let tree = messages.requests["p.Tree"];
        assert!(messages.check(tree, &bytes(2, &[]).repeat(MAX_ELEMENTS)).is_ok());
        assert!(messages.check(tree, &bytes(2, &[]).repeat(MAX_ELEMENTS + 1)).is_err());
        let nested = |depth| (0..depth).fold(Vec::new(), |inner, _| bytes(1, &inner));
        assert!(messages.check(tree, &nested(MAX_DEPTH)).is_ok());
        assert!(messages.check(tree, &nested(MAX_DEPTH + 1)).is_err());
    }
}
