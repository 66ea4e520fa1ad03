//! All that sending through an account takes, as it was when it was read.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::account::Account;
use crate::domain::log::{Entry, LogId, LogLevel};
use crate::domain::pace::Pace;
use crate::domain::settings::{EffectiveSettings, Settings};
use crate::smtp::{Target, Transcript};
use crate::store::queue::{Claim, Lane};
use crate::store::{Store, StoreError, accounts, passwords, settings};

/// An account with its login and its site's settings.
pub(super) struct Sender {
    pub(super) account: Account,
    pub(super) target: Target,
    pub(super) settings: EffectiveSettings,
    settings_version: i64,
    loaded: Instant,
}

impl Sender {
    /// Reads account, password and settings; `None` where the account is gone.
    pub(super) async fn load(store: &Store, lane: &Lane) -> Result<Option<Self>, StoreError> {
        let Lane { site, account } = lane;
        let Some(account) = accounts::find(store, site, *account).await? else { return Ok(None) };
        let Some(auth) = passwords::open(store, site, account.id).await? else { return Ok(None) };
        let Some(settings) = settings::find(store, site).await? else { return Ok(None) };
        let target = Target { server: account.profile.server.clone(), auth };
        let Settings { site: _, stored: _, effective, version, update_time: _ } = settings;
        Ok(Some(Self {
            account,
            target,
            settings: effective,
            settings_version: version,
            loaded: Instant::now(),
        }))
    }

    /// Whether this is how account and settings were when the letter was claimed.
    pub(super) fn fits(&self, claim: &Claim) -> bool {
        self.versions() == (claim.account_version, claim.settings_version)
    }

    /// The versions of account and settings.
    pub(super) fn versions(&self) -> (i64, i64) {
        (self.account.version, self.settings_version)
    }

    /// How much of its sessions is kept; `None` where nothing is.
    pub(super) fn kept(&self) -> Option<LogLevel> {
        self.settings.save_logs.then_some(self.settings.log_level)
    }

    /// The log of its sessions.
    pub(super) fn log(&self) -> LogId {
        LogId::send(self.account.profile.ownership.origin, self.account.id)
    }

    /// How long ago it was read.
    pub(super) fn age(&self) -> Duration {
        self.loaded.elapsed()
    }

    /// What of the transcript is to be stored now; `None` where there is nothing.
    pub(super) fn entries(&self, transcript: &Transcript) -> Option<Vec<Entry>> {
        let entries = transcript.take();
        (self.kept().is_some() && !entries.is_empty()).then_some(entries)
    }

    /// What paces its letters.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            limits: self.account.profile.limits,
            max_messages_per_batch: self.settings.max_messages_per_batch,
            min_batch_interval: self.settings.min_batch_interval,
        }
    }

    /// Most recipients in one transaction.
    pub(super) fn max_recipients(&self, mailing: bool) -> usize {
        let most = if self.settings.send_in_parts { 1 } else { self.pace().max_recipients(mailing) };
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Sessions it may have at once.
    pub(super) fn max_connections(&self) -> u32 {
        self.account.profile.limits.max_connections()
    }

    /// Whether something is noted against the account that a letter which goes through would disprove.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.account.parking.is_some() || self.account.failures > 0
    }
}
