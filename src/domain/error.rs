//! What is wrong with a caller's input, field by field; how it is told over gRPC is the edge's business.

/// One bad field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field below what was checked, such as `composed.attachments[2].filename`.
    pub field: String,
    /// What the field must be, in words for the caller; never the field's whole value.
    pub description: String,
}

impl Violation {
    /// Names a field and what is wrong with it.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}
