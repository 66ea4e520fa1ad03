//! Logs and entries as they are answered.

use crate::api::fields;
use crate::api::proto::log_entry::Kind as ProtoKind;
use crate::api::proto::restart::Cause;
use crate::api::proto::{Log as ProtoLog, LogEntry as ProtoEntry, Restart as ProtoRestart};
use crate::domain::account::{Origin, account_name};
use crate::domain::log::rotation::{Restart, RestartCause};
use crate::domain::log::{Chunk, Entry, EntryKind, Log};
use crate::domain::site::SiteId;
use crate::store::logs::StoredRestart;

/// A log as it is answered.
pub(super) fn log(site: &SiteId, log: Log) -> ProtoLog {
    let Log { id, owner, size_bytes, update_time } = log;
    let mut tags = vec![id.tag().to_owned()];
    tags.extend(owner.as_ref().and_then(|owner| origin_tag(owner.origin)).map(str::to_owned));
    let (sender_name, sender_email) =
        owner.map(|owner| (owner.sender_name, owner.sender_email)).unwrap_or_default();
    let account = id.account().map(|account| account_name(site, account)).unwrap_or_default();
    ProtoLog {
        name: format!("{}/logs/{id}", site.name()),
        file_name: id.file_name(),
        account,
        sender_name,
        sender_email,
        tags,
        size_bytes,
        update_time: Some(fields::to_timestamp(update_time)),
    }
}

/// An entry of a chunk as it is answered.
pub(super) fn entry(chunk: &Chunk, entry: &Entry) -> ProtoEntry {
    let Entry { time, kind, text } = entry;
    let site = chunk.site.name();
    ProtoEntry {
        log: format!("{site}/logs/{}", chunk.log),
        time: Some(fields::to_timestamp(*time)),
        kind: kind_to_proto(*kind).into(),
        text: text.clone(),
        session: chunk.session.map(|session| session.to_string()).unwrap_or_default(),
        message: chunk.message.map(|(id, _)| format!("{site}/messages/{id}")).unwrap_or_default(),
        attempt: chunk.message.map_or(0, |(_, attempt)| attempt),
    }
}

/// Bytes of an entry's texts.
pub(super) fn text_bytes(entry: &ProtoEntry) -> usize {
    entry.log.len() + entry.text.len() + entry.session.len() + entry.message.len()
}

/// A restart as it is answered.
pub(super) fn restart(site: &SiteId, stored: &StoredRestart) -> ProtoRestart {
    let StoredRestart { position: _, log, restart: Restart { cause, time } } = *stored;
    let cause = match cause {
        RestartCause::Period => Cause::Period,
        RestartCause::Size => Cause::Size,
        RestartCause::AccountChanged => Cause::AccountChanged,
        RestartCause::AccountDeleted => Cause::AccountDeleted,
        RestartCause::Cleared => Cause::Cleared,
    };
    ProtoRestart {
        log: format!("{}/logs/{log}", site.name()),
        cause: cause.into(),
        time: Some(fields::to_timestamp(time)),
    }
}

/// The tag by which portals show whose account it is.
const fn origin_tag(origin: Origin) -> Option<&'static str> {
    match origin {
        Origin::Admin => None,
        Origin::Mailbox => Some("[Mail]"),
        Origin::Crm => Some("[CRM]"),
    }
}

const fn kind_to_proto(kind: EntryKind) -> ProtoKind {
    match kind {
        EntryKind::Error => ProtoKind::Error,
        EntryKind::Client => ProtoKind::Client,
        EntryKind::Server => ProtoKind::Server,
        EntryKind::Connection => ProtoKind::Connection,
        EntryKind::Data => ProtoKind::Data,
        EntryKind::Audit => ProtoKind::Audit,
    }
}

/// The kind of this number; `None` for one that says nothing.
pub(super) fn kind_from_proto(kind: i32) -> Option<EntryKind> {
    match ProtoKind::try_from(kind).ok()? {
        ProtoKind::Unspecified => None,
        ProtoKind::Error => Some(EntryKind::Error),
        ProtoKind::Client => Some(EntryKind::Client),
        ProtoKind::Server => Some(EntryKind::Server),
        ProtoKind::Connection => Some(EntryKind::Connection),
        ProtoKind::Data => Some(EntryKind::Data),
        ProtoKind::Audit => Some(EntryKind::Audit),
    }
}
