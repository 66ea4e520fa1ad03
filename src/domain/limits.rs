//! The limits of an account: what its provider takes of it.

/// Sessions at once where the account sets none.
pub const DEFAULT_CONNECTIONS: u32 = 5;
/// Most sessions at once that an account may set.
pub const MAX_CONNECTIONS: u32 = 100;
/// Recipients in one transaction where the account sets none; every server must take as many (RFC 5321 4.5.3.1.8).
pub const DEFAULT_RECIPIENTS: u32 = 100;
/// Most recipients in one transaction that an account may set: those of the largest letter.
pub const MAX_RECIPIENTS: u32 = 1_000;
/// Largest count of transactions or recipients in a window that an account may set: more than any server takes, and
/// what the store's integers hold.
pub const MAX_COUNT: u32 = 1_000_000_000;
/// Largest part of the limits that can be kept from mailings.
pub const MAX_RESERVE_PERCENT: u32 = 99;

/// Limits as they were set; `None` for no limit, or the default where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Transactions that reach MAIL FROM in any minute.
    pub per_minute: Option<u32>,
    /// In any hour.
    pub per_hour: Option<u32>,
    /// In any day.
    pub per_day: Option<u32>,
    /// Recipients named in any day.
    pub recipients_per_day: Option<u32>,
    /// Sessions at once.
    pub max_connections: Option<u32>,
    /// Recipients in one transaction.
    pub max_recipients: Option<u32>,
    /// Part of the limits that is kept from mailings for other mail, 0 to 99.
    pub reserve_percent: Option<u32>,
}

impl Limits {
    /// Sessions at once.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections.unwrap_or(DEFAULT_CONNECTIONS)
    }

    /// Recipients in one transaction.
    #[must_use]
    pub fn max_recipients(&self) -> u32 {
        self.max_recipients.unwrap_or(DEFAULT_RECIPIENTS)
    }

    /// What a mailing may use of a limit; other mail may use all of it. A mailing is never shut out altogether.
    #[must_use]
    pub fn share(&self, limit: u32, mailing: bool) -> u32 {
        match self.reserve_percent {
            Some(percent) if mailing => {
                let part = u64::from(limit) * u64::from(100 - percent.min(MAX_RESERVE_PERCENT)) / 100;
                u32::try_from(part).unwrap_or(limit).max(1)
            }
            _ => limit,
        }
    }

    /// Whether anything limits how many letters go out.
    #[must_use]
    pub const fn count(&self) -> bool {
        self.per_minute.is_some()
            || self.per_hour.is_some()
            || self.per_day.is_some()
            || self.recipients_per_day.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn the_reserve_is_kept_from_mailings() {
        for (percent, limit, mailing, share) in [
            (None, 30, true, 30),
            (Some(20), 30, false, 30),
            (Some(20), 30, true, 24),
            (Some(99), 30, true, 1),
            (Some(0), 30, true, 30),
        ] {
            let limits = Limits { reserve_percent: percent, ..Limits::default() };
            assert_eq!(limits.share(limit, mailing), share, "{percent:?} {limit} {mailing}");
        }
    }
}
