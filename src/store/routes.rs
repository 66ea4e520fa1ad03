//! What the choice of a letter's account takes, read for all letters that come at the same time: the settings of their
//! sites, the accounts with their addresses, and whether their requests came before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::candidates::{self, Asked};
use super::gathering::Broken;
use super::{Store, StoreError, settings};
use crate::domain::routing::Candidate;
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;

/// What a letter asks for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose it is.
    pub site: SiteId,
    /// The key of the address in its From.
    pub sender_key: String,
    /// On whose behalf; empty for the site itself.
    pub user: String,
    /// Its request id.
    pub request_id: Option<String>,
}

/// What its account is chosen from.
#[derive(Clone, Debug)]
pub struct Route {
    /// What counts for its site; `None` where there is no such site.
    pub settings: Option<Arc<EffectiveSettings>>,
    /// The accounts that may be used, by id.
    pub candidates: Arc<[Candidate]>,
    /// The letter that was taken by this request before, and the MAC of the request's content.
    pub known: Option<(Uuid, Vec<u8>)>,
}

/// What the account of a letter is chosen from.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, question: Question) -> Result<Route, StoreError> {
    match store.gatherers().routes.ask(question.clone(), 1).await {
        Ok(route) => return Ok(route),
        Err(Broken::Unavailable) => return Err(Broken::unavailable()),
        Err(Broken::Refused) => {}
    }
    // This one may still be answered, and else is told why not.
    let mut routes = read(store, std::slice::from_ref(&question)).await?;
    routes.pop().ok_or(StoreError::Corrupt("route"))
}

/// What the accounts of these letters are chosen from.
pub(super) async fn answer(store: Store, questions: Vec<Question>) -> Result<Vec<Route>, StoreError> {
    read(&store, &questions).await
}

async fn read(store: &Store, questions: &[Question]) -> Result<Vec<Route>, StoreError> {
    let sites: BTreeSet<&SiteId> = questions.iter().map(|question| &question.site).collect();
    let mut connection = store.pool.acquire().await?;
    let settings: HashMap<SiteId, Arc<EffectiveSettings>> =
        settings::of_sites(&mut connection, &sites, &store.defaults)
            .await?
            .into_iter()
            .map(|settings| (settings.site, Arc::new(settings.effective)))
            .collect();
    let asked: BTreeSet<Asked<'_>> = questions
        .iter()
        .map(|Question { site, sender_key, user, request_id: _ }| Asked { site, sender_key, user })
        .collect();
    let candidates: BTreeMap<Asked<'_>, Arc<[Candidate]>> =
        candidates::of_all(&mut connection, asked).await?;
    let mut known = known(&mut connection, questions).await?;
    let none: Arc<[Candidate]> = Arc::from([]);
    let routes = questions.iter().enumerate().map(|(place, question)| {
        let Question { site, sender_key, user, request_id: _ } = question;
        let of_asked = candidates.get(&Asked { site, sender_key, user });
        Route {
            settings: settings.get(site).cloned(),
            candidates: Arc::clone(of_asked.unwrap_or(&none)),
            known: known.remove(&place),
        }
    });
    Ok(routes.collect())
}

/// The letters that were taken by these requests before, by the place of the question.
async fn known(
    connection: &mut PgConnection,
    questions: &[Question],
) -> Result<HashMap<usize, (Uuid, Vec<u8>)>, StoreError> {
    let (mut places, mut sites, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (place, question) in questions.iter().enumerate() {
        if let Some(id) = &question.request_id {
            places.push(place);
            sites.push(question.site.as_str());
            ids.push(id.as_str());
        }
    }
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = query!(
        r#"select n.place as "place!", m.message_id, m.request_mac as "request_mac!"
           from unnest($1::text[], $2::text[]) with ordinality as n (site_id, request_id, place)
           join messages m on m.site_id = n.site_id and m.request_id = n.request_id"#,
        &sites as &[&str],
        &ids as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let known = rows.into_iter().filter_map(|row| {
        let number = usize::try_from(row.place).ok()?.checked_sub(1)?;
        Some((*places.get(number)?, (row.message_id, row.request_mac)))
    });
    Ok(known.collect())
}
