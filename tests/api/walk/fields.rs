//! The fields of requests, as the descriptors tell them: all of them, down to the last one of the deepest message.

use postroom::api::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::wire::Step;

/// Deeper than any request is.
const MAX_DEPTH: usize = 8;

/// One field of a request.
#[derive(Clone)]
pub(super) struct Field {
    /// Its path as violations name it: `message.composed.attachments[0].filename`.
    pub(super) path: String,
    /// The way to it in the bytes.
    pub(super) way: Vec<Step>,
    /// What it is.
    pub(super) descriptor: FieldDescriptor,
    /// The choices that it is in, as violations name them.
    pub(super) choices: Vec<String>,
    /// Whether callers are told that it is not theirs, here or in a message around it.
    pub(super) output_only: bool,
}

/// All services.
pub(super) fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).expect("descriptors")
}

/// The calls of a service.
pub(super) fn calls(service: &str) -> Vec<MethodDescriptor> {
    let service = pool().get_service_by_name(&format!("postroom.v1.{service}")).expect("a service");
    service.methods().collect()
}

/// Every field of a call's request.
pub(super) fn of(call: &MethodDescriptor) -> Vec<Field> {
    let mut fields = Vec::new();
    let top = Around { prefix: String::new(), way: Vec::new(), choices: Vec::new(), hidden: false };
    collect(&call.input(), &top, &mut fields);
    for field in &mut fields {
        // `Output only. ... Input in UpdateAccount.`
        field.output_only &= !comment(&field.descriptor).contains(&format!("Input in {}", call.name()));
    }
    fields
}

/// The message inside a field, if its fields are walked; times and masks are named as a whole.
pub(super) fn walked(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(inner) if !inner.full_name().starts_with("google.") => Some(inner),
        _ => None,
    }
}

/// What is around the fields of a message.
struct Around {
    prefix: String,
    way: Vec<Step>,
    choices: Vec<String>,
    hidden: bool,
}

fn collect(message: &MessageDescriptor, around: &Around, fields: &mut Vec<Field>) {
    let Around { prefix, way, choices, hidden } = around;
    assert!(way.len() < MAX_DEPTH, "{prefix} has no end");
    for descriptor in message.fields() {
        assert!(
            !descriptor.is_map(),
            "{} is a map: the walk has no values for it yet",
            descriptor.full_name()
        );
        let output_only = *hidden || comment(&descriptor).starts_with("Output only.");
        let path = format!("{prefix}{}", descriptor.name());
        let way = [way.as_slice(), &[(descriptor.number(), 0)]].concat();
        let mut choices = choices.clone();
        if let Some(choice) = descriptor.containing_oneof().filter(|choice| !choice.is_synthetic()) {
            choices.push(format!("{prefix}{}", choice.name()));
        }
        let inner = walked(&descriptor);
        let below = if descriptor.is_list() { format!("{path}[0].") } else { format!("{path}.") };
        fields.push(Field { path, way: way.clone(), descriptor, choices: choices.clone(), output_only });
        if let Some(inner) = inner {
            let inside = Around { prefix: below, way, choices, hidden: output_only };
            collect(&inner, &inside, fields);
        }
    }
}

/// The comment in the proto file.
fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_message().parent_file();
    let source = file.file_descriptor_proto().source_code_info.as_ref().expect("comments are kept");
    let own = source.location.iter().find(|location| location.path == field.path());
    let comment = own.map(|location| location.leading_comments().trim().to_owned()).unwrap_or_default();
    assert!(!comment.is_empty(), "{} has a comment", field.full_name());
    comment
}
