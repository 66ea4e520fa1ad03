//! Accounts that wait for a worker, served in turn: site by site, the one with the fewest workers first. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::domain::site::SiteId;
use crate::store::queue::Lane;

/// Who waits, and how many workers each site has.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_site: BTreeMap<SiteId, VecDeque<Lane>>,
    known: HashSet<Lane>,
    working: HashMap<SiteId, usize>,
}

impl Waiting {
    /// An account waits, if it does not yet.
    pub(super) fn add(&mut self, lane: Lane) {
        if self.known.insert(lane.clone()) {
            self.by_site.entry(lane.site.clone()).or_default().push_back(lane);
        }
    }

    /// Whether somebody waits whose turn it is, as soon as there is room: of a site with fewer than `max` workers.
    pub(super) fn has_turn(&self, max: usize) -> bool {
        self.by_site.keys().any(|site| self.working(site) < max)
    }

    /// The account whose turn it is, of a site with fewer than `max` workers; it counts as having one more now.
    pub(super) fn next(&mut self, max: usize) -> Option<Lane> {
        let working = |site: &SiteId| self.working.get(site).copied().unwrap_or(0);
        let site = self.by_site.keys().filter(|site| working(site) < max).min_by_key(|site| working(site))?;
        let site = site.clone();
        let lanes = self.by_site.get_mut(&site)?;
        let lane = lanes.pop_front()?;
        if lanes.is_empty() {
            self.by_site.remove(&site);
        }
        self.known.remove(&lane);
        self.begins(&site);
        Some(lane)
    }

    /// A worker of this site begins.
    pub(super) fn begins(&mut self, site: &SiteId) {
        *self.working.entry(site.clone()).or_default() += 1;
    }

    /// A worker of this site has ended.
    pub(super) fn ends(&mut self, site: &SiteId) {
        if let Some(count) = self.working.get_mut(site) {
            *count -= 1;
            if *count == 0 {
                self.working.remove(site);
            }
        }
    }

    /// Workers of this site.
    pub(super) fn working(&self, site: &SiteId) -> usize {
        self.working.get(site).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Waiting;
    use crate::domain::site::SiteId;
    use crate::store::queue::Lane;

    fn lane(site: &str, account: i64) -> Lane {
        Lane { site: SiteId::parse(site).expect("a site"), account }
    }

    #[test]
    fn sites_take_turns_and_none_takes_everything() {
        let mut waiting = Waiting::default();
        for account in 1..=5 {
            waiting.add(lane("large", account));
            waiting.add(lane("large", account));
        }
        waiting.add(lane("small", 1));
        let mut order = Vec::new();
        while let Some(lane) = waiting.next(3) {
            order.push((lane.site.to_string(), lane.account));
        }
        let expected = [("large", 1), ("small", 1), ("large", 2), ("large", 3)];
        assert_eq!(order, expected.map(|(site, account)| (site.to_owned(), account)));
        assert!(!waiting.has_turn(3), "the large site has all it may have, and waits alone");
        let large = lane("large", 4).site;
        assert_eq!(waiting.working(&large), 3);
        waiting.ends(&large);
        assert!(waiting.has_turn(3));
        assert_eq!(waiting.next(3), Some(lane("large", 4)));
        assert_eq!(waiting.next(3), None);
    }
}
