//! Senders: asked for, confirmed by a code that was mailed, listed together with the accounts that may be used.

use prost::Message as _;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::code_letter::CodeLetter;
use crate::api::Api;
use crate::api::fields::{self, Violations};
use crate::api::page::{self, Page, Tokens};
use crate::api::proto::sender::Source as ProtoSource;
use crate::api::proto::{
    CreateSenderRequest, ListSendersRequest, ListSendersResponse, Sender as ProtoSender,
};
use crate::domain::access::{Caller, Rpc};
use crate::domain::address::Mailbox;
use crate::domain::error::{Problem, Reason};
use crate::domain::secret::Secret;
use crate::domain::sender::{self, Sender, Source, Wish, sender_name};
use crate::domain::site::SiteId;
use crate::metrics::Via;
use crate::mime::words;
use crate::store::sender_codes::{self, Tried};
use crate::store::senders::{self, Created, NewCode, NewSender};
use crate::store::usable::{self, Of, Usable};
use crate::vault::Fingerprint;

/// Longest sender name in characters.
const MAX_SENDER_NAME: usize = 256;
/// What the MAC over a request's content is made for.
const REQUEST_MAC: &str = "CreateSender request";
/// The choice of account is made again so often, where the chosen one is changed or deleted at that very moment.
const MAX_CHOICES: usize = 3;
/// When to try again after that.
const CHOICE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What a request asks for.
pub(super) struct Asked {
    wish: Wish,
    request_id: Option<String>,
    /// The MAC over the request's content.
    own: Fingerprint,
}

impl Asked {
    /// Parses a request.
    ///
    /// # Errors
    /// `INVALID_FIELD` with everything that is wrong.
    pub(super) fn parse(api: &Api, request: &CreateSenderRequest) -> Result<Self, Problem> {
        let CreateSenderRequest { parent: _, sender, request_id } = request;
        let mut violations = Violations::default();
        let request_id = violations.take("request_id", fields::request_id(request_id)).flatten();
        let request_id = request_id.map(str::to_owned);
        let sender = sender.as_ref().ok_or_else(|| Problem::invalid_field("sender", "must be set"));
        let sender = violations.take_parsed(sender);
        let wish = sender.and_then(|sender| parse(sender.clone(), &mut violations));
        let (sender, wish) = violations.finish_with(sender.zip(wish))?;
        let own = api.store.vault().fingerprint(REQUEST_MAC, &sender.encode_to_vec());
        Ok(Self { wish, request_id, own })
    }
}

/// Asks for a sender: saves it, and mails a code unless it is confirmed.
pub(super) async fn create(
    api: &Api,
    caller: &Caller,
    site: &SiteId,
    asked: Asked,
) -> Result<ProtoSender, Problem> {
    let Asked { wish, request_id, own } = asked;
    let request_id = request_id.as_deref();
    if wish.source == Source::Mailbox {
        // That it is somebody's mailbox is the operator's word, which nobody else can give.
        caller.may(Rpc::CreateSender.right_if(true), Some(site))?;
    }
    let settings = api.settings_of_enabled(site).await?;
    if let Some(id) = request_id
        && let Some((sender, known)) = senders::find_by_request(&api.store, site, id).await?
    {
        return first_result(api, caller, site, sender, &known, &own).await;
    }
    let request = request_id.map(|id| (id, own.mac().as_slice()));
    let key = wish.sender_email.key();
    let there = senders::find_by_address(&api.store, site, &wish.user, &key).await?;
    let needs_code = wish.source == Source::Code && !there.is_some_and(|there| there.confirmed);
    for _ in 0..MAX_CHOICES {
        let code = sender::new_code(&SystemRandom::new())?;
        let letter = if needs_code {
            Some(CodeLetter::write(api, site, &settings, &wish, &code).await?)
        } else {
            None
        };
        let message = letter.map(CodeLetter::message);
        let code = message.as_ref().map(|letter| NewCode { id: Uuid::now_v7(), code: &code, letter });
        match senders::create(&api.store, &NewSender { site, wish: &wish, code, request }).await? {
            Created::Saved(sender) => {
                if message.is_some() {
                    api.store.metrics().delivery.accepted(Via::Own);
                }
                return Ok(to_proto(&sender, caller));
            }
            Created::RequestKnown { sender, mac: known } => {
                return first_result(api, caller, site, sender, &known, &own).await;
            }
            Created::TooManyCodes(wait) => {
                let text = format!("too many codes were mailed to {}, try again later", wish.sender_email);
                return Err(Problem::new(Reason::RateLimited, text)
                    .with("sender_email", wish.sender_email.to_string())
                    .retry_after(wait));
            }
            Created::NoSite => return Err(Problem::not_found(site.name())),
            Created::AccountChanged => {}
        }
    }
    let text = "the account of the letter with the code is being changed, try again";
    Err(Problem::new(Reason::StoreUnavailable, text).retry_after(CHOICE_RETRY))
}

