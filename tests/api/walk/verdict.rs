//! What an answer to a bad value may be, and which fields it must name.

use postroom::api::proto::SendMessagesResponse;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::raw::Answer;
use super::values::Nature;

/// Most violations in an answer, and most bytes of its details (API 2).
const MAX_VIOLATIONS: usize = 20;
const MAX_DETAILS: usize = 4_096;

/// Fields that a value of another one makes wrong, since the two must fit: the name of a thing and the site it is in,
/// whose an account is and where it comes from.
const BOUND: [(&str, &str); 2] = [("parent", "name"), ("account.origin", "account.user")];

/// How a value fared.
pub(super) enum Fate {
    /// It was taken.
    Taken,
    /// It was refused, with the fields that are named.
    Named(Vec<String>),
    /// It was refused for another reason than its form.
    Otherwise,
}

/// What a value was sent as.
pub(super) struct Trial<'a> {
    /// The path that a violation must name.
    pub(super) path: &'a str,
    /// The choices that the field is in: of broken bytes no more may be known.
    pub(super) choices: &'a [String],
    pub(super) nature: Nature,
    /// Whether control characters may be taken: in the body of a letter, and in what is not the caller's.
    pub(super) lenient: bool,
}

/// Looks at an answer; in words what is wrong with it.
pub(super) fn judge(trial: &Trial<'_>, answer: &Answer) -> Result<Fate, String> {
    let (code, reason, fields) = match answer {
        Answer::Taken(_) if trial.nature == Nature::NoText => return Err("taken, and no UTF-8".to_owned()),
        Answer::Taken(_) if trial.nature == Nature::Control && !trial.lenient => {
            return Err("taken with control characters".to_owned());
        }
        Answer::Taken(_) => return Ok(Fate::Taken),
        Answer::Refused(status) => of_status(status)?,
        Answer::Item(code, reason, text) => (Code::from(*code), reason.clone(), fields_of_text(text)),
    };
    match code {
        Code::InvalidArgument => {
            if reason != "INVALID_FIELD" {
                return Err(format!("INVALID_ARGUMENT for {reason}"));
            }
            if !names(trial, &fields) {
                return Err(format!("names {fields:?}"));
            }
            Ok(Fate::Named(fields))
        }
        _ if trial.nature == Nature::NoText => Err(format!("{code:?} {reason} for what is no UTF-8")),
        Code::NotFound
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::AlreadyExists => Ok(Fate::Otherwise),
        Code::OutOfRange if reason == "RESUME_TOKEN_EXPIRED" => Ok(Fate::Otherwise),
        Code::Aborted if reason == "ETAG_MISMATCH" => Ok(Fate::Otherwise),
        code => Err(format!("{code:?} {reason}")),
    }
}

/// Code, reason and the fields that are named.
pub(super) fn of_status(status: &Status) -> Result<(Code, String, Vec<String>), String> {
    let details = status.get_error_details();
    let Some(information) = details.error_info().filter(|information| information.domain == "postroom")
    else {
        return Err(format!("no words of ours: {:?} {}", status.code(), status.message()));
    };
    if status.details().len() > MAX_DETAILS {
        return Err(format!("{} bytes of details", status.details().len()));
    }
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    if violations.len() > MAX_VIOLATIONS {
        return Err(format!("{} violations", violations.len()));
    }
    let fields = violations.into_iter().map(|violation| violation.field).collect();
    Ok((status.code(), information.reason.clone(), fields))
}

/// The fields in the text of an item's error.
pub(super) fn fields_of_text(text: &str) -> Vec<String> {
    text.split("; ").filter_map(|part| Some(part.split_once(": ")?.0.to_owned())).collect()
}

/// Whether the fields are those that a refusal must name.
fn names(trial: &Trial<'_>, fields: &[String]) -> bool {
    let path = trial.path;
    let is_at_or_below = |field: &str, path: &str| {
        field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    match trial.nature {
        Nature::Typed | Nature::Control => {
            let bound = |field: &str| BOUND.contains(&(path, field));
            fields.iter().any(|field| is_at_or_below(field, path) || bound(field))
        }
        // Protobuf tells which field it was in, not which element of it.
        Nature::NoText => fields.iter().any(|field| *field == without_indices(path)),
        // Broken bytes may end a message around the field, or read as a field beside it.
        Nature::Malformed => {
            let bare = without_indices(path);
            let around = bare.rsplit_once('.').map_or("", |(around, _)| around);
            fields
                .iter()
                .filter(|field| !trial.choices.contains(field))
                .map(|field| without_indices(field))
                .all(|field| {
                    is_at_or_below(&field, around) || is_at_or_below(&bare, &field) || around.is_empty()
                })
        }
    }
}

/// The path without the numbers of elements.
pub(super) fn without_indices(path: &str) -> String {
    let mut bare = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => bare.push(c),
            _ => {}
        }
    }
    bare
}

/// The letter of a result of `SendMessages`.
pub(super) fn letter(response: &[u8]) -> Option<postroom::api::proto::Message> {
    SendMessagesResponse::decode(response).expect("a result").message
}
