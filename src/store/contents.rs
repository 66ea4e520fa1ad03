//! The exact bytes of letters, read in stretches, so that nobody who reads slowly holds a whole letter in memory.

use sqlx::{query, query_scalar};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::site::SiteId;

/// What there is to read of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Its content.
    Content,
    /// Nothing: a letter of Postroom's own, such as a code.
    Never,
}

/// Whether the content of a letter may be shown; `None` where there is no such letter.
///
/// # Errors
/// When the database does not answer.
pub async fn readable(store: &Store, site: &SiteId, message: Uuid) -> Result<Option<Readable>, StoreError> {
    let row =
        query!("select is_own from messages where site_id = $1 and message_id = $2", site.as_str(), message)
            .fetch_optional(&store.pool)
            .await?;
    Ok(row.map(|row| if row.is_own { Readable::Never } else { Readable::Content }))
}

/// Up to `length` bytes of a letter's content behind the first `offset` ones, fewer at its end; `None` where there is
/// no such letter, or it is one of Postroom's own.
///
/// # Errors
/// When the database does not answer.
pub async fn read(
    store: &Store,
    site: &SiteId,
    message: Uuid,
    offset: i32,
    length: i32,
) -> Result<Option<Vec<u8>>, StoreError> {
    // Content is stored uncompressed, so that only the pages of this stretch are read.
    let stretch = query_scalar!(
        r#"select substring(b.content from $3::integer + 1 for $4) as "stretch!"
           from message_bodies b
           join messages m on m.site_id = b.site_id and m.message_id = b.message_id and not m.is_own
           where b.site_id = $1
             and b.message_id = $2"#,
        site.as_str(),
        message,
        offset,
        length,
    )
    .fetch_optional(&store.pool)
    .await?;
    Ok(stretch)
}
