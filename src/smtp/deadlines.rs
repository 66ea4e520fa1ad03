//! How long a server may take for what.

use std::time::Duration;

/// RFC 5321 4.5.3.2.6: giving up early on the reply to the dot doubles letters.
const MIN_ACCEPTANCE: Duration = Duration::from_mins(10);
/// RFC 5321 4.5.3.2.5: three minutes for each block of content.
const CONTENT_BLOCK: Duration = Duration::from_mins(3);
/// Slower than any line in use; a server that takes less holds the session on purpose.
const CONTENT_BYTES_PER_SECOND: u32 = 500;

/// What a server always gets, however short the site's `connection_timeout` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floors {
    /// For one block of content.
    pub content_block: Duration,
    /// For the reply to the dot.
    pub acceptance: Duration,
}

impl Default for Floors {
    /// Those of RFC 5321 4.5.3.2.
    fn default() -> Self {
        Self { content_block: CONTENT_BLOCK, acceptance: MIN_ACCEPTANCE }
    }
}

/// The time limits of a session. Each is for a whole reply or block, not for one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For resolving, connecting, the TLS handshake, the greeting, and the reply to each command.
    pub reply: Duration,
    /// For the server to take one block of content.
    pub content_block: Duration,
    /// Bytes of content a second that the server must take on average, once `content_block` is over.
    pub content_bytes_per_second: u32,
    /// For the reply to the dot.
    pub acceptance: Duration,
}

impl Deadlines {
    /// From the site's `connection_timeout`; content and acceptance have floors of their own.
    #[must_use]
    pub fn new(timeout: Duration, floors: Floors) -> Self {
        Self {
            reply: timeout,
            content_block: floors.content_block,
            content_bytes_per_second: CONTENT_BYTES_PER_SECOND,
            acceptance: timeout.max(floors.acceptance),
        }
    }

    /// The longest that a content of this size may take.
    pub(super) fn content(&self, bytes: usize) -> Duration {
        let rate = u64::from(self.content_bytes_per_second.max(1));
        self.content_block + Duration::from_secs(u64::try_from(bytes).unwrap_or(u64::MAX) / rate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Deadlines, Floors, MIN_ACCEPTANCE};

    #[test]
    fn the_floors() {
        let short = Deadlines::new(Duration::from_secs(10), Floors::default());
        assert_eq!(short.acceptance, MIN_ACCEPTANCE);
        assert_eq!(short.content(25_000_000), Duration::from_secs(180 + 50_000));
        let long = Duration::from_mins(15);
        assert_eq!(Deadlines::new(long, Floors::default()).acceptance, long);
    }
}
