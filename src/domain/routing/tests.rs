//! The choice of account against a second, naive implementation written straight from API 4.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Candidate, Letter, Rule, Unchosen, choose, explain, name_key};
use crate::domain::account::Origin;
use crate::domain::settings::AccountPriority;

/// Random sites on which both must agree.
const SITES: u32 = 100_000;

/// A search as the contract words it: class by class, rule by rule, the highest id of those found.
fn naive(letter: &Letter<'_>, priority: AccountPriority, accounts: &[Candidate]) -> Option<(i64, Rule)> {
    let usable = |a: &&Candidate| {
        let for_user =
            a.origin == Origin::Admin || a.shared || (!letter.user.is_empty() && a.user == letter.user);
        let for_mailing = !letter.mailing || a.origin == Origin::Admin || a.mailings_first;
        a.active && for_user && for_mailing
    };
    let candidates: Vec<&Candidate> = accounts.iter().filter(usable).collect();
    if let Some(requested) = letter.requested {
        return candidates.iter().find(|a| a.account == requested).map(|a| (a.account, Rule::Requested));
    }
    let named = |a: &&&Candidate| name_key(&a.sender_name) == name_key(letter.from_name.unwrap_or(""));
    let user_class: Vec<&Candidate> =
        candidates.iter().filter(|a| a.origin != Origin::Admin).copied().collect();
    let admin_class: Vec<&Candidate> =
        candidates.iter().filter(|a| a.origin == Origin::Admin).copied().collect();
    let classes = match priority {
        AccountPriority::UserFirst => [user_class, admin_class],
        AccountPriority::AdminFirst => [admin_class, user_class],
    };
    for class in &classes {
        if letter.mailing {
            if let Some(id) = class.iter().filter(|a| a.mailings_first).filter(named).map(|a| a.account).max()
            {
                return Some((id, Rule::MailingNameAndAddress));
            }
            if let Some(id) = class.iter().filter(|a| a.mailings_first).map(|a| a.account).max() {
                return Some((id, Rule::MailingAddress));
            }
        }
        if let Some(id) = class.iter().filter(named).map(|a| a.account).max() {
            return Some((id, Rule::NameAndAddress));
        }
        if let Some(id) = class.iter().map(|a| a.account).max() {
            return Some((id, Rule::Address));
        }
    }
    None
}

fn origins() -> impl Strategy<Value = Origin> {
    prop_oneof![Just(Origin::Admin), Just(Origin::Mailbox), Just(Origin::Crm)]
}

type Drawn = (Origin, String, [bool; 3], usize);

fn sites() -> impl Strategy<Value = Vec<Candidate>> {
    let account = (origins(), "[AB]{0,1}", any::<[bool; 3]>(), 0..3_usize);
    let candidate = |(id, drawn): (i64, Drawn)| {
        let (origin, name, [active, shared, mailings_first], owner) = drawn;
        let user = if origin == Origin::Admin { "" } else { ["", "a", "b"][owner] };
        Candidate {
            account: id,
            sender_name: name,
            active,
            origin,
            user: user.to_owned(),
            shared,
            mailings_first,
        }
    };
    prop::collection::vec(account, 0..10)
        .prop_map(move |accounts| (1..).zip(accounts).map(candidate).collect::<Vec<_>>())
}

#[test]
fn equals_a_naive_choice() {
    let letters = ("[AB]{0,1}", any::<bool>(), 0..3_usize, prop::option::weighted(0.1, 1..12_i64));
    let cases = (sites(), letters, any::<bool>());
    let mut runner = TestRunner::new(Config { cases: SITES, failure_persistence: None, ..Config::default() });
    runner
        .run(&cases, |(accounts, (name, mailing, user, requested), user_first)| {
            let user = ["", "a", "b"][user];
            let from_name = (!name.is_empty()).then_some(name.as_str());
            let letter = Letter { from_name, user, mailing, requested };
            let priority = if user_first { AccountPriority::UserFirst } else { AccountPriority::AdminFirst };
            let chosen = choose(&letter, priority, &accounts);
            prop_assert_eq!(chosen, naive(&letter, priority, &accounts));
            let verdicts = explain(&letter, priority, &accounts);
            let explained: Vec<_> =
                accounts.iter().zip(&verdicts).filter_map(|(a, v)| Some((a.account, v.ok()?))).collect();
            prop_assert_eq!(explained, chosen.into_iter().collect::<Vec<_>>());
            Ok(())
        })
        .expect("the two agree");
}

fn admin(account: i64, name: &str) -> Candidate {
    Candidate {
        account,
        sender_name: name.to_owned(),
        active: true,
        origin: Origin::Admin,
        user: String::new(),
        shared: false,
        mailings_first: false,
    }
}

#[test]
fn names_are_compared_as_people_read_them() {
    let accounts = [
        admin(1, ""),
        admin(2, "Shop"),
        admin(3, "Ann  Lee"),
        admin(4, "Shop"),
        admin(5, "Re\u{301}ne\u{301}"),
    ];
    for (from_name, expected) in [
        (None, (1, Rule::NameAndAddress)),
        (Some("Shop"), (4, Rule::NameAndAddress)),
        (Some(" Ann Lee "), (3, Rule::NameAndAddress)),
        (Some("R\u{e9}n\u{e9}"), (5, Rule::NameAndAddress)),
        (Some("shop"), (5, Rule::Address)),
        (Some("Nobody"), (5, Rule::Address)),
    ] {
        let letter = Letter { from_name, ..Letter::default() };
        assert_eq!(choose(&letter, AccountPriority::UserFirst, &accounts), Some(expected), "{from_name:?}");
    }
    assert_eq!(choose(&Letter::default(), AccountPriority::UserFirst, &[]), None);
}

#[test]
fn every_candidate_has_its_reason() {
    let of_user = |account, user: &str| Candidate {
        origin: Origin::Mailbox,
        user: user.to_owned(),
        ..admin(account, "")
    };
    let accounts = [
        admin(1, ""),
        of_user(2, "a"),
        of_user(3, "b"),
        Candidate { active: false, ..of_user(4, "a") },
        Candidate { sender_name: "X".to_owned(), ..of_user(5, "a") },
        of_user(6, "a"),
    ];
    let letter = Letter { user: "a", ..Letter::default() };
    let expected = [
        Err(Unchosen::ClassSearchedLater),
        Err(Unchosen::LowerId),
        Err(Unchosen::OfAnotherUser),
        Err(Unchosen::Inactive),
        Err(Unchosen::LaterRule),
        Ok(Rule::NameAndAddress),
    ];
    assert_eq!(explain(&letter, AccountPriority::UserFirst, &accounts), expected);
    let mailing = Letter { mailing: true, ..letter };
    let verdicts = explain(&mailing, AccountPriority::UserFirst, &accounts);
    assert_eq!(verdicts[0], Ok(Rule::NameAndAddress));
    assert_eq!(verdicts[5], Err(Unchosen::NotForMailings));
}
