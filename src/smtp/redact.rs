//! Masks a session's own secrets in whatever the server says: plain, in base64 and in URL form.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

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
    finders: Vec<Finder<'static>>,
}

impl Redactor {
    /// The secrets of this login, in every form in which a server might repeat them.
    pub(super) fn new(auth: &Auth) -> Self {
        let Auth::Password { username, password } = auth else {
            return Self { finders: Vec::new() };
        };
        let (user, password) = (username.as_bytes(), password.expose());
        let mut forms: Vec<Zeroizing<Vec<u8>>> = vec![Zeroizing::new(password.to_vec())];
        push_url_forms(&mut forms, password);
        let plain = plain_blob(user, password);
        let pair = [user, b":", password].concat();
        let with_authority = [user, b"\0", user, b"\0", password].concat();
        for secret in [password, user, &plain, &pair, &with_authority] {
            // Without padding: whatever padding follows is no secret.
            for encoded in [STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)] {
                push_url_forms(&mut forms, encoded.as_bytes());
                forms.push(Zeroizing::new(encoded.into_bytes()));
            }
        }
        // And in the middle of something that was encoded as a whole.
        forms.extend((0..3).flat_map(|shift| within_base64(password, shift)));
        forms.retain(|form| !form.is_empty());
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { finders: forms.iter().map(|form| Finder::new(form.as_slice()).into_owned()).collect() }
    }

    /// The bytes with every secret replaced; borrowed where there was none.
    ///
    /// `cut` tells that the bytes were cut at their end: then a beginning of a secret there is masked as well.
    pub(super) fn mask<'a>(&self, bytes: &'a [u8], cut: bool) -> std::borrow::Cow<'a, [u8]> {
        let mut masked = std::borrow::Cow::Borrowed(bytes);
        for finder in &self.finders {
            if let Some(replaced) = replace_all(finder, &masked) {
                masked = std::borrow::Cow::Owned(replaced);
            }
            if cut && let Some(length) = beginning_at_end(finder.needle(), &masked) {
                let mut owned = masked.into_owned();
                owned.truncate(owned.len() - length);
                owned.extend_from_slice(HIDDEN.as_bytes());
                masked = std::borrow::Cow::Owned(owned);
            }
        }
        masked
    }

    /// The text with every secret replaced.
    pub(super) fn mask_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes(), false)).into_owned()
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

/// Percent-encoded forms, with upper and lower case hex and with `+` for a space.
fn push_url_forms(forms: &mut Vec<Zeroizing<Vec<u8>>>, secret: &[u8]) {
    const UPPER: &[u8; 16] = b"0123456789ABCDEF";
    const LOWER: &[u8; 16] = b"0123456789abcdef";
    for (digits, plus) in [(UPPER, false), (UPPER, true), (LOWER, false), (LOWER, true)] {
        let mut encoded = Vec::with_capacity(secret.len() * 3);
        for &byte in secret {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte),
                b' ' if plus => encoded.push(b'+'),
                _ => encoded.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
            }
        }
        forms.push(Zeroizing::new(encoded));
    }
}

/// `None` where the needle is not in the text.
fn replace_all(finder: &Finder<'_>, text: &[u8]) -> Option<Vec<u8>> {
    let needle = finder.needle();
    let mut replaced = Vec::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(at) = finder.find(&text[from..]).map(|at| at + from) {
        let end = at + needle.len();
        if needle.len() >= SHORTEST_ANYWHERE_BYTES || stands_alone(text, at, end) {
            replaced.extend_from_slice(&text[copied..at]);
            replaced.extend_from_slice(HIDDEN.as_bytes());
            copied = end;
            from = end;
        } else {
            from = at + 1;
        }
    }
    if copied == 0 {
        return None;
    }
    replaced.extend_from_slice(&text[copied..]);
    Some(replaced)
}

fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    !is_word(start.checked_sub(1).and_then(|before| text.get(before))) && !is_word(text.get(end))
}

/// How many bytes at the end of the text are the beginning of the secret; short matches are chance.
fn beginning_at_end(secret: &[u8], text: &[u8]) -> Option<usize> {
    let longest = secret.len().saturating_sub(1).min(text.len());
    (SHORTEST_ANYWHERE_BYTES..=longest).rev().find(|&length| text.ends_with(&secret[..length]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Redactor, base64, plain_blob};
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
    fn a_secret_cut_by_the_limit_of_a_line_is_masked() {
        let redactor = redactor("correct horse");
        let shown = redactor.mask(b"535 you said correct hor", true);
        assert_eq!(shown.as_ref(), b"535 you said <hidden>");
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
    }
}
