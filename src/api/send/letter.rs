//! From a request's message to a letter that can be stored: addresses, content, account, all checked.

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::terms::{self, Terms};
use crate::api::fields::{self, Violations};
use crate::api::proto::message::Content as ProtoContent;
use crate::api::proto::{Attachment as ProtoAttachment, Composed as ProtoComposed, Message as ProtoMessage};
use crate::api::{Api, disabled, limits, mailbox};
use crate::domain::account::Origin;
use crate::domain::address::Mailbox;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::{MAX_RECIPIENTS, Recipient, RecipientKind};
use crate::domain::routing::{self, name_key};
use crate::domain::site::SiteId;
use crate::mime::compose::{self, Attachment, Composed};
use crate::mime::{Content, bad_parts, raw};
use crate::store::routes::Route as Stored;
use crate::store::senders;

/// Why a requested account is not used; the same words whether it exists or not.
const NOT_USABLE: &str = "the requested account does not exist, is not active, may not be used for this, or has another address than From";

/// A letter that is ready to be stored.
pub(super) struct Letter {
    /// From, `Name <address>` or `address`.
    pub(super) from_address: String,
    /// The envelope sender.
    pub(super) envelope_sender: String,
    /// The account that was chosen.
    pub(super) account: i64,
    /// Whether it is part of a mailing.
    pub(super) mailing: bool,
    /// On whose behalf; empty for the site itself.
    pub(super) user: String,
    /// What it asks for besides.
    pub(super) terms: Terms,
    /// Recipients, each address once, all pending.
    pub(super) recipients: Vec<Recipient>,
    /// The bytes and what a server must know of them.
    pub(super) content: Content,
}

/// What a request says, parsed: sender, recipients and content.
pub(super) struct Draft {
    from: Mailbox,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    bcc: Vec<Mailbox>,
    content: Body,
    route: Route,
    terms: Terms,
}

/// What beside From decides about the account.
struct Route {
    mailing: bool,
    user: String,
    requested: Option<i64>,
}

/// The content of a draft.
enum Body {
    Composed { composed: ProtoComposed, reply_to: Vec<Mailbox> },
    Raw(Content),
}

/// Parses a request's message; `None` with everything noted that is wrong.
pub(super) fn parse(
    site: Option<&SiteId>,
    message: ProtoMessage,
    id: Uuid,
    now: OffsetDateTime,
    violations: &mut Violations,
) -> Option<Draft> {
    let ProtoMessage {
        name: _,
        from_address,
        to,
        cc,
        bcc,
        content,
        mailing,
        user,
        account,
        copy_to_sender,
        send_time,
        expire_time,
        tags,
        state: _,
        message_id: _,
        recipients: _,
        attempts: _,
        next_attempt_time: _,
        create_time: _,
        final_time: _,
        size: _,
    } = message;
    let (times, tags) =
        (terms::times(send_time, expire_time, now, violations), terms::tags(tags, violations));
    let (send_time, expire_time) = times;
    let given = Given {
        terms: Terms { copy_to_sender, send_time, expire_time, tags },
        from: (!from_address.is_empty())
            .then(|| violations.take("message.from_address", mailbox::parse(&from_address)))
            .flatten(),
        to: mailbox::parse_all("message.to", &to, violations),
        cc: mailbox::parse_all("message.cc", &cc, violations),
        bcc: mailbox::parse_all("message.bcc", &bcc, violations),
    };
    let requested = violations.within(site, "message.account", &account, fields::account);
    let user = violations.take("message.user", fields::user(user)).unwrap_or_default();
    let route = Route { mailing, user, requested };
    // Counted as they are named: one that is bad was told already, and is not missing as well.
    let named = to.len() + cc.len() + bcc.len();
    let draft = match content {
        None => {
            violations.add("message.content", "must be `composed` or `raw`");
            None
        }
        Some(ProtoContent::Composed(composed)) => {
            if from_address.is_empty() {
                violations.add("message.from_address", "must not be empty");
            }
            given.with_composed(composed, route, violations)
        }
        Some(ProtoContent::Raw(bytes)) => given.with_raw(&bytes, route, id, now, violations),
    };
    let in_draft = draft.as_ref().map_or(0, |draft| draft.to.len() + draft.cc.len() + draft.bcc.len());
    let copies = usize::from(draft.as_ref().is_some_and(Draft::adds_sender));
    if !(1..=MAX_RECIPIENTS - copies).contains(&named.max(in_draft)) {
        let text = format!(
            "must be 1 to {MAX_RECIPIENTS} recipients together with cc and bcc, and a copy to the sender"
        );
        violations.add("message.to", text);
    }
    draft
}