/// The sender of an earlier call with the same request id, if its content was the same.
async fn first_result(
    api: &Api,
    caller: &Caller,
    site: &SiteId,
    sender: i64,
    known: &[u8],
    own: &Fingerprint,
) -> Result<ProtoSender, Problem> {
    if !own.is(known) {
        let text = "this request_id was used before, for another sender";
        return Err(Problem::new(Reason::RequestIdReused, text));
    }
    Ok(to_proto(&find(api, site, sender).await?, caller))
}

fn parse(sender: ProtoSender, violations: &mut Violations) -> Option<Wish> {
    let ProtoSender {
        name: _,
        sender_name,
        sender_email,
        user,
        shared,
        source,
        confirmed: _,
        deletable: _,
        create_time: _,
    } = sender;
    let sender_name =
        violations.take("sender.sender_name", fields::text(&words::decode(&sender_name), MAX_SENDER_NAME));
    let mailbox = violations.take("sender.sender_email", Mailbox::parse(&sender_email));
    if mailbox.as_ref().is_some_and(|mailbox| mailbox.name.is_some()) {
        violations.add("sender.sender_email", "must be an address without a name");
    }
    let user = violations.take("sender.user", fields::user(user));
    let source = ProtoSource::try_from(source).map_err(|_| "is not a source");
    let source = violations.take("sender.source", source).map(|source| match source {
        ProtoSource::Unspecified | ProtoSource::Code => Source::Code,
        ProtoSource::Mailbox => Source::Mailbox,
    });
    Some(Wish {
        sender_name: sender_name?,
        sender_email: mailbox?.address,
        user: user?,
        shared,
        source: source?,
    })
}

/// Tries a code.
pub(super) async fn confirm(
    api: &Api,
    caller: &Caller,
    site: &SiteId,
    id: i64,
    code: &Secret,
) -> Result<ProtoSender, Problem> {
    let name = sender_name(site, id);
    api.settings_of_enabled(site).await?;
    find(api, site, id).await?;
    match sender_codes::confirm(&api.store, site, id, code).await? {
        Tried::Confirmed => Ok(to_proto(&find(api, site, id).await?, caller)),
        Tried::Wrong(left) => {
            let text = format!("that is not the code that was mailed for {name}; tries left: {left}");
            Err(Problem::new(Reason::CodeWrong, text).with("name", name).with("tries_left", left.to_string()))
        }
        Tried::Expired => {
            let text = format!(
                "there is no code for {name} that counts: it is too old, was tried too often or used, or a newer one was mailed"
            );
            Err(Problem::new(Reason::CodeExpired, text).with("name", name))
        }
    }
}

/// Which senders are asked for.
pub(super) struct Listed<'a> {
    page: Page,
    user: String,
    tokens: Tokens<'a>,
}

impl<'a> Listed<'a> {
    /// Parses a request.
    ///
    /// # Errors
    /// `INVALID_FIELD` with everything that is wrong.
    pub(super) fn parse(api: &'a Api, request: &ListSendersRequest) -> Result<Self, Problem> {
        let ListSendersRequest { parent, user, page_size, page_token } = request;
        let mut violations = Violations::default();
        let tokens = Tokens::new(api.store.vault(), "senders page", &[parent.as_bytes(), user.as_bytes()]);
        let page = Page::parse(*page_size, page_token, &tokens, &mut violations);
        let user = violations.take("user", fields::user(user.clone()));
        let (page, user) = violations.finish_with(page.zip(user))?;
        Ok(Self { page, user, tokens })
    }
}

