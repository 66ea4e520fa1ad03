//! Pages and places in streams (AIP-158): sizes, and opaque tokens that are bound to the call they were made for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::fields::Violations;
use crate::domain::error::Problem;
use crate::vault::{Fingerprint, Vault};

/// Page size where the caller names none.
const DEFAULT_SIZE: i32 = 50;
/// Largest page.
const MAX_SIZE: i32 = 1_000;
/// Bytes of a token that prove where it comes from.
const MAC_BYTES: usize = 16;
/// Longest token in bytes; ours are far below.
const MAX_TOKEN_BYTES: usize = 1_024;

/// The size of a page.
///
/// # Errors
/// `INVALID_FIELD` for a negative one.
fn size(page_size: i32) -> Result<usize, Problem> {
    let size = if page_size == 0 { DEFAULT_SIZE } else { page_size.min(MAX_SIZE) };
    usize::try_from(size).map_err(|_| Problem::invalid_field("page_size", "must not be negative"))
}

/// Which page is asked for.
pub(super) struct Page {
    /// How many it holds at most.
    pub(super) size: usize,
    /// Where it begins; `None` for the first.
    pub(super) place: Option<String>,
}

impl Page {
    /// The page of a request; `None` with everything noted that is wrong.
    pub(super) fn parse(
        page_size: i32,
        page_token: &str,
        tokens: &Tokens<'_>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let size = violations.take_parsed(size(page_size));
        let place = violations.take_parsed(tokens.page(page_token));
        Some(Self { size: size?, place: place? })
    }
}

/// How many to ask the store for: one more than the page holds tells whether there is a next page.
pub(super) fn limit(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts what was found to the size of a page; the last of the page where there is a next one.
pub(super) fn cut<T>(found: &mut Vec<T>, size: usize) -> Option<&T> {
    if found.len() <= size {
        return None;
    }
    found.truncate(size);
    found.last()
}

/// Makes and reads tokens of one call; `arguments` are all that a token must not be used without.
pub(super) struct Tokens<'a> {
    vault: &'a Vault,
    purpose: &'static str,
    arguments: Vec<u8>,
}

impl<'a> Tokens<'a> {
    /// Tokens for this purpose and these arguments.
    pub(super) fn new(vault: &'a Vault, purpose: &'static str, arguments: &[&[u8]]) -> Self {
        let mut bound = Vec::new();
        for argument in arguments {
            bound.extend_from_slice(&(argument.len() as u64).to_be_bytes());
            bound.extend_from_slice(argument);
        }
        Self { vault, purpose, arguments: bound }
    }

    /// A token for this place.
    pub(super) fn make(&self, place: &str) -> String {
        let fingerprint = self.fingerprint(place);
        URL_SAFE_NO_PAD.encode([&fingerprint.mac()[..MAC_BYTES], place.as_bytes()].concat())
    }

    /// The place of a token that was made for this call; `None` for any other text.
    pub(super) fn read(&self, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (mac, place) = bytes.split_at_checked(MAC_BYTES)?;
        let place = std::str::from_utf8(place).ok()?;
        // A token is no secret: a comparison in variable time gives nothing away that matters.
        self.fingerprint(place).begins(mac).then(|| place.to_owned())
    }

    /// The place of a page token; `None` for the first page.
    ///
    /// # Errors
    /// `INVALID_FIELD` for a token of another call.
    fn page(&self, page_token: &str) -> Result<Option<String>, Problem> {
        if page_token.is_empty() {
            return Ok(None);
        }
        self.read(page_token).map(Some).ok_or_else(|| {
            Problem::invalid_field(
                "page_token",
                "must be the next_page_token of a call with the same arguments",
            )
        })
    }

    fn fingerprint(&self, place: &str) -> Fingerprint {
        self.vault.fingerprint(self.purpose, &[self.arguments.as_slice(), place.as_bytes()].concat())
    }
}
