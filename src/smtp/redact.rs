//! Masks a session's own secrets in whatever the server says: plain, in base64 and in URL form.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memchr3;
use zeroize::Zeroizing;

use super::printable;
use crate::domain::account::Auth;

/// What stands where a secret stood.
pub(crate) const HIDDEN: &str = "<hidden>";

/// Secrets shorter than this are masked only where they stand alone: masking each `a` would tell that the password
/// is `a`, and make every reply unreadable.
const SHORTEST_ANYWHERE_BYTES: usize = 4;

/// Base64 digits of a secret that are no chance.
const SHORTEST_WITHIN_BASE64: usize = 6;

/// Knows the secrets of one session.
pub(super) struct Redactor {
    /// Longest first, so that a form that contains another is masked whole.
    forms: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    /// The secrets of this login, in every form in which a server might repeat them.
    pub(super) fn new(auth: &Auth) -> Self {
        let Auth::Password { username, password } = auth else {
            return Self { forms: Vec::new() };
        };
        let (user, password) = (username.as_bytes(), password.expose());
        let mut forms: Vec<Zeroizing<Vec<u8>>> = vec![Zeroizing::new(password.to_vec())];
        let plain = Zeroizing::new(plain_blob(user, password));
        let pair = Zeroizing::new([user, b":", password].concat());
        let with_authority = Zeroizing::new([user, b"\0", user, b"\0", password].concat());
        for secret in [password, user, &plain, &pair, &with_authority] {
            // Without padding: whatever padding follows is no secret.
            for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                forms.push(Zeroizing::new(alphabet.encode(secret).into_bytes()));
            }
        }
        // And in the middle of something that was encoded as a whole.
        forms.extend((0..3).flat_map(|shift| within_base64(password, shift)));
        // What is about a certificate is escaped by others before it is masked.
        if let Ok(text) = std::str::from_utf8(password) {
            forms.push(Zeroizing::new(printable::escape(text.to_owned()).into_bytes()));
        }
        forms.retain(|form| !form.is_empty());
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// The bytes with every secret replaced, percent-encoded or not; borrowed where there was none.
    ///
    /// `cut` tells that the bytes were cut at their end: then a beginning of a secret there is masked as well.
    pub(super) fn mask<'a>(&self, bytes: &'a [u8], cut: bool) -> Cow<'a, [u8]> {
        replace(bytes, self.find(bytes, cut))
    }

    /// The text with every secret replaced.
    pub(super) fn mask_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes(), false)).into_owned()
    }

    /// The lines of one reply with every secret replaced, also one that a server broke over several lines, at a space or
    /// anywhere.
    pub(super) fn mask_lines<'a>(&self, lines: &[Told<'a>]) -> Vec<Cow<'a, [u8]>> {
        let mut found: Vec<Vec<Range<usize>>> =
            lines.iter().map(|line| self.find(line.text, line.cut)).collect();
        if lines.len() > 1 && !self.forms.is_empty() {
            for glue in [&b""[..], b" "] {
                self.find_across(lines, glue, &mut found);
            }
        }
        lines.iter().zip(found).map(|(line, ranges)| replace(line.text, ranges)).collect()
    }

    /// Where secrets are, in no order.
    fn find(&self, text: &[u8], cut: bool) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for form in &self.forms {
            find_all(form, text, cut, &mut found);
        }
        found
    }

    /// Adds what is found in the lines when they are put together again.
    fn find_across(&self, lines: &[Told<'_>], glue: &[u8], found: &mut [Vec<Range<usize>>]) {
        let mut joined = Zeroizing::new(Vec::new());
        // Where each line lies in `joined`.
        let mut places: Vec<Range<usize>> = Vec::with_capacity(lines.len());
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                // Behind a line that was cut something is missing.
                joined.extend_from_slice(if lines[number - 1].cut { b"\n" } else { glue });
            }
            let start = joined.len();
            joined.extend_from_slice(&line.text[line.start..line.end()]);
            places.push(start..joined.len());
        }
        let cut = lines.last().is_some_and(|line| line.cut);
        for range in self.find(&joined, cut) {
            let first = places.partition_point(|place| place.end <= range.start);
            let within = places.iter().enumerate().skip(first);
            for (number, place) in within.take_while(|(_, place)| place.start < range.end) {
                let start = range.start.max(place.start) - place.start + lines[number].start;
                let end = range.end.min(place.end) - place.start + lines[number].start;
                found[number].push(start..end);
            }
        }
    }
}

/// The text of one line of a reply.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    /// What is masked.
    pub(super) text: &'a [u8],
    /// Where the server's own words begin, behind an enhanced status code.
    pub(super) start: usize,
    /// Whether there was more.
    pub(super) cut: bool,
}

impl Told<'_> {
    /// Where its words end, without white space.
    fn end(&self) -> usize {
        self.start + self.text[self.start..].trim_ascii_end().len()
    }
}

/// The message of AUTH PLAIN (RFC 4616), before base64.
pub(super) fn plain_blob(user: &[u8], password: &[u8]) -> Vec<u8> {
    [b"\0", user, b"\0", password].concat()
}

