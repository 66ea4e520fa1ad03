//! What the choice of a letter's account takes, read for all letters that come at the same time: the settings of their
//! sites and the accounts with their addresses. What was read a moment ago is not read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::candidates::{self, Asked};
use super::gathering::Broken;
use super::{Store, StoreError, settings};
use crate::domain::routing::Candidate;
use crate::domain::settings::EffectiveSettings;
use crate::domain::site::SiteId;

/// What a letter asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Whose it is.
    pub site: SiteId,
    /// The key of the address in its From.
    pub sender_key: String,
    /// On whose behalf; empty for the site itself.
    pub user: String,
}

/// What its account is chosen from.
#[derive(Clone, Debug)]
pub struct Route {
    /// What counts for its site; `None` where there is no such site.
    pub settings: Option<Arc<EffectiveSettings>>,
    /// The accounts that may be used, by id.
    pub candidates: Arc<[Candidate]>,
}

/// So long a route counts after it was read; much less than the two seconds within which changes of other replicas count. Those
/// of this process count at once.
const FRESH: Duration = Duration::from_millis(250);
/// Routes that are kept; with more of them the old ones are let go.
const KEPT: usize = 1_024;

/// Routes that were read a moment ago: who sends much asks once for many letters.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<Question, Read>>);

#[derive(Debug)]
struct Read {
    route: Route,
    at: Instant,
    /// How often accounts and settings had changed before.
    changes: u64,
}

impl Recent {
    fn get(&self, question: &Question, changes: u64) -> Option<Route> {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = read.get(question).filter(|read| read.changes == changes && read.at.elapsed() < FRESH)?;
        Some(read.route.clone())
    }

    /// Keeps one by which a letter can be sent: what is missing may be made at any moment.
    fn put(&self, question: Question, read: Read) {
        if read.route.settings.is_none() || read.route.candidates.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.retain(|_, read| read.at.elapsed() < FRESH);
        }
        if kept.len() < KEPT || kept.contains_key(&question) {
            kept.insert(question, read);
        }
    }
}

/// What the account of a letter is chosen from.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, question: Question) -> Result<Route, StoreError> {
    let (at, changes) = (Instant::now(), store.changes.of_configuration());
    if let Some(route) = store.recent_routes.get(&question, changes) {
        return Ok(route);
    }
    let route = match store.gatherers().routes.ask(question.clone(), 1).await {
        Ok(route) => route,
        Err(Broken::Unavailable) => return Err(Broken::unavailable()),
        // This one may still be answered, and else is told why not.
        Err(Broken::Refused) => {
            let mut routes = read(store, std::slice::from_ref(&question)).await?;
            routes.pop().ok_or(StoreError::Corrupt("route"))?
        }
    };
    store.recent_routes.put(question, Read { route: route.clone(), at, changes });
    Ok(route)
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
        .map(|Question { site, sender_key, user }| Asked { site, sender_key, user })
        .collect();
    let candidates: BTreeMap<Asked<'_>, Arc<[Candidate]>> =
        candidates::of_all(&mut connection, asked).await?;
    let none: Arc<[Candidate]> = Arc::from([]);
    let routes = questions.iter().map(|question| {
        let Question { site, sender_key, user } = question;
        let of_asked = candidates.get(&Asked { site, sender_key, user });
        Route { settings: settings.get(site).cloned(), candidates: Arc::clone(of_asked.unwrap_or(&none)) }
    });
    Ok(routes.collect())
}