fn attachments(composed: &ProtoComposed) -> Vec<Attachment<'_>> {
    composed
        .attachments
        .iter()
        .map(|ProtoAttachment { filename, content_type, content, content_id }| Attachment {
            filename,
            content_type,
            content,
            content_id,
        })
        .collect()
}

fn headers(composed: &ProtoComposed) -> Vec<(String, String)> {
    composed.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect()
}

/// What stands outside the content.
struct Given {
    terms: Terms,
    from: Option<Mailbox>,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    bcc: Vec<Mailbox>,
}

impl Given {
    fn with_composed(
        self,
        composed: ProtoComposed,
        route: Route,
        violations: &mut Violations,
    ) -> Option<Draft> {
        let reply_to = mailbox::parse_all("message.composed.reply_to", &composed.reply_to, violations);
        let of_parts = bad_parts(&composed.subject, &attachments(&composed), &headers(&composed));
        violations.extend("message.", of_parts);
        let Self { terms, from, to, cc, bcc } = self;
        Some(Draft { from: from?, to, cc, bcc, content: Body::Composed { composed, reply_to }, route, terms })
    }

    fn with_raw(
        self,
        bytes: &Bytes,
        route: Route,
        id: Uuid,
        now: OffsetDateTime,
        violations: &mut Violations,
    ) -> Option<Draft> {
        let domain = self.from.as_ref().map_or("localhost", |from| from.address.domain());
        let raw = match raw::normalise(bytes, self.terms.date(now), &message_id(id, domain)) {
            Ok(raw) => raw,
            Err(of_content) => {
                violations.extend("message.", of_content);
                return None;
            }
        };
        if let Some(from) = &self.from
            && !same_sender(from, &raw.from)
        {
            violations.add("message.from_address", "must be that of the raw message's From, or empty");
        }
        let nobody = self.to.is_empty() && self.cc.is_empty() && self.bcc.is_empty();
        let (to, cc, bcc) = if nobody { (raw.to, raw.cc, raw.bcc) } else { (self.to, self.cc, self.bcc) };
        let (content, terms) = (Body::Raw(raw.content), self.terms);
        Some(Draft { from: raw.from, to, cc, bcc, content, route, terms })
    }
}

impl Draft {
    /// The key of the address in From.
    pub(super) fn sender_key(&self) -> String {
        self.from.address.key()
    }

    /// On whose behalf; empty for the site itself.
    pub(super) fn user(&self) -> &str {
        &self.route.user
    }