/// Base64 as SASL wants it (RFC 4954 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What a secret looks like within base64 where `shift` bytes stand before it, without the digits that it shares with
/// its neighbours; in both alphabets. Nothing where little is left: that could be chance.
fn within_base64(secret: &[u8], shift: usize) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
    let shifted = Zeroizing::new([&vec![0; shift], secret].concat());
    [STANDARD_NO_PAD, URL_SAFE_NO_PAD].into_iter().filter_map(move |alphabet| {
        let digits = Zeroizing::new(alphabet.encode(&*shifted).into_bytes());
        // A digit is six bits: the first whole one of the secret, and the one behind the last whole one.
        let (start, end) = ((shift * 8).div_ceil(6), shifted.len() * 8 / 6);
        let core = digits.get(start..end)?;
        (core.len() >= SHORTEST_WITHIN_BASE64).then(|| Zeroizing::new(core.to_vec()))
    })
}

/// How a secret compares with the beginning of a text.
enum Comparison {
    /// The text begins with it; so many bytes of the text are it.
    Whole(usize),
    /// The text ended within it, after so many bytes of the secret.
    Beginning(usize),
    Different,
}

/// Compares byte by byte, each as it is or percent-encoded, a space also as `+`: nobody knows what an encoder leaves as
/// it is.
fn compare(secret: &[u8], text: &[u8]) -> Comparison {
    let mut at = 0;
    for (index, &byte) in secret.iter().enumerate() {
        match &text[at..] {
            // A percent sign of the secret's own may be encoded, too.
            [b'%', b'2', b'5', rest @ ..] if byte == b'%' => {
                if let Comparison::Whole(length) = compare(&secret[index + 1..], rest) {
                    return Comparison::Whole(at + 3 + length);
                }
                at += 1;
            }
            [first, ..] if *first == byte || (*first == b'+' && byte == b' ') => at += 1,
            [b'%', high, low, ..] if hex_value(*high, *low) == Some(byte) => at += 3,
            [] | [b'%'] | [b'%', _] => return Comparison::Beginning(index),
            _ => return Comparison::Different,
        }
    }
    Comparison::Whole(at)
}

fn hex_value(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Adds where the secret is in the text; with `cut`, its beginning at the end counts, too.
fn find_all(secret: &[u8], text: &[u8], cut: bool, found: &mut Vec<Range<usize>>) {
    let Some(&first) = secret.first() else { return };
    let plus = if first == b' ' { b'+' } else { first };
    let mut from = 0;
    while let Some(at) = memchr3(first, plus, b'%', &text[from..]).map(|at| at + from) {
        from = at + 1;
        let end = match compare(secret, &text[at..]) {
            Comparison::Whole(length)
                if secret.len() >= SHORTEST_ANYWHERE_BYTES || stands_alone(text, at, at + length) =>
            {
                at + length
            }
            Comparison::Beginning(known) if cut && known >= SHORTEST_ANYWHERE_BYTES => text.len(),
            Comparison::Whole(_) | Comparison::Beginning(_) | Comparison::Different => continue,
        };
        found.push(at..end);
        from = end;
    }
}

/// The text with something else in these places; where they overlap, once.
fn replace(text: &[u8], mut places: Vec<Range<usize>>) -> Cow<'_, [u8]> {
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_unstable_by_key(|place| (place.start, place.end));
    let mut replaced = Vec::with_capacity(text.len());
    let mut copied = 0;
    let mut hidden = None;
    for Range { start, end } in places {
        if hidden.is_none_or(|hidden| start >= hidden) {
            replaced.extend_from_slice(&text[copied..start]);
            replaced.extend_from_slice(HIDDEN.as_bytes());
        }
        copied = copied.max(end);
        hidden = Some(copied);
    }
    replaced.extend_from_slice(&text[copied..]);
    Cow::Owned(replaced)
}

fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    !is_word(start.checked_sub(1).and_then(|before| text.get(before))) && !is_word(text.get(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Redactor, Told, base64, plain_blob};
    use crate::domain::account::Auth;
    use crate::domain::secret::Secret;

    fn redactor(password: &str) -> Redactor {
        let password = Secret::from(password.to_owned());
        Redactor::new(&Auth::Password { username: "ann@example.com".to_owned(), password })
    }

    fn masked(redactor: &Redactor, text: &str) -> String {
        String::from_utf8(redactor.mask(text.as_bytes(), false).into_owned()).expect("stays UTF-8")
    }

    #[test]
    fn every_form_is_masked() {
        let password = "p&ss wörd/1";
        let redactor = redactor(password);
        let blob = base64(&plain_blob(b"ann@example.com", password.as_bytes()));
        for form in [
            password.to_owned(),
            base64(password.as_bytes()),
            base64(b"ann@example.com"),
            blob.clone(),
            blob.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
            "p%26ss%20w%C3%B6rd%2F1".to_owned(),
            "p%26ss%20w%c3%b6rd%2f1".to_owned(),
            "p%26ss+w%C3%B6rd%2F1".to_owned(),
            // Encoders differ in what they leave as it is.
            "%70%26%73%73 w%c3%B6rd/1".to_owned(),
        ] {
            let shown = masked(&redactor, &format!("535 no such login ({form}), {form}"));
            assert!(!shown.contains(form.trim_end_matches('=')), "{form} in {shown}");
            assert_eq!(shown.matches("<hidden>").count(), 2, "{shown}");
            assert!(shown.starts_with("535 no such login ("), "{shown}");
        }
    }

    #[test]
    fn a_secret_encoded_together_with_its_neighbours_is_masked() {
        let redactor = redactor("correct horse");
        for before in ["", "a", "ab", "abc", "user=ann pass="] {
            let blob = base64(format!("{before}correct horse!").as_bytes());
            let shown = masked(&redactor, &blob);
            assert!(shown.contains("<hidden>"), "{before}: {shown}");
            // What is left are the digits of the neighbours, and those shared with them.
            let rest = shown.replace("<hidden>", "");
            assert!(rest.len() <= before.len() * 4 / 3 + 5, "{before}: {shown}");
        }
    }

    #[test]
    fn a_short_password_is_masked_where_it_stands_alone() {
        let redactor = redactor("ok");
        assert_eq!(masked(&redactor, "250 ok, took it; 'ok'"), "250 <hidden>, took it; '<hidden>'");
    }

    #[test]
    fn percent_signs_of_its_own_confuse_nobody() {
        for password in ["50%25off", "%%25%", "100%"] {
            let redactor = redactor(password);
            for form in [password.to_owned(), password.replace('%', "%25")] {
                assert_eq!(masked(&redactor, &format!("535 {form}!")), "535 <hidden>!", "{password}");
            }
        }
    }

    #[test]
    fn a_secret_cut_by_the_limit_of_a_line_is_masked() {
        let redactor = redactor("correct horse");
        let shown = redactor.mask(b"535 you said correct hor", true);
        assert_eq!(shown.as_ref(), b"535 you said <hidden>");
        let shown = redactor.mask(b"535 you said correct%20hor%", true);
        assert_eq!(shown.as_ref(), b"535 you said <hidden>");
    }

    #[test]
    fn a_secret_broken_over_lines_is_masked() {
        let redactor = redactor("correct horse battery");
        let blob = base64(b"correct horse battery");
        for (lines, shown) in [
            (
                &["you said correct ho", "rse battery, didn't you"][..],
                &["you said <hidden>", "<hidden>, didn't you"][..],
            ),
            (
                &["5.7.8 corr", "5.7.8 ect horse ba", "5.7.8 ttery"],
                &["5.7.8 <hidden>", "5.7.8 <hidden>", "5.7.8 <hidden>"],
            ),
            (&["correct ", "horse battery"], &["<hidden> ", "<hidden>"]),
            (&[&blob[..10], &blob[10..]], &["<hidden>", "<hidden>"]),
            (&["correct horse", "and", "battery"], &["correct horse", "and", "battery"]),
            (&["correct%20hor", "se%20battery"], &["<hidden>", "<hidden>"]),
        ] {
            let start = |line: &&str| if line.starts_with("5.7.8 ") { 6 } else { 0 };
            let told: Vec<Told<'_>> = lines
                .iter()
                .map(|line| Told { text: line.as_bytes(), start: start(line), cut: false })
                .collect();
            let masked: Vec<String> = redactor
                .mask_lines(&told)
                .iter()
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            assert_eq!(masked, shown);
        }
    }

    #[test]
    fn a_secret_broken_over_lines_and_cut_is_masked() {
        let redactor = redactor("correct horse battery");
        let lines = [("no: correct", false), (" horse ba", true)];
        let told = lines.map(|(line, cut)| Told { text: line.as_bytes(), start: 0, cut });
        assert_eq!(redactor.mask_lines(&told), [&b"no: <hidden>"[..], b"<hidden>"]);
        // Between these lines something is missing.
        let lines = [("no: correct hor", true), ("se battery", false)];
        let told = lines.map(|(line, cut)| Told { text: line.as_bytes(), start: 0, cut });
        assert_eq!(redactor.mask_lines(&told), [&b"no: <hidden>"[..], b"se battery"]);
    }

    #[test]
    fn without_a_login_nothing_is_masked() {
        let redactor = Redactor::new(&Auth::None);
        assert_eq!(masked(&redactor, "250 anything"), "250 anything");
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[ -~]{4,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            prop_assume!(!"<hidden>".contains(&password));
            let shown = masked(&redactor(&password), &format!("{before}{password}{after}"));
            prop_assert!(shown.contains("<hidden>"));
            prop_assert!(!shown.replace("<hidden>", "\n").contains(&password));
        }

        #[test]
        fn no_password_survives_a_break(password in "[!-~]{4,40}", at in any::<prop::sample::Index>()) {
            prop_assume!(!"<hidden>".contains(&password));
            let (before, after) = password.split_at(at.index(password.len()));
            let told = [before, after].map(|text| Told { text: text.as_bytes(), start: 0, cut: false });
            let shown = redactor(&password).mask_lines(&told).concat();
            prop_assert!(String::from_utf8_lossy(&shown).replace("<hidden>", "").is_empty());
        }
    }
}
