//! A request that is not protobuf, or not that of the call: tonic calls it INTERNAL; the contract says `INVALID_ARGUMENT`,
//! `INVALID_FIELD`, with the name of the field where protobuf tells it.

use std::sync::LazyLock;

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::{Code, Status};

use super::proto::DESCRIPTORS;
use crate::domain::error::{Problem, Reason};

/// How prost begins what it says of bytes that it cannot read.
const UNREADABLE: &str = "failed to decode Protobuf message: ";
/// What prost says of a text that is none.
const NO_TEXT: &str = "invalid string value";
/// How tonic begins what it says of a request that is not there, or ends or is packed in a way that gRPC does not know.
const BROKEN: [&str; 4] = [
    "Missing request message.",
    "Unexpected EOF decoding stream.",
    "Error decompressing: ",
    "protocol error: received message with ",
];

/// What answers a request that cannot be read, if this status says so of one.
pub(super) fn problem(status: &Status) -> Option<Problem> {
    // What is INTERNAL by our own word has details.
    if status.code() != Code::Internal || !status.details().is_empty() {
        return None;
    }
    if let Some(words) = status.message().strip_prefix(UNREADABLE) {
        let (path, why) = read(words);
        return Some(unreadable(path, why));
    }
    let is_broken = BROKEN.iter().any(|words| status.message().starts_with(words));
    is_broken.then(|| Problem::new(Reason::InvalidField, "the request is not a whole gRPC message"))
}

/// What answers a request that is unreadable there, by prost's words or our own.
pub(super) fn unreadable(path: String, why: &str) -> Problem {
    let why = why.strip_prefix(UNREADABLE).unwrap_or(why);
    if path.is_empty() {
        Problem::new(Reason::InvalidField, format!("the request is not protobuf: {why}"))
    } else {
        Problem::invalid_field(path, why)
    }
}

/// The path and the reason in prost's words, which begin inside: `Message.to: Request.message: invalid string value`. The
/// numbers of elements are not in them.
fn read(words: &str) -> (String, &str) {
    let mut rest = words;
    let mut steps = Vec::new();
    while let Some((step, behind)) = rest.split_once(": ")
        && let Some((message, field)) = step.split_once('.')
        && !step.contains(' ')
    {
        steps.push((message, field));
        rest = behind;
    }
    steps.reverse();
    let names = steps.iter().enumerate().map(|(index, (message, field))| {
        let inner = steps.get(index + 1).map(|(message, _)| *message);
        chosen(message, field, inner, rest).unwrap_or(*field)
    });
    (names.collect::<Vec<_>>().join("."), rest)
}

/// The member of a choice that the words are about, where `field` is a choice and they tell it: its name stands where a
/// field's does.
fn chosen(message: &str, field: &str, inner: Option<&str>, why: &str) -> Option<&'static str> {
    static MESSAGES: LazyLock<Vec<DescriptorProto>> = LazyLock::new(|| {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        files.into_iter().flat_map(|file| file.message_type).collect()
    });
    let described = MESSAGES.iter().find(|described| described.name() == message)?;
    let choice = described.oneof_decl.iter().position(|choice| choice.name() == field)?;
    let mut members = described
        .field
        .iter()
        .filter(|member| member.oneof_index.and_then(|index| usize::try_from(index).ok()) == Some(choice));
    let of_type = |member: &str| member.rsplit('.').next().unwrap_or_default() == inner.unwrap_or_default();
    // Without a message inside only what is said of texts tells which member it is; a choice has one text at most.
    if inner.is_none() && !why.starts_with(NO_TEXT) {
        return None;
    }
    members.find(|member| of_type(member.type_name())).map(prost_types::FieldDescriptorProto::name)
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::problem;

    fn fields(words: &str) -> Option<Vec<String>> {
        let violations = problem(&Status::internal(words))?.violations;
        Some(violations.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (words, field) in [
            ("GetSiteRequest.name: invalid string value", "name"),
            ("Message.to: SendMessageRequest.message: invalid string value", "message.to"),
            (
                "Composed.subject: Message.content: SendMessageRequest.message: invalid string value",
                "message.composed.subject",
            ),
            ("Message.content: SendMessageRequest.message: invalid wire type", "message.content"),
            ("Timestamp.nanos: WatchEventsRequest.start: invalid varint", "start_time.nanos"),
            ("WatchEventsRequest.start: invalid string value", "resume_token"),
            ("FieldMask.paths: UpdateAccountRequest.update_mask: invalid varint", "update_mask.paths"),
        ] {
            let words = format!("failed to decode Protobuf message: {words}");
            assert_eq!(fields(&words), Some(vec![field.to_owned()]), "{words}");
        }
        for words in ["failed to decode Protobuf message: buffer underflow", "Missing request message."] {
            assert_eq!(fields(words), Some(vec![]), "{words}");
        }
        assert_eq!(fields("internal error"), None);
    }
}
