//! Every call of the API and what it takes: the one table from which the handlers take their right, and
//! docs/SECURITY.md its table.

use super::Right;

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described where it is defined, in proto/postroom/v1")]
pub enum Rpc {
    CreateSite,
    GetSite,
    ListSites,
    DeleteSite,
    GetSettings,
    UpdateSettings,
    RestoreSettings,
    CreateAccount,
    GetAccount,
    ListAccounts,
    UpdateAccount,
    DeleteAccount,
    CheckAccount,
    ResolveAccount,
    ListProviders,
    CreateSender,
    ConfirmSender,
    ListSenders,
    DeleteSender,
    SendMessage,
    SendMessages,
    GetMessage,
    GetMessageContent,
    ListMessages,
    CancelMessage,
    RetryMessage,
    CancelMessages,
    RetryMessages,
    WatchEvents,
    ListLogs,
    ListLogEntries,
    TailLogEntries,
    DownloadLog,
    ClearLog,
}

/// Which keys a call may come with, their roles apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the site that it names, and those of all sites.
    Site,
    /// Those of all sites.
    AllSites,
    /// Every key; it is answered what it reaches.
    Any,
}

/// A call takes another right where it is about something special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// What, as the end of a sentence that begins with the name of the call.
    pub when: &'static str,
    /// The right.
    pub right: Right,
}

impl Rpc {
    /// All of them, by service.
    pub const ALL: [Self; 34] = [
        Self::CreateSite,
        Self::GetSite,
        Self::ListSites,
        Self::DeleteSite,
        Self::GetSettings,
        Self::UpdateSettings,
        Self::RestoreSettings,
        Self::CreateAccount,
        Self::GetAccount,
        Self::ListAccounts,
        Self::UpdateAccount,
        Self::DeleteAccount,
        Self::CheckAccount,
        Self::ResolveAccount,
        Self::ListProviders,
        Self::CreateSender,
        Self::ConfirmSender,
        Self::ListSenders,
        Self::DeleteSender,
        Self::SendMessage,
        Self::SendMessages,
        Self::GetMessage,
        Self::GetMessageContent,
        Self::ListMessages,
        Self::CancelMessage,
        Self::RetryMessage,
        Self::CancelMessages,
        Self::RetryMessages,
        Self::WatchEvents,
        Self::ListLogs,
        Self::ListLogEntries,
        Self::TailLogEntries,
        Self::DownloadLog,
        Self::ClearLog,
    ];

    /// The service it belongs to.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::CreateSite
            | Self::GetSite
            | Self::ListSites
            | Self::DeleteSite
            | Self::GetSettings
            | Self::UpdateSettings
            | Self::RestoreSettings => "SettingsService",
            Self::CreateAccount
            | Self::GetAccount
            | Self::ListAccounts
            | Self::UpdateAccount
            | Self::DeleteAccount
            | Self::CheckAccount
            | Self::ResolveAccount
            | Self::ListProviders
            | Self::CreateSender
            | Self::ConfirmSender
            | Self::ListSenders
            | Self::DeleteSender => "AccountsService",
            Self::SendMessage
            | Self::SendMessages
            | Self::GetMessage
            | Self::GetMessageContent
            | Self::ListMessages
            | Self::CancelMessage
            | Self::RetryMessage
            | Self::CancelMessages
            | Self::RetryMessages
            | Self::WatchEvents => "SendService",
            Self::ListLogs
            | Self::ListLogEntries
            | Self::TailLogEntries
            | Self::DownloadLog
            | Self::ClearLog => "LogsService",
        }
    }

    /// What it takes.
    #[must_use]
    pub const fn right(self) -> Right {
        match self {
            Self::CreateSite | Self::DeleteSite => Right::ManageSites,
            Self::GetSite | Self::ListSites => Right::ReadSite,
            Self::GetSettings | Self::UpdateSettings | Self::RestoreSettings => Right::ManageSettings,
            Self::CreateAccount | Self::UpdateAccount | Self::DeleteAccount | Self::CheckAccount => {
                Right::ManageAccounts
            }
            Self::GetAccount | Self::ListAccounts | Self::ResolveAccount | Self::ListSenders => {
                Right::ReadAccounts
            }
            Self::ListProviders => Right::ReadProviders,
            Self::CreateSender | Self::ConfirmSender | Self::DeleteSender => Right::ManageSenders,
            Self::SendMessage
            | Self::SendMessages
            | Self::CancelMessage
            | Self::RetryMessage
            | Self::CancelMessages
            | Self::RetryMessages => Right::Send,
            Self::GetMessage | Self::ListMessages | Self::WatchEvents => Right::ReadMessages,
            Self::GetMessageContent => Right::ReadContent,
            Self::ListLogs | Self::ListLogEntries | Self::TailLogEntries | Self::DownloadLog => {
                Right::ReadLogs
            }
            Self::ClearLog => Right::ClearLogs,
        }
    }

    /// Which keys it may come with.
    #[must_use]
    pub const fn reach(self) -> Reach {
        match self {
            Self::CreateSite => Reach::AllSites,
            Self::ListSites | Self::ListProviders => Reach::Any,
            _ => Reach::Site,
        }
    }

    /// Where it takes another right.
    #[must_use]
    pub const fn special(self) -> Option<Special> {
        let (when, right) = match self {
            Self::ResolveAccount => ("with show_all", Right::ManageAccounts),
            Self::CreateSender | Self::DeleteSender => ("of a MAILBOX sender", Right::ManageAccounts),
            Self::ListLogEntries | Self::TailLogEntries | Self::DownloadLog | Self::ClearLog => {
                ("of the log `audit`", Right::ReadAudit)
            }
            _ => return None,
        };
        Some(Special { when, right })
    }

    /// What it takes in a case that is special or not.
    #[must_use]
    pub const fn right_if(self, is_special: bool) -> Right {
        match self.special() {
            Some(Special { right, .. }) if is_special => right,
            _ => self.right(),
        }
    }
}
