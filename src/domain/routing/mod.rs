//! The choice of account: which of a site's accounts carries a letter, and why the others do not.

use std::cmp::Reverse;

use unicode_normalization::UnicodeNormalization;

use super::account::Origin;
use super::settings::AccountPriority;

/// Why an account was chosen, in the order in which the rules are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A mailing, an account that is searched first for mailings, name and address match.
    MailingNameAndAddress,
    /// A mailing, an account that is searched first for mailings, the address matches.
    MailingAddress,
    /// Name and address match.
    NameAndAddress,
    /// The address matches.
    Address,
    /// The letter asked for exactly this account.
    Requested,
}

/// Why an account was not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchosen {
    /// It is switched off.
    Inactive,
    /// It belongs to another user and is not shared.
    OfAnotherUser,
    /// The letter is a mailing, and this account of a user is not for mailings.
    NotForMailings,
    /// Its class of accounts, a user's or the administrator's, is searched after the other, where one was found.
    ClassSearchedLater,
    /// A rule that is tried earlier found another one.
    LaterRule,
    /// The same rule found one with a higher id.
    LowerId,
    /// The letter asked for another one.
    AnotherRequested,
}

/// What of a letter decides about its account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Letter<'a> {
    /// The name in From.
    pub from_name: Option<&'a str>,
    /// On whose behalf; empty for the site itself.
    pub user: &'a str,
    /// Whether it is part of a mailing.
    pub mailing: bool,
    /// Exactly this account.
    pub requested: Option<i64>,
}

/// An account whose address is that of From.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub account: i64,
    /// Its sender's name, maybe empty.
    pub sender_name: String,
    /// Whether it takes part in the choice.
    pub active: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// Whose it is; empty for the administrator's.
    pub user: String,
    /// Whether everyone of the site may send through it.
    pub shared: bool,
    /// Whether it is searched first for mailings.
    pub mailings_first: bool,
}

impl Candidate {
    /// Whether it may be used on behalf of this user.
    #[must_use]
    pub fn is_usable_by(&self, user: &str) -> bool {
        self.origin == Origin::Admin || self.shared || (!user.is_empty() && self.user == user)
    }

    /// Why it takes no part in the choice for a letter.
    fn excluded(&self, letter: &Letter<'_>) -> Option<Unchosen> {
        if !self.is_usable_by(letter.user) {
            Some(Unchosen::OfAnotherUser)
        } else if !self.active {
            Some(Unchosen::Inactive)
        } else if letter.mailing && self.origin != Origin::Admin && !self.mailings_first {
            Some(Unchosen::NotForMailings)
        } else {
            None
        }
    }

    /// The first rule that finds it, if it takes part.
    fn rule(&self, letter: &Letter<'_>, wanted_name: &str) -> Rule {
        let named = name_key(&self.sender_name) == wanted_name;
        match (letter.mailing && self.mailings_first, named) {
            (true, true) => Rule::MailingNameAndAddress,
            (true, false) => Rule::MailingAddress,
            (false, true) => Rule::NameAndAddress,
            (false, false) => Rule::Address,
        }
    }
}

/// The choice (API 4): the class of accounts that is searched first, in it the first rule that finds any, among those
/// the highest id. A From without a name matches an account without one.
#[must_use]
pub fn choose(
    letter: &Letter<'_>,
    priority: AccountPriority,
    candidates: &[Candidate],
) -> Option<(i64, Rule)> {
    let taking_part = candidates.iter().filter(|candidate| candidate.excluded(letter).is_none());
    if let Some(requested) = letter.requested {
        return taking_part
            .map(|candidate| candidate.account)
            .find(|account| *account == requested)
            .map(|account| (account, Rule::Requested));
    }
    let wanted = name_key(letter.from_name.unwrap_or_default());
    taking_part
        .map(|candidate| (place(candidate, letter, &wanted, priority), candidate.account))
        .min_by_key(|(place, account)| (*place, Reverse(*account)))
        .map(|((_, rule), account)| (account, rule))
}

/// Every candidate with the rule that chose it, or the reason why it was not chosen, in the order given.
#[must_use]
pub fn explain(
    letter: &Letter<'_>,
    priority: AccountPriority,
    candidates: &[Candidate],
) -> Vec<Result<Rule, Unchosen>> {
    let wanted = name_key(letter.from_name.unwrap_or_default());
    let chosen = choose(letter, priority, candidates);
    let chosen_place = chosen.and_then(|(account, _)| {
        let candidate = candidates.iter().find(|candidate| candidate.account == account)?;
        Some(place(candidate, letter, &wanted, priority))
    });
    let verdict = |candidate: &Candidate| {
        if let Some(reason) = candidate.excluded(letter) {
            return Err(reason);
        }
        if let Some((account, rule)) = chosen
            && account == candidate.account
        {
            return Ok(rule);
        }
        if letter.requested.is_some() {
            return Err(Unchosen::AnotherRequested);
        }
        let (class, rule) = place(candidate, letter, &wanted, priority);
        Err(match chosen_place {
            Some((first, _)) if first != class => Unchosen::ClassSearchedLater,
            Some((_, first)) if first != rule => Unchosen::LaterRule,
            _ => Unchosen::LowerId,
        })
    };
    candidates.iter().map(verdict).collect()
}

/// Where a candidate stands: whether its class is searched after the other, and the first rule that finds it.
fn place(
    candidate: &Candidate,
    letter: &Letter<'_>,
    wanted_name: &str,
    priority: AccountPriority,
) -> (bool, Rule) {
    let is_user_account = candidate.origin != Origin::Admin;
    let searched_later = match priority {
        AccountPriority::UserFirst => !is_user_account,
        AccountPriority::AdminFirst => is_user_account,
    };
    (searched_later, candidate.rule(letter, wanted_name))
}

/// What names are compared by: trimmed, runs of white space folded, composed (NFC); case matters.
#[must_use]
pub fn name_key(name: &str) -> String {
    let folded = name.split_whitespace().collect::<Vec<_>>().join(" ");
    folded.nfc().collect()
}

#[cfg(test)]
mod tests;
