//! The addresses that a user may put into From: senders, then accounts.

use sqlx::query_as;
use time::OffsetDateTime;

use super::{Store, StoreError};
use crate::domain::account::Origin;
use crate::domain::sender::Source;
use crate::domain::site::SiteId;

/// What an address is of. In the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The sender of this id.
    Sender(i64),
    /// The account of this id.
    Account(i64),
}

/// An address that a user may put into From, or may once he has confirmed it.
#[derive(Clone, Debug)]
pub struct Usable {
    /// What it is of.
    pub of: Of,
    /// Name of the sender, maybe empty.
    pub sender_name: String,
    /// The address.
    pub sender_email: String,
    /// Whose it is; empty for the site itself.
    pub user: String,
    /// Whether everyone of the site may use it.
    pub shared: bool,
    /// How it is known that it may be used; none for accounts that are nobody's mailbox.
    pub source: Option<Source>,
    /// Whether a letter of this user may go with it now.
    pub confirmed: bool,
    /// When it was created.
    pub create_time: OffsetDateTime,
}

struct UsableRow {
    is_account: bool,
    id: i64,
    sender_name: String,
    sender_email: String,
    user_id: String,
    shared: bool,
    kind: String,
    confirmed: bool,
    create_time: OffsetDateTime,
}

impl TryFrom<UsableRow> for Usable {
    type Error = StoreError;

    fn try_from(row: UsableRow) -> Result<Self, StoreError> {
        let UsableRow {
            is_account,
            id,
            sender_name,
            sender_email,
            user_id,
            shared,
            kind,
            confirmed,
            create_time,
        } = row;
        let source = if is_account {
            let origin = Origin::from_name(&kind).ok_or(StoreError::Corrupt("origin"))?;
            (origin == Origin::Mailbox).then_some(Source::Mailbox)
        } else {
            Some(Source::from_name(&kind).ok_or(StoreError::Corrupt("source"))?)
        };
        let of = if is_account { Of::Account(id) } else { Of::Sender(id) };
        Ok(Self { of, sender_name, sender_email, user: user_id, shared, source, confirmed, create_time })
    }
}

/// Up to `limit` addresses behind `after`: the user's senders and confirmed shared ones by id, then active accounts that
/// he may send through by id. `needs_sender`: the administrator's accounts need a confirmed sender beside them.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    store: &Store,
    site: &SiteId,
    user: &str,
    needs_sender: bool,
    after: Of,
    limit: i64,
) -> Result<Vec<Usable>, StoreError> {
    let (after_account, after_id) = match after {
        Of::Sender(id) => (false, id),
        Of::Account(id) => (true, id),
    };
    query_as!(
        UsableRow,
        r#"select is_account as "is_account!", id as "id!", sender_name as "sender_name!",
                  sender_email as "sender_email!", user_id as "user_id!", shared as "shared!", kind as "kind!",
                  confirmed as "confirmed!", create_time as "create_time!"
           from (
               select false as is_account, sender_id as id, sender_name, sender_email, user_id, shared,
                      source as kind, confirmed, create_time
               from senders
               where site_id = $1
                 and (user_id = $2 or (shared and confirmed))
               union all
               select true, a.account_id, a.sender_name, a.sender_email, a.user_id, a.shared, a.origin,
                      a.origin <> 'admin' or not $3 or exists (
                          select from senders s
                          where s.site_id = $1
                            and s.sender_key = a.sender_key
                            and s.confirmed
                            and (s.user_id = $2 or s.shared)
                      ),
                      a.create_time
               from accounts a
               where a.site_id = $1
                 and a.active
                 and (a.origin = 'admin' or a.shared or (a.user_id = $2 and a.user_id <> ''))
           ) as usable
           where (is_account, id) > ($4, $5)
           order by is_account, id
           limit $6"#,
        site.as_str(),
        user,
        needs_sender,
        after_account,
        after_id,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(Usable::try_from)
    .collect()
}
