//! A certificate whose end is near, or over, is told of.

use time::{Duration, OffsetDateTime};

/// From here on it is told: half the time in which certificates of thirty days are usually renewed.
const NEAR: Duration = Duration::days(14);

/// What there is to tell of an end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Far,
    Near,
    Over,
}

fn judge(end: OffsetDateTime, now: OffsetDateTime) -> End {
    match end - now {
        left if left.is_negative() => End::Over,
        left if left < NEAR => End::Near,
        _ => End::Far,
    }
}

/// Writes a warning if the end is near.
pub(super) fn tell(end: Option<OffsetDateTime>, now: OffsetDateTime) {
    let Some(end) = end else { return };
    match judge(end, now) {
        End::Far => {}
        End::Near => {
            tracing::warn!(until = %end, days = (end - now).whole_days(), "the certificate of --tls-cert is about to expire");
        }
        End::Over => {
            tracing::warn!(until = %end, "the certificate of --tls-cert has expired: clients will refuse it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourteen_days() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(judge(now + Duration::days(14), now), End::Far);
        assert_eq!(judge(now + Duration::days(14) - Duration::SECOND, now), End::Near);
        assert_eq!(judge(now, now), End::Near);
        assert_eq!(judge(now - Duration::SECOND, now), End::Over);
    }
}
