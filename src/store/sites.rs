//! Sites.

use sqlx::{query, query_as, query_scalar};
use time::OffsetDateTime;

use super::error::violated_constraint;
use super::{Store, StoreError, departures};
use crate::domain::site::{Site, SiteId};

struct SiteRow {
    site_id: String,
    display_name: String,
    create_time: OffsetDateTime,
}

impl TryFrom<SiteRow> for Site {
    type Error = StoreError;

    fn try_from(row: SiteRow) -> Result<Self, StoreError> {
        let SiteRow { site_id, display_name, create_time } = row;
        let id = SiteId::parse(&site_id).ok_or(StoreError::Corrupt("site id"))?;
        Ok(Self { id, display_name, create_time })
    }
}

/// What became of an attempt to create a site.
#[derive(Debug)]
pub enum Created {
    /// It is there.
    Created(Site),
    /// There is one of this id.
    Exists,
    /// One of this id is being deleted, and not yet gone.
    Going,
}

/// Creates a site with its settings. One that gets the id of a deleted one shares nothing with it: no id of an account or a
/// sender comes again, and no place in its transcripts and events is one of the new site.
///
/// # Errors
/// When the database does not answer.
pub async fn create(store: &Store, id: &SiteId, display_name: &str) -> Result<Created, StoreError> {
    let row = query_as!(
        SiteRow,
        "with site as (
             insert into sites (
                 site_id, display_name, last_account_id, last_sender_id, first_position, log_horizon
             )
             select $1, $2, coalesce(f.last_account_id, 0), coalesce(f.last_sender_id, 0), p.position, p.position
             from (select nextval('log_positions') as position) p
             left join former_sites f on f.site_id = $1
             returning site_id, display_name, create_time, first_position
         ), settings as (
             -- An etag of the one before is stale.
             insert into settings (site_id, version) select site_id, first_position from site
         )
         select site_id, display_name, create_time from site",
        id.as_str(),
        display_name,
    )
    .fetch_one(&store.pool)
    .await;
    match row {
        Ok(row) => Ok(Created::Created(row.try_into()?)),
        Err(error) if violated_constraint(&error) == Some("sites_pkey") => {
            Ok(if departures::is_going(store, id).await? { Created::Going } else { Created::Exists })
        }
        Err(error) => Err(error.into()),
    }
}

/// Which of the sites that had this id is there now: work that takes its time is for none that comes later.
///
/// # Errors
/// When the database does not answer.
pub async fn life(store: &Store, id: &SiteId) -> Result<Option<i64>, StoreError> {
    let life = query_scalar!(
        "select first_position from sites where site_id = $1 and delete_time is null",
        id.as_str()
    );
    Ok(life.fetch_optional(&store.pool).await?)
}

/// The site of this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, id: &SiteId) -> Result<Option<Site>, StoreError> {
    query_as!(
        SiteRow,
        "select site_id, display_name, create_time from sites where site_id = $1 and delete_time is null",
        id.as_str(),
    )
    .fetch_optional(&store.pool)
    .await?
    .map(Site::try_from)
    .transpose()
}

/// Up to `limit` sites behind `after`, by id.
///
/// # Errors
/// When the database does not answer.
pub async fn list(store: &Store, after: &str, limit: i64) -> Result<Vec<Site>, StoreError> {
    query_as!(
        SiteRow,
        r#"select site_id, display_name, create_time
           from sites
           where site_id collate "C" > $1
             and delete_time is null
           order by site_id collate "C"
           limit $2"#,
        after,
        limit,
    )
    .fetch_all(&store.pool)
    .await?
    .into_iter()
    .map(Site::try_from)
    .collect()
}

/// Asks for a write of the database without changing anything, as readiness wants to know.
///
/// # Errors
/// When the database does not answer or cannot be written.
pub async fn probe_write(store: &Store) -> Result<(), StoreError> {
    query!("update sites set display_name = display_name where false").execute(&store.pool).await?;
    Ok(())
}
