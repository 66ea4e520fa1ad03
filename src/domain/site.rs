//! Sites: one portal, shop or CRM each.

use std::fmt;

use time::OffsetDateTime;

/// Longest site id in characters.
const MAX_SITE_ID: usize = 63;

/// The id of a site, `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(String);

impl SiteId {
    /// The id, if the text is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let right = (1..=MAX_SITE_ID).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        right.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource name, `sites/{site}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("sites/{}", self.0)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// Its name for people.
    pub display_name: String,
    /// When it was created.
    pub create_time: OffsetDateTime,
}