    /// Chooses the account and puts the letter together.
    ///
    /// # Errors
    /// `SITE_DISABLED`, `NO_MATCHING_ACCOUNT`, `ACCOUNT_NOT_USABLE`, `SENDER_NOT_CONFIRMED`, `INVALID_FIELD`,
    /// `MESSAGE_TOO_LARGE`.
    pub(super) async fn finish(
        &self,
        api: &Api,
        site: &SiteId,
        stored: Stored,
        id: Uuid,
        now: OffsetDateTime,
    ) -> Result<Letter, Problem> {
        let address = &self.from.address;
        let Stored { settings, candidates } = stored;
        let settings = settings.ok_or_else(|| Problem::not_found(site.name()))?;
        if !settings.enabled {
            return Err(disabled(site));
        }
        let Route { mailing, user, requested } = &self.route;
        let asked = routing::Letter {
            from_name: self.from.name.as_deref(),
            user,
            mailing: *mailing,
            requested: *requested,
        };
        let chosen = routing::choose(&asked, settings.account_priority, &candidates);
        let (account, _) = chosen.ok_or_else(|| {
            if requested.is_some() {
                return Problem::new(Reason::AccountNotUsable, NOT_USABLE);
            }
            let text = format!("no account of {} that may be used has the address of From", site.name());
            Problem::new(Reason::NoMatchingAccount, text)
                .with("site", site.name())
                .with("from_address", address.to_string())
        })?;
        let candidate = candidates.iter().find(|candidate| candidate.account == account);
        if settings.require_confirmed_sender
            && !user.is_empty()
            && candidate.is_some_and(|candidate| candidate.origin == Origin::Admin)
            && !senders::is_confirmed(&api.store, site, user, &address.key()).await?
        {
            let text =
                "the From of a user's letter through the administrator's account needs a confirmed sender";
            return Err(
                Problem::new(Reason::SenderNotConfirmed, text).with("from_address", address.to_string())
            );
        }
        let mut from = self.from.clone();
        let content = match &self.content {
            Body::Raw(content) => content.clone(),
            Body::Composed { composed, reply_to } => {
                if from.name.is_none() {
                    from.name = candidate
                        .map(|candidate| candidate.sender_name.clone())
                        .filter(|name| !name.is_empty());
                }
                self.compose(composed, reply_to, &from, id, now)?
            }
        };
        if content.bytes.len() > api.options.max_letter_bytes {
            let size = content.bytes.len().to_string();
            return Err(limits::problem(api.options.max_letter_bytes).with("size", size));
        }
        Ok(Letter {
            from_address: self.from.to_string(),
            envelope_sender: address.to_string(),
            account,
            mailing: *mailing,
            user: user.clone(),
            terms: self.terms.clone(),
            recipients: self.recipients(),
            content,
        })
    }

    fn compose(
        &self,
        composed: &ProtoComposed,
        reply_to: &[Mailbox],
        from: &Mailbox,
        id: Uuid,
        now: OffsetDateTime,
    ) -> Result<Content, Problem> {
        let (attachments, headers) = (attachments(composed), headers(composed));
        let letter = Composed {
            from,
            to: &self.to,
            cc: &self.cc,
            reply_to,
            subject: &composed.subject,
            text: &composed.text,
            html: &composed.html,
            attachments: &attachments,
            headers: &headers,
            date: self.terms.date(now),
            message_id: &message_id(id, from.address.domain()),
        };
        compose::compose(&letter).map_err(|of_content| {
            let mut violations = Violations::default();
            violations.extend("message.", of_content);
            violations.problem()
        })
    }

    /// Everybody once, by address, where he is named first.
    fn recipients(&self) -> Vec<Recipient> {
        let named =
            [(RecipientKind::To, &self.to), (RecipientKind::Cc, &self.cc), (RecipientKind::Bcc, &self.bcc)];
        let mut seen = std::collections::HashSet::new();
        let mut recipients = Vec::new();
        for (kind, mailboxes) in named {
            for mailbox in mailboxes.iter().filter(|mailbox| seen.insert(mailbox.address.key())) {
                recipients.push(Recipient::new(mailbox.to_string(), mailbox.address.to_string(), kind));
            }
        }
        if self.adds_sender() {
            let (mailbox, address) = (self.from.to_string(), self.from.address.to_string());
            recipients.push(Recipient::new(mailbox, address, RecipientKind::Copy));
        }
        recipients
    }

    /// Whether the sender wants a copy, and is no recipient anyway.
    fn adds_sender(&self) -> bool {
        let own = self.from.address.key();
        let mut named = self.to.iter().chain(&self.cc).chain(&self.bcc);
        self.terms.copy_to_sender && named.all(|mailbox| mailbox.address.key() != own)
    }
}

fn message_id(id: Uuid, domain: &str) -> String {
    format!("<{id}@{domain}>")
}

/// Whether a sender is the one that the raw message names; a name counts only where it is given.
fn same_sender(given: &Mailbox, raw: &Mailbox) -> bool {
    let name = |mailbox: &Mailbox| mailbox.name.as_deref().map(name_key);
    given.address.key() == raw.address.key() && (given.name.is_none() || name(given) == name(raw))
}
