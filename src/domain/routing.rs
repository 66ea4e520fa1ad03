//! The choice of account: which of a site's accounts carries a letter of this From.

use unicode_normalization::UnicodeNormalization;

/// Why an account was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Name and address match.
    NameAndAddress,
    /// The address matches.
    Address,
    /// The letter asked for exactly this account.
    Requested,
}

/// An active account whose address is that of From.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its id.
    pub account: i64,
    /// Its sender's name, maybe empty.
    pub sender_name: String,
}

/// Chooses among the candidates of one address: first those whose name matches, too; in either group the highest id.
/// A From without a name matches an account without one.
#[must_use]
pub fn choose(from_name: Option<&str>, candidates: &[Candidate]) -> Option<(i64, Rule)> {
    let wanted = name_key(from_name.unwrap_or_default());
    let by_name = candidates.iter().filter(|c| name_key(&c.sender_name) == wanted).map(|c| c.account).max();
    let by_address = || candidates.iter().map(|c| c.account).max();
    by_name
        .map(|account| (account, Rule::NameAndAddress))
        .or_else(|| by_address().map(|account| (account, Rule::Address)))
}

/// The choice where a letter asks for exactly this account: it is taken if it is a candidate.
#[must_use]
pub fn request(account: i64, candidates: &[Candidate]) -> Option<(i64, Rule)> {
    candidates.iter().any(|c| c.account == account).then_some((account, Rule::Requested))
}

/// What names are compared by: trimmed, runs of white space folded, composed (NFC); case matters.
#[must_use]
pub fn name_key(name: &str) -> String {
    let folded = name.split_whitespace().collect::<Vec<_>>().join(" ");
    folded.nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Candidate, Rule, choose};

    fn candidate(account: i64, name: &str) -> Candidate {
        Candidate { account, sender_name: name.to_owned() }
    }

    #[test]
    fn the_choice() {
        let accounts = [
            candidate(1, ""),
            candidate(2, "Shop"),
            candidate(3, "Ann  Lee"),
            candidate(4, "Shop"),
            candidate(5, "Re\u{301}ne\u{301}"),
        ];
        for (from, expected) in [
            (None, Some((1, Rule::NameAndAddress))),
            (Some("Shop"), Some((4, Rule::NameAndAddress))),
            (Some(" Ann Lee "), Some((3, Rule::NameAndAddress))),
            (Some("R\u{e9}n\u{e9}"), Some((5, Rule::NameAndAddress))),
            (Some("shop"), Some((5, Rule::Address))),
            (Some("Nobody"), Some((5, Rule::Address))),
        ] {
            assert_eq!(choose(from, &accounts), expected, "{from:?}");
        }
        assert_eq!(choose(Some("Shop"), &[]), None);
    }

    proptest! {
        /// Written straight from the rule, without the short cuts: sort, and take the first.
        #[test]
        fn equals_a_naive_choice(names in prop::collection::vec("[AB]{0,1}", 0..8), from in "[AB]{0,1}") {
            let accounts: Vec<_> = names.iter().zip(1..).map(|(n, id)| candidate(id, n)).collect();
            let mut ranked: Vec<_> = accounts.iter().map(|a| (a.sender_name == from, a.account)).collect();
            ranked.sort_unstable();
            let naive = ranked.last().map(|(_, id)| *id);
            let from = (!from.is_empty()).then_some(from.as_str());
            prop_assert_eq!(choose(from, &accounts).map(|(id, _)| id), naive);
        }
    }
}
