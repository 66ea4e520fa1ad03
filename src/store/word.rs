//! What one replica tells the others of what changed: gathered, within the bounds of one NOTIFY. Hints, never the truth.

use std::collections::HashSet;
use std::fmt;

use uuid::Uuid;

use super::queue::Lane;
use crate::domain::site::SiteId;

/// Bytes that each kind of hint may take in a payload; PostgreSQL takes less than 8,000 together. They are about 450
/// letters, 4,500 a second at ten notifications.
const ROOM_FOR_LETTERS: usize = 4_600;
const ROOM_FOR_SITES: usize = 2_400;
const ROOM_FOR_LANES: usize = 900;

/// One thing that changed, as payloads have it: `shop`, `*`, `#1a2b3c4d`, `#*` and `shop/7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Something of the site was recorded.
    Site(SiteId),
    /// The same, of more sites than can be named.
    EverySite,
    /// An outcome of a letter with this mark counted.
    Letter(u32),
    /// The same, of more letters than can be named.
    EveryLetter,
    /// Mail of the account waits for somebody who holds one of its sessions.
    Lane(Lane),
}

/// The end of a letter's id, which is random: a quarter of its text, and one waiting caller in a few million is woken for
/// another letter.
pub(super) fn mark(message: Uuid) -> u32 {
    let [.., a, b, c, d] = message.into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl Hint {
    /// The hint, if the text is one. Those of a newer server may be others.
    fn parse(text: &str) -> Option<Self> {
        match (text, text.strip_prefix('#')) {
            ("*", _) => Some(Self::EverySite),
            ("#*", _) => Some(Self::EveryLetter),
            (_, Some(mark)) => u32::from_str_radix(mark, 16).ok().map(Self::Letter),
            _ => match text.split_once('/') {
                Some((site, account)) => {
                    Some(Self::Lane(Lane { site: SiteId::parse(site)?, account: account.parse().ok()? }))
                }
                None => SiteId::parse(text).map(Self::Site),
            },
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "{site}"),
            Self::EverySite => f.write_str("*"),
            Self::Letter(mark) => write!(f, "#{mark:08x}"),
            Self::EveryLetter => f.write_str("#*"),
            Self::Lane(Lane { site, account }) => write!(f, "{site}/{account}"),
        }
    }
}

/// The hints of a payload.
pub(super) fn hints(payload: &str) -> impl Iterator<Item = Hint> {
    payload.split_ascii_whitespace().filter_map(Hint::parse)
}

/// What changed since the others were told last.
#[derive(Debug)]
pub(super) struct Word {
    sites: List,
    letters: List,
    lanes: List,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            sites: List::with_room(ROOM_FOR_SITES),
            letters: List::with_room(ROOM_FOR_LETTERS),
            lanes: List::with_room(ROOM_FOR_LANES),
        }
    }
}

impl Word {
    /// Something of the site was recorded, and outcomes of these letters counted.
    pub(super) fn recorded(&mut self, site: &SiteId, counted: &[Uuid]) {
        self.sites.add(|| Hint::Site(site.clone()), Some(Hint::EverySite));
        for message in counted {
            self.letters.add(|| Hint::Letter(mark(*message)), Some(Hint::EveryLetter));
        }
    }

    /// Mail of the account waits for somebody who holds one of its sessions. Where there are too many such accounts, the
    /// others' next look at the table finds the rest.
    pub(super) fn pass_on(&mut self, lane: Lane) {
        self.lanes.add(|| Hint::Lane(lane), None);
    }

    /// What is told; `None` where nothing changed.
    pub(super) fn payload(self) -> Option<String> {
        let Self { sites, letters, lanes } = self;
        let hints: Vec<String> = [sites, letters, lanes].into_iter().flat_map(|list| list.hints).collect();
        (!hints.is_empty()).then(|| hints.join(" "))
    }
}

/// Hints of one kind, within their room.
#[derive(Debug)]
struct List {
    hints: HashSet<String>,
    /// Bytes that are left.
    room: usize,
    is_full: bool,
}

impl List {
    fn with_room(room: usize) -> Self {
        Self { hints: HashSet::new(), room, is_full: false }
    }

    /// Adds a hint; where there is no room, `every` stands for all of them, or they stay as they are.
    fn add(&mut self, hint: impl FnOnce() -> Hint, every: Option<Hint>) {
        if self.is_full {
            return;
        }
        let hint = hint().to_string();
        if self.hints.contains(&hint) {
            return;
        }
        // With the space in between.
        if let Some(room) = self.room.checked_sub(hint.len() + 1) {
            self.room = room;
            self.hints.insert(hint);
            return;
        }
        self.is_full = true;
        if let Some(every) = every {
            self.hints = HashSet::from([every.to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PostgreSQL: a payload must be shorter than this.
    const PAYLOAD_BYTES: usize = 8_000;

    fn site(text: &str) -> SiteId {
        SiteId::parse(text).unwrap()
    }

    fn heard(word: Word) -> HashSet<String> {
        hints(&word.payload().unwrap()).map(|hint| hint.to_string()).collect()
    }

    #[test]
    fn what_is_told_is_heard() {
        let (letter, lane) = (Uuid::now_v7(), Lane { site: site("blog"), account: 7 });
        let mut word = Word::default();
        word.recorded(&site("shop"), &[letter]);
        word.recorded(&site("shop"), &[letter]);
        word.pass_on(lane.clone());
        let payload = word.payload().unwrap();
        let expected = [Hint::Site(site("shop")), Hint::Letter(mark(letter)), Hint::Lane(lane)];
        assert_eq!(hints(&payload).collect::<Vec<_>>(), expected, "{payload}");
        assert!(
            letter.simple().to_string().ends_with(payload.split(['#', ' ']).nth(2).unwrap()),
            "{payload}"
        );
        assert_eq!(Word::default().payload(), None);
    }

    #[test]
    fn whatever_is_told_fits_into_one_notification() {
        let long = |number: usize| format!("{number:a>63}");
        let mut word = Word::default();
        for number in 0..2_000 {
            word.pass_on(Lane { site: site(&long(number)), account: i64::MAX });
        }
        for number in 0..37 {
            word.recorded(&site(&long(number)), &[]);
        }
        let letters: Vec<Uuid> = (0..460).map(|_| Uuid::now_v7()).collect();
        word.recorded(&site("b"), &letters);
        let payload = word.payload().unwrap();
        assert!(payload.len() > PAYLOAD_BYTES * 9 / 10, "{}", payload.len());
        assert!(payload.len() < PAYLOAD_BYTES, "{}", payload.len());
    }

    #[test]
    fn more_than_can_be_named_is_everything() {
        let mut word = Word::default();
        for number in 0..1_000 {
            word.recorded(&site(&format!("s{number}")), &[Uuid::now_v7()]);
        }
        assert_eq!(heard(word), HashSet::from(["*".to_owned(), "#*".to_owned()]));
    }

    #[test]
    fn what_is_no_hint_is_passed_over() {
        let payload = "Shop #xyz shop/x /7 shop/7/8 ! #123456789 #-1 shop ü";
        assert_eq!(hints(payload).collect::<Vec<_>>(), [Hint::Site(site("shop"))]);
        assert_eq!(hints("").count(), 0);
    }
}