/// A page of the addresses that a user may put into From.
pub(super) async fn list(
    api: &Api,
    caller: &Caller,
    site: &SiteId,
    listed: Listed<'_>,
) -> Result<ListSendersResponse, Problem> {
    let Listed { page: Page { size, place }, user, tokens } = listed;
    let after = place.and_then(|place| parse_place(&place)).unwrap_or(Of::Sender(0));
    let settings = api.settings_of(site).await?;
    let needs_sender = settings.require_confirmed_sender && !user.is_empty();
    let limit = page::limit(size);
    let mut found = usable::list(&api.store, site, &user, needs_sender, after, limit).await?;
    let next_page_token =
        page::cut(&mut found, size).map(|last| tokens.make(&place_of(last.of))).unwrap_or_default();
    let senders = found.into_iter().map(|usable| usable_to_proto(site, usable, caller)).collect();
    Ok(ListSendersResponse { senders, next_page_token })
}

fn place_of(of: Of) -> String {
    match of {
        Of::Sender(id) => format!("s{id}"),
        Of::Account(id) => format!("a{id}"),
    }
}

fn parse_place(place: &str) -> Option<Of> {
    match place.split_at_checked(1)? {
        ("s", id) => id.parse().ok().map(Of::Sender),
        ("a", id) => id.parse().ok().map(Of::Account),
        _ => None,
    }
}

/// Deletes a sender.
pub(super) async fn delete(api: &Api, caller: &Caller, site: &SiteId, id: i64) -> Result<(), Problem> {
    api.settings_of_enabled(site).await?;
    let sender = find(api, site, id).await?;
    if sender.wish.source == Source::Mailbox {
        caller.may(Rpc::DeleteSender.right_if(true), Some(site))?;
    }
    let also_mailbox = caller.may(Rpc::DeleteSender.right_if(true), Some(site)).is_ok();
    if senders::delete(&api.store, site, id, also_mailbox).await? {
        return Ok(());
    }
    Err(Problem::not_found(sender_name(site, id)))
}

async fn find(api: &Api, site: &SiteId, id: i64) -> Result<Sender, Problem> {
    let found = senders::find(&api.store, site, id).await?;
    found.ok_or_else(|| Problem::not_found(sender_name(site, id)))
}

fn to_proto(sender: &Sender, caller: &Caller) -> ProtoSender {
    let Sender { site, id, wish, confirmed, create_time } = sender;
    let Wish { sender_name, sender_email, user, shared, source } = wish.clone();
    let usable = Usable {
        of: Of::Sender(*id),
        sender_name,
        sender_email: sender_email.to_string(),
        user,
        shared,
        source: Some(source),
        confirmed: *confirmed,
        create_time: *create_time,
    };
    usable_to_proto(site, usable, caller)
}

fn usable_to_proto(site: &SiteId, usable: Usable, caller: &Caller) -> ProtoSender {
    let Usable { of, sender_name: display, sender_email, user, shared, source, confirmed, create_time } =
        usable;
    let (name, deletable) = match of {
        Of::Sender(id) => (sender_name(site, id), may_delete(caller, site, source)),
        Of::Account(_) => (String::new(), false),
    };
    ProtoSender {
        name,
        sender_name: display,
        sender_email,
        user,
        shared,
        source: match source {
            None => ProtoSource::Unspecified,
            Some(Source::Code) => ProtoSource::Code,
            Some(Source::Mailbox) => ProtoSource::Mailbox,
        }
        .into(),
        confirmed,
        deletable,
        create_time: Some(fields::to_timestamp(create_time)),
    }
}

fn may_delete(caller: &Caller, site: &SiteId, source: Option<Source>) -> bool {
    let right = Rpc::DeleteSender.right_if(source == Some(Source::Mailbox));
    caller.may(right, Some(site)).is_ok()
}
