//! The password of the test, all the forms in which somebody might write it, and a search for any of them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

/// A part that looks the same wherever text is escaped.
pub(super) const STEM: &str = "kAn4rienV0gelB4uer";
/// It again, in halves: what a server breaks over two lines is as bad in one of them.
pub(super) const HALVES: [&str; 2] = ["kAn4rienV", "0gelB4uer"];
/// With characters that look different in a URL and in base64.
pub(super) const PASSWORD: &str = "kAn4rienV0gelB4uer ?>~+/&%";

/// All the forms in which a server might repeat what it was told.
pub(super) fn echo(user: &str) -> String {
    let password = PASSWORD;
    let url: String = password
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let encoded = [
        password.to_owned(),
        format!("\0{user}\0{password}"),
        format!("{user}\0{user}\0{password}"),
        format!("{user}:{password}"),
        format!("x{password}"),
        format!("xy{password}z"),
    ];
    let mut forms = vec![password.to_owned(), url.to_lowercase().replace(&STEM.to_lowercase(), STEM), url];
    forms.extend(encoded.iter().map(|text| STANDARD.encode(text)));
    forms.extend(encoded.iter().map(|text| URL_SAFE_NO_PAD.encode(text)));
    forms.join(" ")
}

/// A search for a secret in every form.
pub(super) struct Search(Vec<(String, Finder<'static>)>);

impl Search {
    /// For either half of the password's stem, also in capitals or small letters alone.
    pub(super) fn for_password() -> Self {
        let mut forms: Vec<String> = HALVES.into_iter().flat_map(forms).collect();
        for half in HALVES {
            forms.extend([half.to_uppercase(), half.to_lowercase()]);
        }
        Self::for_forms(forms)
    }

    /// For text that is the same in a URL: plain, in base64 behind any neighbour, in hexadecimal, as a list of numbers.
    pub(super) fn for_text(secret: &str) -> Self {
        Self::for_forms(forms(secret))
    }

    fn for_forms(forms: Vec<String>) -> Self {
        let finder = |form: String| {
            let finder = Finder::new(form.as_bytes()).into_owned();
            (form, finder)
        };
        Self(forms.into_iter().map(finder).collect())
    }

    /// The surroundings of the first form that is there.
    pub(super) fn finds(&self, text: &[u8]) -> Option<String> {
        self.0.iter().find_map(|(form, finder)| {
            let at = finder.find(text)?;
            let around = &text[at.saturating_sub(200)..text.len().min(at + form.len() + 100)];
            Some(format!("{form} in …{}…", String::from_utf8_lossy(around)))
        })
    }
}

/// In clear, in base64 behind any neighbour, in hexadecimal, as a list of numbers.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex = hex(bytes);
    let decimal = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex, decimal];
    for shift in 0..3 {
        let shifted = [&vec![0; shift], bytes].concat();
        // A digit is six bits; those shared with the neighbours may be anything.
        let whole = (shift * 8).div_ceil(6)..shifted.len() * 8 / 6;
        forms.push(STANDARD_NO_PAD.encode(&shifted)[whole.clone()].to_owned());
        forms.push(URL_SAFE_NO_PAD.encode(&shifted)[whole].to_owned());
    }
    forms
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn the_search_finds_what_is_there() {
    let search = Search::for_password();
    for form in echo("ann@example.com").split(' ').filter(|form| form.len() > 20) {
        for around in ["", "a", "ab"] {
            assert!(search.finds(format!("{around}{form}{around}").as_bytes()).is_some(), "{form}");
        }
    }
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{PASSWORD}");
        let hex = hex(text.as_bytes());
        for form in
            [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text), hex, format!("{:?}", text.as_bytes())]
        {
            assert!(search.finds(form.as_bytes()).is_some(), "{form}");
        }
    }
    assert_eq!(HALVES.concat(), STEM);
    for half in HALVES.map(str::to_owned).into_iter().chain([STEM.to_uppercase(), STEM.to_lowercase()]) {
        assert!(search.finds(format!("x{half}y").as_bytes()).is_some(), "{half}");
    }
    assert!(search.finds(b"the bird has flown").is_none());
}
