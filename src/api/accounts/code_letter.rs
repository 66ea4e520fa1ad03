//! The letter that brings a code to the address that is to be confirmed.

use uuid::Uuid;

use crate::api::{Api, fields::Violations};
use crate::domain::address::Mailbox;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::{Recipient, RecipientKind};
use crate::domain::routing;
use crate::domain::secret::Secret;
use crate::domain::sender::Wish;
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;
use crate::mime::Content;
use crate::mime::compose::{self, Composed};
use crate::store::candidates::{self, Owners};
use crate::store::sites;
use crate::store::taking::NewMessage;

/// A letter of our own from an address to itself, ready to be taken.
pub(super) struct CodeLetter<'a> {
    site: &'a SiteId,
    id: Uuid,
    account: i64,
    from_address: String,
    address: String,
    user: &'a str,
    recipients: Vec<Recipient>,
    content: Content,
}

impl<'a> CodeLetter<'a> {
    /// Chooses the account and writes the letter.
    ///
    /// # Errors
    /// `NO_MATCHING_ACCOUNT`; `NOT_FOUND` where there is no such site.
    pub(super) async fn write(
        api: &Api,
        site: &'a SiteId,
        settings: &EffectiveSettings,
        wish: &'a Wish,
        code: &Secret,
    ) -> Result<Self, Problem> {
        let Wish { sender_name, sender_email, user, shared: _, source: _ } = wish;
        let display_name = sites::find(&api.store, site).await?;
        let display_name = display_name.ok_or_else(|| Problem::not_found(site.name()))?.display_name;
        let display_name = if display_name.is_empty() { site.to_string() } else { display_name };
        let candidates =
            candidates::list(&api.store, site, &sender_email.key(), Owners::UsableBy(user)).await?;
        let asked = routing::Letter {
            from_name: Some(sender_name.as_str()).filter(|name| !name.is_empty()),
            user,
            mailing: false,
            requested: None,
        };
        let (account, _) =
            routing::choose(&asked, settings.account_priority, &candidates).ok_or_else(|| {
                let text = format!("no account of {} that may be used has this address", site.name());
                Problem::new(Reason::NoMatchingAccount, text)
                    .with("site", site.name())
                    .with("from_address", sender_email.to_string())
            })?;
        let chosen = candidates.into_iter().find(|candidate| candidate.account == account);
        let name = chosen.map(|chosen| chosen.sender_name).filter(|name| !name.is_empty());
        let from = Mailbox { name, address: sender_email.clone() };
        let to = Mailbox { name: None, address: sender_email.clone() };
        let id = Uuid::now_v7();
        let content = compose::compose(&Composed {
            from: &from,
            to: std::slice::from_ref(&to),
            cc: &[],
            reply_to: &[],
            subject: &format!("Confirm your address for {display_name}"),
            text: &text(&display_name, &to.to_string(), code),
            html: "",
            attachments: &[],
            // Nobody's holiday message should answer it (RFC 3834).
            headers: &[("Auto-Submitted".to_owned(), "auto-generated".to_owned())],
            date: api.store.clock().now(),
            message_id: &format!("<{id}@{}>", sender_email.domain()),
        })
        .map_err(|of_content| {
            let mut violations = Violations::default();
            violations.extend("sender.", of_content);
            violations.problem()
        })?;
        let recipient = Recipient::new(to.to_string(), sender_email.to_string(), RecipientKind::To);
        Ok(Self {
            site,
            id,
            account,
            from_address: from.to_string(),
            address: sender_email.to_string(),
            user,
            recipients: vec![recipient],
            content,
        })
    }

    /// The letter as it is taken.
    pub(super) fn message(self) -> NewMessage {
        let Self { site, id, account, from_address, address, user, recipients, content } = self;
        NewMessage {
            site: site.clone(),
            id,
            account,
            from_address,
            envelope_sender: address,
            rfc_message_id: content.message_id,
            recipients,
            content: content.bytes.into(),
            eight_bit: content.eight_bit,
            utf8_headers: content.utf8_headers,
            mailing: false,
            user: user.to_owned(),
            is_own: true,
            copy_to_sender: false,
            send_time: None,
            expire_time: None,
            tags: Vec::new(),
            request: None,
        }
    }
}

fn text(display_name: &str, address: &str, code: &Secret) -> String {
    let code = String::from_utf8_lossy(code.expose());
    format!(
        "Somebody, probably you, wants to send mail from {address} with {display_name}.\n\n\
         To confirm that this address is yours, enter this code there:\n\n    {code}\n\n\
         It is valid for one hour. If you did not ask for it, do nothing and tell nobody the code:\n\
         without it nobody can use your address.\n"
    )
}
